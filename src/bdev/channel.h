// A device on one thread. submit() is the way in for everybody: users of the device and layers above alike.
#pragma once

#include <array>
#include <cstdint>

#include "bdev/io.h"
#include "bdev/stats.h"
#include "thread/thread.h"

namespace varve::bdev {

class device;
struct channel_core;

// Completes a request in the next batch of its thread, so that a device that is done at once does not recurse.
inline void complete_later(io& r, status outcome) noexcept {
    r.status = outcome;
    r.run = [](work& w) noexcept { complete(static_cast<io&>(w)); };
    thread::thread::current()->defer(r);
}

// Why a channel does not let requests through just now; a bit each, several may hold.
enum class gate_bit : uint32_t {
    joining = 1,    // the app thread has not heard of this channel yet: requests wait
    frozen = 2,     // someone asked for quiet: requests wait
    resetting = 4,  // requests wait until the reset is over
    removed = 8,    // the device has gone: requests fail with no_device
    limited = 16,   // rate limit: requests pass through the limiter
    locked = 32,    // some range is locked: requests are checked against it
    checked = 64,   // always set for devices that want aligned memory or few segments: each request is looked at
};

class channel {
  public:
    channel() noexcept = default;
    channel(const channel&) = delete;
    virtual ~channel() = default;

    // Takes the request; it completes later, exactly once, on this thread, by running the frame its issuer pushed (one
    // and only one). Requests of one channel are not ordered among themselves. What may have changed when it completes:
    // status, lba, iov. Not virtual: inlined into the caller.
    void submit(io& r) noexcept {
        if (r.depth <= 1) r.submitted = _thread->now();
        // Everything uncommon goes another way: a closed gate, operations the device does not do itself, ranges that
        // leave the window they begin in, or go beyond the end. No blocks at all are 2^32 - 1 after the first, more
        // than any window has.
        const uint64_t after_first = r.blocks - 1;
        if ((_common >> static_cast<unsigned>(r.operation) & 1) != 0 &&
            after_first <= (~static_cast<uint32_t>(r.lba) & _window) && r.lba + after_first < _num_blocks) [[likely]] {
            return start(r);
        }
        submit_uncommon(r);
    }

    // Completes a request submitted here with `aborted`, if it can be had: it waits at the gate, or the device can
    // recall it. False: it will complete by itself.
    bool abort(io& r) noexcept;

    uint32_t in_flight() const noexcept { return _in_flight; }
    const op_stats& stats(op o) const noexcept { return _stats[static_cast<unsigned>(o)]; }
    device& owner() const noexcept { return *_device; }

  protected:
    // The module's part: takes the request, which will be completed with complete()/complete_later(), or hands it to
    // the channel below with submit(). Never fails synchronously. What the device does not offer does not come here.
    virtual void do_submit(io& r) noexcept = 0;
    // Recalls a request given to do_submit before: it completes with `aborted`, later. False: it cannot be had.
    virtual bool do_abort(io& /*r*/) noexcept { return false; }
    // The device is being reset: recalls whatever it can.
    virtual void do_abort_all() noexcept {}

    thread::thread& on_thread() const noexcept { return *_thread; }

  private:
    friend struct channel_core;  // opens it and turns the gate

    void start(io& r) noexcept {
        ++_in_flight;
        r.push(finished, this);
        do_submit(r);
    }
    static void finished(io& r, void* self) noexcept {
        auto& me = *static_cast<channel*>(self);
        --me._in_flight;
        time_ns latency = me._thread->now() - r.submitted;
        me._stats[static_cast<unsigned>(r.operation)].count(r.blocks, latency);
        if ((static_cast<uint32_t>(r.status) | me._watched) != 0) [[unlikely]]  // ok is 0
            return me.finished_uncommon(r, latency);
        complete(r);
    }
    void submit_uncommon(io& r) noexcept;  // channel.cc
    // Errors, histogram, someone waiting for quiet; then completes.
    void finished_uncommon(io& r, time_ns latency) noexcept;

    // --- what submit and finished read, in one cache line with the head of the object
    op_set _common = 0;  // operations that need no thought; none while the gate is not 0
    uint32_t _gate = 0;  // gate_bit
    uint64_t _num_blocks = 0;
    // Blocks come in windows of a power of two, and a request inside one needs no splitting: the last block of each, as
    // a mask. A window is the device's boundary or what it takes at once, at most half of what io::blocks can say.
    uint32_t _window = 0;
    uint32_t _in_flight = 0;
    thread::thread* _thread = nullptr;
    uint32_t _watched = 0;  // channel_core::watch
    device* _device = nullptr;
    channel_core* _core = nullptr;
    std::array<op_stats, op_count> _stats;
};

}  // namespace varve::bdev
