// Ranges of a device in which one channel writes alone for a moment: for compare-and-write that the device does not do
// itself. The app thread grants them (device_state::lock); every channel then holds writes to the range back.
//
// Before a lock is granted, the writes that were under way when the channel heard of it must have ended. Channels do
// not list their requests, so they count them by epoch: while any lock stands, requests that start belong to the
// current epoch (1 or 2), and a drain moves on to the other one, which is empty, and waits until all requests under way
// belong to it. Requests that start while no lock stands are in no epoch and cost nothing.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "bdev/core/resumption.h"
#include "bdev/io.h"
#include "thread/sync.h"
#include "thread/task.h"
#include "util/list.h"

namespace varve::bdev {

struct channel_core;

struct block_range {
    uint64_t first = 0, last = 0;  // inclusive
    bool overlaps(const block_range& other) const noexcept { return first <= other.last && other.first <= last; }
};

struct range_lock {
    uint64_t id = 0;
    block_range range;
};

// A channel's side.
class locked_ranges {
  public:
    explicit locked_ranges(channel_core& core) noexcept : _core(core) {}

    void add(const range_lock& l);
    void remove(uint64_t id) noexcept;
    // Waits until no request is under way that was started before the call.
    task<> drain();
    void check_drain() noexcept;  // a request has ended
    // Holds the request back if it writes where somebody is alone. False: nothing is in its way.
    bool hold(io& r) noexcept;
    // The frame of a request that is started while a lock stands, instead of the channel's own.
    frame epoch_frame() noexcept;
    queue<work>& held() noexcept { return _held; }

  private:
    template <unsigned Epoch>
    static void finished(io& r, void* core) noexcept;
    bool drained() const noexcept;

    channel_core& _core;
    std::vector<range_lock> _locks;
    queue<work> _held;
    unsigned _epoch = 1;
    std::array<uint32_t, 3> _count{};  // under way, by epoch; [0] is not used
    mutex _one_drain;
    resumption _drainer;
};

}  // namespace varve::bdev
