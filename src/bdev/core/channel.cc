// What happens to requests that submit() does not let straight through. The order is: the gate, validity, the rate
// limit, locked ranges, and then the request is started, taken apart, or emulated.
#include "bdev/channel.h"

#include <bit>

#include "bdev/batch.h"
#include "bdev/core/channel_core.h"
#include "bdev/core/device_state.h"

namespace varve::bdev {

namespace {

bool writes(op o) noexcept {
    return o == op::write || o == op::unmap || o == op::write_zeroes || o == op::copy || o == op::compare_and_write;
}
bool seeks(op o) noexcept { return o == op::seek_data || o == op::seek_hole; }
bool has_range(op o) noexcept { return o != op::flush && o != op::reset && o != op::nvme_admin && o != op::nvme_io; }
bool carries_data(op o) noexcept {
    return o == op::read || o == op::write || o == op::compare || o == op::compare_and_write;
}

// Looked at one by one: their second range, their atomicity, or their lack of a range is nothing submit() checks.
constexpr op_set never_common = op_bit(op::flush) | op_bit(op::compare_and_write) | op_bit(op::copy) |
                                op_bit(op::reset) | op_bit(op::nvme_admin) | op_bit(op::nvme_io) |
                                op_bit(op::seek_data) | op_bit(op::seek_hole);

uint32_t window_of(const properties& p) noexcept {
    uint32_t most = uint32_t{1} << 31;
    if (!p.passes_on && p.max_blocks != 0) most = std::min(most, std::bit_floor(p.max_blocks));
    if (!p.passes_on && p.split_on_boundary) most = std::min(most, p.optimal_io_boundary);
    return most - 1;
}

}  // namespace

void channel::submit_uncommon(io& r) noexcept { _core->resubmit(r); }
void channel::finished_uncommon(io& r, time_ns latency) noexcept {
    _core->finished(r, latency);
    complete(r);
}
bool channel::abort(io& r) noexcept { return _core->abort(r) || do_abort(r); }

channel_core::channel_core(device_state& s, bool may_write)
    : device(s),
      on(*thread::thread::current()),
      serial(++s.serials),
      writable(may_write),
      of(s.of.open_channel()),
      rate(*this),
      locks(*this),
      parts(*this),
      emulation(*this) {
    const properties& p = s.of.props();
    native = p.offered;
    if (p.passes_on) {
        for (unsigned o = 0; o < op_count; ++o) {
            if (s.of.supports(static_cast<op>(o))) native |= op_bit(static_cast<op>(o));
        }
    }
    native &= ~op_bit(op::reset);  // the core's own business, with device::reset()
    of->_thread = &on;
    of->_device = &s.of;
    of->_core = this;
    if (!p.passes_on) {
        if (p.alignment > 1 || p.max_segments != 0) gate_on(gate_bit::checked);
    }
    of->_window = window_of(p);
    gate_on(gate_bit::joining);
}

uint32_t channel_core::block_size() const noexcept { return device.of.block_size(); }
uint32_t channel_core::metadata_size() const noexcept { return device.of.props().metadata_size; }

void channel_core::update_common() noexcept {
    const properties& p = device.of.props();
    op_set common = native & ~never_common;
    if (!writable || is_read_only(device.of)) common &= op_bit(op::read) | op_bit(op::compare);
    if (p.passes_on) {
        of->_common = of->_gate == 0 ? common : 0;
        return;
    }
    if (p.max_unmap_blocks != 0) common &= ~op_bit(op::unmap);
    if (p.max_write_zeroes_blocks != 0) common &= ~op_bit(op::write_zeroes);
    of->_common = of->_gate == 0 ? common : 0;
}

void channel_core::gate_off(gate_bit b) noexcept {
    of->_gate &= ~static_cast<uint32_t>(b);
    update_common();
    if (!is_closed()) resubmit_all(held);
}

void channel_core::removed() noexcept {
    gate_on(gate_bit::removed);
    resubmit_all(held);
    resubmit_all(rate.waiting());
    resubmit_all(locks.held());
}

// They are refused if the gate has a reason to; what waits again does so behind nobody it was ahead of.
void channel_core::resubmit_all(queue<work>& line) noexcept {
    work* next = line.take_all();
    while (work* w = next) {
        next = w->next;
        resubmit(static_cast<io&>(*w));
    }
}

void channel_core::resubmit(io& r) noexcept {
    if (of->_gate != 0) {
        if (gated(gate_bit::removed)) return refuse(r, status::no_device);
        if ((of->_gate & holding) != 0) return held.push(r);
    }
    if (status s = validate(r); s != status::ok) return refuse(r, s);
    if (gated(gate_bit::limited) && !rate.admit(r)) return;
    past_limiter(r);
}

void channel_core::past_limiter(io& r) noexcept {
    if (gated(gate_bit::locked) && locks.hold(r)) return;
    carry_out(r);
}

status channel_core::validate(const io& r) const noexcept {
    if (!device.of.supports(r.operation)) {
        return writes(r.operation) && is_read_only(device.of) ? status::read_only : status::unsupported;
    }
    if (writes(r.operation) && !writable) return status::read_only;
    if (!has_range(r.operation)) return status::ok;
    if (r.blocks == 0) return status::invalid;
    if (!range_inside(r.lba, r.blocks, of->_num_blocks)) return status::out_of_range;
    if (r.operation == op::copy && !range_inside(r.source_lba, r.blocks, of->_num_blocks)) return status::out_of_range;
    return status::ok;
}

void channel_core::refuse(io& r, status why) noexcept {
    ++errors.errors[static_cast<unsigned>(why)];
    complete_later(r, why);
}

void channel_core::begin(io& r) noexcept {
    ++of->_in_flight;
    if (gated(gate_bit::locked)) {
        frame f = locks.epoch_frame();
        r.push(f.finished, f.context);
    } else {
        r.push(channel::finished, of.get());
    }
}

// Everything that is not simply started is begun (counted) first; its parts go to the module past the gate, so that a
// request once under way ends also while the gate is closed.
void channel_core::carry_out(io& r) noexcept {
    if (offers(r.operation)) {
        if (device.of.props().passes_on) return start(r);
        if (r.operation == op::compare_and_write) {
            if (!must_split(r) && !must_bounce(r)) return start(r);
            return emulation.compare_and_write(r);
        }
        if (!has_range(r.operation) || seeks(r.operation)) return start(r);
        if (must_bounce(r)) {
            begin(r);
            return emulation.bounce(r);
        }
        if (!must_split(r)) return start(r);
        begin(r);
        return parts.split(r);
    }
    switch (r.operation) {
        case op::flush:  // without a cache there is nothing to do
            begin(r);
            return complete_later(r, status::ok);
        case op::unmap:
        case op::write_zeroes:
            begin(r);
            return emulation.zero(r);
        case op::compare:
            begin(r);
            return emulation.compare(r);
        case op::copy:
            begin(r);
            return emulation.copy(r);
        case op::compare_and_write:
            return emulation.compare_and_write(r);
        case op::reset:
            return device.reset_requested(r, *this);
        case op::seek_data:  // who does not know where nothing is has something everywhere
        case op::seek_hole:
            begin(r);
            r.found = r.operation == op::seek_data ? r.lba : io::nowhere;
            return complete_later(r, status::ok);
        default:
            return refuse(r, status::unsupported);
    }
}

part_limits channel_core::limits_of(op o) const noexcept {
    const properties& p = device.of.props();
    part_limits limits;
    const bool crosses = p.zeroing_crosses_boundary && (o == op::unmap || o == op::write_zeroes);
    if (p.split_on_boundary && !crosses) limits.boundary = p.optimal_io_boundary;
    limits.segments = p.max_segments;
    switch (o) {
        case op::unmap:
            limits.blocks = p.max_unmap_blocks;
            break;
        case op::write_zeroes:
            limits.blocks = p.max_write_zeroes_blocks;
            break;
        case op::copy:
            limits.blocks = p.max_copy_blocks;
            break;
        case op::compare_and_write:
            limits.blocks = p.atomic_blocks == 0 ? 1 : p.atomic_blocks;
            break;
        default:
            limits.blocks = p.max_blocks;
    }
    return limits;
}

bool channel_core::must_split(const io& r) const noexcept {
    part_limits limits = limits_of(r.operation);
    if (limits.fit(r.lba, r.blocks) != r.blocks) return true;
    return carries_data(r.operation) && limits.segments != 0 && r.iov_count > limits.segments;
}

// Memory that is not aligned, or in pieces so small that no part of few segments holds a block.
bool channel_core::must_bounce(const io& r) const noexcept {
    if (!carries_data(r.operation)) return false;
    const properties& p = device.of.props();
    uintptr_t all = 0;
    std::size_t shortest = SIZE_MAX;
    for (uint32_t i = 0; i < r.iov_count; ++i) {
        all |= reinterpret_cast<uintptr_t>(r.iov[i].iov_base) | r.iov[i].iov_len;
        shortest = std::min(shortest, r.iov[i].iov_len);
    }
    if ((all & (p.alignment - 1)) != 0) return true;
    uint32_t segments =
        p.max_segments == 0 ? splitter::part_segments : std::min(p.max_segments, splitter::part_segments);
    if (r.iov_count <= segments || !must_split(r)) return false;
    return segments < 3 ? shortest % p.block_size != 0 : shortest * (segments - 2) < p.block_size;
}

void channel_core::finished(const io& r, time_ns latency) noexcept {
    if (r.status != status::ok) {
        auto index = static_cast<unsigned>(r.status);
        ++errors.errors[index < status_count ? index : static_cast<unsigned>(status::failed)];
    }
    if (of->_watched == 0) return;
    if (latencies && (histogram_op == op::count || histogram_op == r.operation)) {
        latencies->tally(static_cast<uint64_t>(latency));
    }
    if (quiet_waiter && of->_in_flight == 0) {
        unwatch(quiet_wanted);
        quiet_waiter.go(on);
    }
    locks.check_drain();
}

task<> channel_core::quiet() {
    auto one = co_await one_quiet.lock();
    if (of->_in_flight != 0) watch(quiet_wanted);
    co_await quiet_waiter.until([this] { return of->_in_flight == 0; });
}

bool channel_core::abort(io& r) noexcept {
    for (queue<work>* line : {&held, &rate.waiting(), &locks.held(), &parts.waiting()}) {
        if (!take_from(*line, r)) continue;
        if (line == &parts.waiting()) {
            complete_later(r, status::aborted);  // it was begun
        } else {
            refuse(r, status::aborted);
        }
        return true;
    }
    return false;
}

void channel_core::abort_all() noexcept {
    for (queue<work>* line : {&held, &rate.waiting(), &locks.held()}) {
        work* next = line->take_all();
        while (work* w = next) {
            next = w->next;
            refuse(static_cast<io&>(*w), status::aborted);
        }
    }
    of->do_abort_all();
}

channel_stats channel_core::stats() const noexcept {
    channel_stats s = errors;
    s.ops = of->_stats;
    return s;
}

void channel_core::reset_stats(stats_reset what) noexcept {
    channel_stats s = stats();
    reset(s, what);
    of->_stats = s.ops;
    errors.errors = s.errors;
}

}  // namespace varve::bdev
