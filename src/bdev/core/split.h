// Requests that a device takes only in parts: across its boundary, longer than it does at once, in more pieces of
// memory than it takes. The parts come from a pool of the channel, made when first needed; an empty one makes requests
// wait. The pool is the channel's and not the thread's, so that layers cannot wait for each other's parts.
#pragma once

#include <array>
#include <memory>

#include "bdev/core/iov_cursor.h"
#include "bdev/io.h"
#include "util/list.h"

namespace varve::bdev {

struct channel_core;

// What one request of an operation may be at most. Blocks; 0: no limit.
struct part_limits {
    uint32_t blocks = 0;
    uint32_t boundary = 0;  // a power of two
    uint32_t segments = 0;
    // Blocks from `lba` on that fit into one part.
    uint32_t fit(uint64_t lba, uint64_t wanted) const noexcept {
        if (blocks != 0 && wanted > blocks) wanted = blocks;
        if (boundary != 0) wanted = std::min<uint64_t>(wanted, boundary - (lba & (boundary - 1)));
        return static_cast<uint32_t>(std::min<uint64_t>(wanted, UINT32_MAX));
    }
};

class splitter {
  public:
    explicit splitter(channel_core& core) noexcept : _core(core) {}
    ~splitter();

    // Takes a request that was begun (channel_core::begin) and completes it.
    void split(io& r) noexcept;
    queue<work>& waiting() noexcept { return _waiting; }

    static constexpr unsigned parallel_parts = 4;
    static constexpr unsigned parallel_requests = 16;
    static constexpr unsigned part_segments = 16;

  private:
    struct fan_out;
    struct part {
        io request;
        fan_out* of = nullptr;
        std::array<iovec, part_segments> iov;
    };
    struct fan_out {
        splitter* owner = nullptr;
        io* whole = nullptr;
        uint64_t lba = 0, source = 0, left = 0;  // what is not handed out yet
        iov_cursor memory;
        std::byte* metadata = nullptr;
        status outcome = status::ok;
        unsigned free_parts = 0;  // a bit each
        std::array<part, parallel_parts> parts;
        fan_out* next = nullptr;
    };
    static constexpr unsigned all_free = (1u << parallel_parts) - 1;
    static void take(fan_out& f, io& r) noexcept;
    void go_on(fan_out& f) noexcept;
    bool cut(fan_out& f, part& p) noexcept;
    static void part_finished(io& r, void* its_part) noexcept;

    channel_core& _core;
    std::unique_ptr<std::array<fan_out, parallel_requests>> _all;
    queue<fan_out> _free;
    queue<work> _waiting;
};

}  // namespace varve::bdev
