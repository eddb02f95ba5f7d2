// The core's part of a registered device. For the files of this folder only. App thread, except where noted.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "bdev/core/channel_core.h"
#include "bdev/core/resumption.h"
#include "bdev/descriptor.h"
#include "bdev/device.h"
#include "thread/gate.h"
#include "thread/io_device.h"
#include "util/list.h"

namespace varve::bdev {

class registry;

struct open_record : list_node<> {
    device_state* of = nullptr;
    open_mode mode = open_mode::read_only;
    event_handler on_event;
    bdev::claim_type claim = bdev::claim_type::none;
    std::array<uint64_t, 2> told{};  // of each device_event, the last one this one was told of
    bool in_handler = false;         // on_event runs
    bool closed = false;             // ... and closed the descriptor: delete this afterwards
};

struct queue_depth_sampling {
    explicit queue_depth_sampling(device_state& s, time_ns every);
    time_ns period;
    uint64_t depth = 0;
    time_ns io_time = 0, weighted_io_time = 0;
    time_ns last;
    struct tick : work {
        device_state* of = nullptr;
    } due;
    thread::timer timer;
};

// Changes in a device's life, while its threads look at it. Any thread.
inline bool is_read_only(const device& d) noexcept {
    // An atomic_ref of something const is not to be had before C++26.
    return std::atomic_ref(const_cast<bool&>(d.props().read_only)).load(std::memory_order_relaxed);  // NOLINT
}

struct device_state {
    explicit device_state(device& d, registry& r);
    ~device_state();
    static device_state& of_device(device& d) noexcept { return *d._state; }
    static const device_state& of_device(const device& d) noexcept { return *d._state; }
    thread::thread& app() const noexcept { return _app; }  // any thread

    // --- descriptors and claims
    // Calls the handlers that were not told of the event yet, in the order of opening.
    void tell(device_event e);
    void closed(open_record& record) noexcept;

    // --- channels
    thread::io_device<channel_core>& channels(bool writable) noexcept { return writable ? writers : readers; }  // any
    // f(channel_core&) on every channel, on its thread; gives void or task<>. Visits that change something use `visit`:
    // one after another, so that every channel sees the changes in the same order. The others may take their time.
    template <class Function>
    task<> visit(Function f) {
        auto one = co_await one_visit.lock();
        co_await look_around(f);
    }
    template <class Function>
    task<> look_around(Function f) {
        co_await writers.for_each_channel(f);
        co_await readers.for_each_channel(f);
    }
    static void joined(work& core) noexcept;  // a channel asks for its terms
    channel_terms terms() const;
    void left(uint64_t serial, const channel_stats& counted, const std::optional<metrics::histogram>& latencies);

    // --- quiet
    // Returns when no request is in the device; thaw as often as frozen.
    task<> freeze();
    void thaw() noexcept;
    task<> reset();
    // On the channel's thread: a request for a reset, completed when that is over.
    void reset_requested(io& r, channel_core& from) noexcept;

    // --- locked ranges; lock gives the lock's number
    task<uint64_t> lock(block_range range);
    void unlock(uint64_t id) noexcept;
    void unlock_later(uint64_t id) noexcept;  // any thread

    // --- what is counted, by channels that are there and that were
    struct counts {
        channel_stats stats;
        std::optional<metrics::histogram> latencies;
        void add(const channel_stats& s, const std::optional<metrics::histogram>& l);
    };
    task<counts> gather();
    task<channel_stats> stats();
    task<> reset_stats(stats_reset what);
    task<> set_histogram(std::optional<histogram_options> wanted);
    task<std::optional<metrics::histogram>> histogram();
    task<> set_limits(const rate_limits& wanted);
    void sample_queue_depth();

    device& of;
    registry& owner;
    list<open_record> opens;
    std::array<uint64_t, 2> events{};  // of each device_event, how many there were
    resumption all_closed;             // waits for opens to be empty

    bdev::claim_type claim = bdev::claim_type::none;
    std::string claimed_by;
    uint64_t claim_key = 0;
    unsigned claims = 0;  // holders of a shared claim

    gate tasks;  // examinations, resets, whatever works on the device; closed when it is removed
    bool removing = false;
    gate last_requests;  // those who have something to write before it goes

    unsigned frozen = 0, resets = 0;  // how often
    mutex one_reset, one_visit, one_gathering;
    std::vector<range_lock> locks;  // stand, or are being granted
    uint64_t last_lock = 0;
    event lock_freed;

    std::optional<histogram_options> histogram_wanted;
    counts past;                           // of channels that are gone
    std::vector<uint64_t> left_meanwhile;  // channels that went during the present gathering
    std::atomic<uint64_t> serials = 0;     // of channels; any thread
    rate_limits limits;
    std::unique_ptr<rate_budget> budget;
    std::unique_ptr<queue_depth_sampling> sampling;

    thread::io_device<channel_core> writers, readers;

  private:
    task<> answer_reset(io& r, channel_core& from);
    task<> take_sample();
    void spawn(task<> t);
    thread::thread& _app;
};

}  // namespace varve::bdev
