#include "bdev/core/range_lock.h"

#include <algorithm>

#include "bdev/core/channel_core.h"

namespace varve::bdev {

namespace {

bool writes(op o) noexcept {
    return o == op::write || o == op::unmap || o == op::write_zeroes || o == op::copy || o == op::compare_and_write;
}

}  // namespace

void locked_ranges::add(const range_lock& l) {
    _locks.push_back(l);
    _core.gate_on(gate_bit::locked);
}

void locked_ranges::remove(uint64_t id) noexcept {
    std::erase_if(_locks, [&](const range_lock& l) { return l.id == id; });
    if (_locks.empty()) _core.gate_off(gate_bit::locked);
    _core.resubmit_all(_held);
}

template <unsigned Epoch>
void locked_ranges::finished(io& r, void* core) noexcept {
    auto& c = *static_cast<channel_core*>(core);
    --c.locks._count[Epoch];
    c.finish(r);
}

frame locked_ranges::epoch_frame() noexcept {
    ++_count[_epoch];
    return {_epoch == 1 ? &finished<1> : &finished<2>, &_core};
}

bool locked_ranges::drained() const noexcept { return _core.of->in_flight() == _count[_epoch]; }

void locked_ranges::check_drain() noexcept {
    if (!_drainer || !drained()) return;
    _core.unwatch(channel_core::drain_wanted);
    _drainer.go(_core.on);
}

task<> locked_ranges::drain() {
    auto one = co_await _one_drain.lock();
    _epoch = 3 - _epoch;
    VARVE_ASSERT(_count[_epoch] == 0);  // after a drain all are in the other one, or in none
    if (!drained()) _core.watch(channel_core::drain_wanted);
    co_await _drainer.until([this] { return drained(); });
}

bool locked_ranges::hold(io& r) noexcept {
    if (!writes(r.operation)) return false;
    block_range range{r.lba, r.lba + r.blocks - 1};
    if (std::ranges::none_of(_locks, [&](const range_lock& l) { return l.range.overlaps(range); })) return false;
    _held.push(r);
    return true;
}

}  // namespace varve::bdev
