// The cold part of a channel. For the files of this folder only.
//
// Life: a thread::io_device opens it on the first thread's demand, with the gate closed (joining). The app thread hears
// of it and sends back what holds for the device just now (device_state::admit), which opens the gate; whatever changes
// later comes through for_each_channel. When the last reference has gone the io_device destroys it, and what it counted
// goes to the app thread.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "bdev/channel.h"
#include "bdev/core/emulate.h"
#include "bdev/core/limiter.h"
#include "bdev/core/range_lock.h"
#include "bdev/core/resumption.h"
#include "bdev/core/split.h"
#include "metrics/histogram.h"
#include "thread/io_device.h"
#include "util/list.h"

namespace varve::bdev {

struct device_state;
struct properties;

// What holds for a device at the moment a channel joins.
struct channel_terms {
    uint64_t num_blocks = 0;
    bool removed = false, frozen = false, resetting = false;
    std::vector<range_lock> locks;
    std::optional<histogram_options> histogram;
    rate_budget* budget = nullptr;
};

struct channel_core : work {
    channel_core(device_state& s, bool may_write);
    ~channel_core();
    void retain();
    void release() noexcept;
    // Tells the app thread that it is there; the first time.
    void join();
    void accept(const channel_terms& t);

    // --- on the channel's thread
    enum watched : uint32_t { histogram_on = 1, quiet_wanted = 2, drain_wanted = 4 };
    void watch(watched w) noexcept { of->_watched |= w; }
    void unwatch(watched w) noexcept { of->_watched &= ~w; }
    void gate_on(gate_bit b) noexcept {
        of->_gate |= static_cast<uint32_t>(b);
        update_common();
    }
    // Lets what waited go on, when that was the last bit that held it.
    void gate_off(gate_bit b) noexcept;
    bool gated(gate_bit b) const noexcept { return (of->_gate & static_cast<uint32_t>(b)) != 0; }
    // Requests wait, or are refused.
    bool is_closed() const noexcept { return (of->_gate & holding) != 0 || gated(gate_bit::removed); }
    void set_num_blocks(uint64_t n) noexcept { of->_num_blocks = n; }
    void removed() noexcept;

    // A request at the gate: the way it takes when submit() finds it uncommon.
    void resubmit(io& r) noexcept;
    void past_limiter(io& r) noexcept;
    void resubmit_all(queue<work>& line) noexcept;
    void refuse(io& r, status why) noexcept;
    // Counts a request whose work is done by parts of it.
    void begin(io& r) noexcept;
    void start(io& r) noexcept {
        begin(r);
        of->do_submit(r);
    }
    void hand_down(io& part) noexcept { of->do_submit(part); }
    void finish(io& r) noexcept { channel::finished(r, of.get()); }
    void finished(const io& r, time_ns latency) noexcept;
    bool abort(io& r) noexcept;
    void abort_all() noexcept;

    // No request is in the device. Close the gate first.
    task<> quiet();

    bool offers(op o) const noexcept { return (native & op_bit(o)) != 0; }
    part_limits limits_of(op o) const noexcept;
    uint32_t block_size() const noexcept;
    uint32_t metadata_size() const noexcept;
    channel_stats stats() const noexcept;
    void reset_stats(stats_reset what) noexcept;
    void set_histogram(const std::optional<histogram_options>& wanted);

    static constexpr uint32_t holding = static_cast<uint32_t>(gate_bit::joining) |
                                        static_cast<uint32_t>(gate_bit::frozen) |
                                        static_cast<uint32_t>(gate_bit::resetting);

    device_state& device;
    thread::thread& on;
    const uint64_t serial;
    const bool writable;
    op_set native = 0;  // what the module does
    unsigned references = 0;
    thread::channel_ref<channel_core> self;  // while there are references
    bool joined = false;
    std::unique_ptr<channel> of;
    queue<work> held;
    channel_stats errors;  // the errors of stats()
    resumption quiet_waiter;
    mutex one_quiet;
    std::optional<metrics::histogram> latencies;
    op histogram_op = op::count;  // count: every operation
    limiter rate;
    locked_ranges locks;
    splitter parts;
    emulator emulation;

  private:
    void update_common() noexcept;
    status validate(const io& r) const noexcept;
    void carry_out(io& r) noexcept;
    bool must_bounce(const io& r) const noexcept;
    bool must_split(const io& r) const noexcept;
};

}  // namespace varve::bdev
