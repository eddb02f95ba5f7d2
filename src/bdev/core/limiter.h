// Rate limits of a device, shared by its channels without a thread that owns them: a budget that refills with time,
// from which each channel takes a small share at once (one atomic exchange a share, not a request). A request may go
// when there is any budget left for it and may overdraw it, so that the average is exact and a large one is never
// stuck.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>

#include "bdev/io.h"
#include "thread/thread.h"
#include "util/list.h"

namespace varve::bdev {

struct channel_core;

// 0: no limit.
struct rate_limits {
    uint64_t rw_ios_per_sec = 0;
    uint64_t rw_bytes_per_sec = 0, r_bytes_per_sec = 0, w_bytes_per_sec = 0;
    bool any() const noexcept { return (rw_ios_per_sec | rw_bytes_per_sec | r_bytes_per_sec | w_bytes_per_sec) != 0; }
    bool operator==(const rate_limits&) const = default;
};

class rate_budget {
  public:
    enum kind : unsigned { rw_ios, rw_bytes, r_bytes, w_bytes, kinds };
    static constexpr time_ns slice = 1 * milliseconds;

    rate_budget(const rate_limits& limits, time_ns now) noexcept;
    bool limits(kind k) const noexcept { return _per_second[k] != 0; }
    // Up to one share, in billionths of an operation or byte; 0: nothing is left before the next slice. Any thread.
    int64_t take_share(kind k, time_ns now) noexcept;

  private:
    void refill(time_ns now) noexcept;
    std::array<uint64_t, kinds> _per_second;
    alignas(64) std::atomic<time_ns> _refilled;
    std::array<std::atomic<int64_t>, kinds> _left;
};

// A channel's side.
class limiter {
  public:
    explicit limiter(channel_core& core) noexcept;
    ~limiter() { VARVE_ASSERT(_waiting.empty()); }

    // Null: no limit any more; what waits goes on.
    void use(rate_budget* budget) noexcept;
    // False when the request has to wait; it goes on by itself.
    bool admit(io& r) noexcept;
    queue<work>& waiting() noexcept { return _waiting; }

  private:
    bool has(rate_budget::kind k) noexcept;
    bool pay(const io& r) noexcept;
    void retry() noexcept;

    struct retry_work : work {
        limiter* of = nullptr;
    };
    channel_core& _core;
    rate_budget* _budget = nullptr;
    std::array<int64_t, rate_budget::kinds> _mine{};
    queue<work> _waiting;
    retry_work _retry;
    thread::timer _next_slice;
};

}  // namespace varve::bdev
