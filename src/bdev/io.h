// One block request. It travels the whole stack: every layer changes it in place on the way down and pushes a
// completion frame; completing pops them on the way up. It is owned by whoever made it (a target's queue slot, a
// layer's pool) and must stay where it is from submit until its outermost frame has run.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>

#include "util/assert.h"
#include "util/units.h"
#include "util/work.h"

namespace varve::bdev {

enum class op : uint8_t {
    read,
    write,
    flush,
    unmap,
    write_zeroes,
    compare,
    compare_and_write,  // iov: blocks to compare, then as many to write; atomic per device
    copy,               // inside the device: source_lba -> lba
    reset,
    nvme_admin,
    nvme_io,
    seek_data,  // the first block from lba on that may hold something, into `found`
    seek_hole,  // the first from lba on that is known to read as zeroes
    count
};

// Which operations a device offers: bit (1 << op).
using op_set = uint32_t;
constexpr op_set op_bit(op o) noexcept { return op_set{1} << static_cast<unsigned>(o); }

// Outcome of a request. Values with the top bit carry an NVMe status as a device gave it: 0x8000 | sct << 8 | sc.
enum class status : uint16_t {
    ok = 0,
    failed,          // the device could not say more
    invalid,         // malformed request
    unsupported,     // the device does not do this operation
    out_of_range,    // beyond the end
    read_only,       // a write to something that cannot be written
    no_space,        // thin storage is exhausted
    media_error,     // unrecovered read or write error
    compare_failed,  // miscompare
    aborted,         // by abort, reset or removal of the channel
    no_device,       // the device has gone
    no_memory,
    conflict,  // reservation conflict
};
constexpr unsigned status_count = static_cast<unsigned>(status::conflict) + 1;

// A status as the device gave it, in NVMe's terms (see above).
constexpr status nvme_status(unsigned type, unsigned code) noexcept {
    return static_cast<status>(0x8000 | (type & 7) << 8 | (code & 0xff));
}

class io;

// What happens when a request completes: one per layer that wants to know.
struct frame {
    void (*finished)(io& r, void* context) noexcept;
    void* context;
};

constexpr unsigned max_frames = 8;

class alignas(64) io : public work {  // `work` queues it: complete_later, held requests, a device's own list
  public:
    // --- what is asked; set by the issuer, may be changed by layers on the way down
    uint64_t lba = 0;
    union {
        iovec* iov = nullptr;
        uint64_t source_lba;  // op::copy
        uint64_t found;       // op::seek_data, op::seek_hole: the answer
    };
    uint32_t blocks = 0;
    uint32_t iov_count = 0;
    op operation = op::read;
    uint8_t flags = 0;
    bdev::status status = bdev::status::ok;  // the outcome, when finished
    uint8_t depth = 0;                       // frames in use
    uint8_t reserved[3] = {};
    time_ns submitted = 0;     // thread::now() at the outermost submit
    void* metadata = nullptr;  // separate metadata buffer, when the device has it

    static constexpr uint8_t fua = 1;
    // A read into memory that may stay as it is where the device has nothing to put there: its issuer's own, or all
    // zeroes. Without it such a device clears the memory, which may hold what is not the reader's.
    static constexpr uint8_t leave_memory = 2;
    static constexpr uint64_t nowhere = UINT64_MAX;  // `found` when there is no such block

    void push(void (*finished)(io&, void*) noexcept, void* context) noexcept {
        VARVE_ASSERT(depth < max_frames);
        frames[depth++] = {finished, context};
    }

  private:
    friend void complete(io& r) noexcept;
    frame frames[max_frames];
};

static_assert(sizeof(io) == 3 * 64, "a request is three cache lines");

// Runs the innermost frame, which goes on outwards by calling complete() in turn. The status is set already.
inline void complete(io& r) noexcept {
    VARVE_ASSERT(r.depth > 0);
    frame f = r.frames[--r.depth];
    f.finished(r, f.context);
}
inline void complete(io& r, status outcome) noexcept {
    r.status = outcome;
    complete(r);
}

}  // namespace varve::bdev
