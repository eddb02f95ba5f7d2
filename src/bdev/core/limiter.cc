#include "bdev/core/limiter.h"

#include <algorithm>

#include "bdev/core/channel_core.h"

namespace varve::bdev {

namespace {
constexpr int64_t unit = 1'000'000'000;  // budgets count billionths, so that any rate refills smoothly
constexpr int64_t shares = 16;           // of what a slice brings
constexpr int64_t saved_slices = 10;     // what idle time may save up; also evens out late timers
// Rates above are no limits a machine could feel; they keep the sums inside 63 bits.
constexpr uint64_t rate_max = uint64_t{1} << 40;
}  // namespace

rate_budget::rate_budget(const rate_limits& limits, time_ns now) noexcept
    : _per_second{limits.rw_ios_per_sec, limits.rw_bytes_per_sec, limits.r_bytes_per_sec, limits.w_bytes_per_sec},
      _refilled(now) {
    for (auto& rate : _per_second) rate = std::min(rate, rate_max);
    for (unsigned k = 0; k < kinds; ++k) _left[k].store(static_cast<int64_t>(_per_second[k]) * slice);
}

void rate_budget::refill(time_ns now) noexcept {
    time_ns before = _refilled.load(std::memory_order_relaxed);
    time_ns elapsed = now - before;
    if (elapsed < slice / shares) return;
    if (!_refilled.compare_exchange_strong(before, now, std::memory_order_relaxed)) return;
    for (unsigned k = 0; k < kinds; ++k) {
        if (_per_second[k] == 0) continue;
        auto rate = static_cast<int64_t>(_per_second[k]);
        int64_t brought = rate * std::min(elapsed, (int64_t{1} << 61) / rate);
        int64_t most = rate * saved_slices * slice;
        int64_t left = _left[k].load(std::memory_order_relaxed);
        while (!_left[k].compare_exchange_weak(left, std::min(left + brought, std::max(most, left)),
                                               std::memory_order_relaxed)) {
        }
    }
}

int64_t rate_budget::take_share(kind k, time_ns now) noexcept {
    refill(now);
    int64_t share = std::max(static_cast<int64_t>(_per_second[k]) * slice / shares, int64_t{1});
    int64_t left = _left[k].load(std::memory_order_relaxed);
    while (left > 0) {
        int64_t taken = std::min(left, share);
        if (_left[k].compare_exchange_weak(left, left - taken, std::memory_order_relaxed)) return taken;
    }
    return 0;
}

limiter::limiter(channel_core& core) noexcept : _core(core), _next_slice(_retry) {
    _retry.of = this;
    _retry.run = [](work& w) noexcept { static_cast<retry_work&>(w).of->retry(); };
}

void limiter::use(rate_budget* budget) noexcept {
    _budget = budget;
    _mine = {};
    if (budget != nullptr) {
        _core.gate_on(gate_bit::limited);
    } else {
        _core.gate_off(gate_bit::limited);
        _next_slice.cancel();
        _core.resubmit_all(_waiting);
    }
}

bool limiter::has(rate_budget::kind k) noexcept {
    if (!_budget->limits(k)) return true;
    while (_mine[k] <= 0) {
        int64_t share = _budget->take_share(k, _core.on.now());
        if (share == 0) return false;
        _mine[k] += share;
    }
    return true;
}

bool limiter::pay(const io& r) noexcept {
    bool reads = r.operation == op::read, writes = r.operation == op::write;
    if (!reads && !writes) return true;
    auto own = reads ? rate_budget::r_bytes : rate_budget::w_bytes;
    if (!has(rate_budget::rw_ios) || !has(rate_budget::rw_bytes) || !has(own)) return false;
    auto bytes = static_cast<int64_t>(uint64_t{r.blocks} * _core.block_size());
    bytes = std::min(bytes, INT64_MAX / unit);
    if (_budget->limits(rate_budget::rw_ios)) _mine[rate_budget::rw_ios] -= unit;
    if (_budget->limits(rate_budget::rw_bytes)) _mine[rate_budget::rw_bytes] -= bytes * unit;
    if (_budget->limits(own)) _mine[own] -= bytes * unit;
    return true;
}

bool limiter::admit(io& r) noexcept {
    if (_waiting.empty() && pay(r)) return true;
    _waiting.push(r);
    if (!_next_slice.running()) _next_slice.start(rate_budget::slice);
    return false;
}

void limiter::retry() noexcept {
    while (work* first = _waiting.front()) {
        auto& r = static_cast<io&>(*first);
        if (!pay(r)) break;
        _waiting.pop();
        _core.past_limiter(r);
    }
    if (!_waiting.empty()) _next_slice.start(rate_budget::slice);
}

}  // namespace varve::bdev
