#include "bdev/core/device_state.h"

#include <map>

#include "bdev/registry.h"
#include "thread/awaits.h"
#include "thread/runtime.h"

namespace varve::bdev {

device_state::device_state(device& d, registry& r)
    : of(d),
      owner(r),
      writers("bdev_" + d.name(), [this] { return std::make_unique<channel_core>(*this, true); }),
      readers("bdev_" + d.name(), [this] { return std::make_unique<channel_core>(*this, false); }),
      _app(r.threads().app_thread()) {}

device_state::~device_state() { VARVE_ASSERT(opens.empty()); }

// Work that nobody waits for. It cannot fail, and when the device is being taken apart it is not needed any more.
void device_state::spawn(task<> t) {
    tasks.spawn(std::move(t), [](const error&) {});
}

// --- channels joining and leaving

void channel_core::retain() {
    if (references++ == 0) self = device.channels(writable).get();
}

void channel_core::release() noexcept {
    VARVE_ASSERT(references > 0);
    if (--references > 0) return;
    VARVE_ASSERT(of->_in_flight == 0 && held.empty() && rate.waiting().empty() && locks.held().empty());
    self.release();
}

void channel_core::join() {
    if (std::exchange(joined, true)) return;
    if (&device.app() == &on) return accept(device.terms());
    retain();  // until the answer is here
    run = &device_state::joined;
    device.app().post(*this);
}

void device_state::joined(work& w) noexcept {
    auto& core = static_cast<channel_core&>(w);
    core.on.post([&core, t = core.device.terms()] {
        core.accept(t);
        core.release();
    });
}

channel_terms device_state::terms() const {
    return {of.num_blocks(), removing, frozen != 0, resets != 0, locks, histogram_wanted, budget.get()};
}

void channel_core::accept(const channel_terms& t) {
    set_num_blocks(t.num_blocks);
    set_histogram(t.histogram);
    for (const range_lock& l : t.locks) locks.add(l);
    if (t.frozen) gate_on(gate_bit::frozen);
    if (t.resetting) gate_on(gate_bit::resetting);
    if (t.budget != nullptr) rate.use(t.budget);
    if (t.removed) removed();
    gate_off(gate_bit::joining);
}

channel_core::~channel_core() {
    channel_stats counted = stats();
    of.reset();
    if (&device.app() == &on) {
        device.left(serial, counted, latencies);
    } else {
        device.app().post([&d = device, s = serial, counted, l = std::move(latencies)] { d.left(s, counted, l); });
    }
}

// --- quiet

task<> device_state::freeze() {
    ++frozen;
    co_await visit([](channel_core& c) { c.gate_on(gate_bit::frozen); });
    co_await look_around([](channel_core& c) { return c.quiet(); });
}

void device_state::thaw() noexcept {
    VARVE_ASSERT(frozen > 0);
    if (--frozen == 0) spawn(visit([](channel_core& c) { c.gate_off(gate_bit::frozen); }));
}

// Layers reset what is below them in device::reset(), so that what they wait for in the last step comes back.
task<> device_state::reset() {
    auto one = co_await one_reset.lock();
    ++resets;
    co_await visit([](channel_core& c) {
        c.gate_on(gate_bit::resetting);
        c.abort_all();
    });
    result<> outcome = co_await as_result(of.reset());
    co_await look_around([](channel_core& c) { return c.quiet(); });
    --resets;
    co_await visit([](channel_core& c) { c.gate_off(gate_bit::resetting); });
    co_await std::move(outcome);
}

task<> device_state::answer_reset(io& r, channel_core& from) {
    result<> outcome = co_await as_result(reset());
    co_await switch_to(from.on);
    from.begin(r);
    complete_later(r, outcome ? status::ok : status::failed);
    co_await switch_to(_app);
}

void device_state::reset_requested(io& r, channel_core& from) noexcept {
    _app.post([this, &r, &from] {
        if (!removing) return spawn(answer_reset(r, from));
        from.on.post([&r, &from] { from.refuse(r, status::no_device); });
    });
}

// --- locked ranges

task<uint64_t> device_state::lock(block_range range) {
    auto taken = [&] {
        for (const range_lock& l : locks) {
            if (l.range.overlaps(range)) return true;
        }
        return false;
    };
    while (taken()) co_await lock_freed.wait();
    range_lock mine{++last_lock, range};
    locks.push_back(mine);
    co_await visit([mine](channel_core& c) { c.locks.add(mine); });
    co_await look_around([](channel_core& c) { return c.locks.drain(); });
    co_return mine.id;
}

void device_state::unlock(uint64_t id) noexcept {
    std::erase_if(locks, [&](const range_lock& l) { return l.id == id; });
    lock_freed.pulse();
    spawn(visit([id](channel_core& c) { c.locks.remove(id); }));
}

void device_state::unlock_later(uint64_t id) noexcept {
    _app.post([this, id] { unlock(id); });
}

// --- what is counted

void device_state::counts::add(const channel_stats& s, const std::optional<metrics::histogram>& l) {
    stats.add(s);
    if (latencies && l && latencies->counts().size() == l->counts().size()) latencies->merge(*l);
}

void device_state::left(uint64_t serial, const channel_stats& counted,
                        const std::optional<metrics::histogram>& latencies) {
    past.add(counted, latencies);
    if (one_gathering.locked()) left_meanwhile.push_back(serial);
}

namespace {
// Everything posted to this thread before comes first.
struct after_the_mail : work {
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> who) noexcept {
        waiter = who;
        run = [](work& w) noexcept { static_cast<after_the_mail&>(w).waiter.resume(); };
        thread::thread::current()->post(*this);
    }
    void await_resume() const noexcept {}
    std::coroutine_handle<> waiter;
};
}  // namespace

// A channel that goes meanwhile counts once: with what it leaves, not with what it showed before.
task<device_state::counts> device_state::gather() {
    auto one = co_await one_gathering.lock();
    left_meanwhile.clear();
    std::map<uint64_t, std::pair<channel_stats, std::optional<metrics::histogram>>> seen;
    co_await look_around([&seen](channel_core& c) { seen.try_emplace(c.serial, c.stats(), c.latencies); });
    co_await after_the_mail();
    counts sum = past;
    for (uint64_t serial : left_meanwhile) seen.erase(serial);
    for (const auto& [serial, counted] : seen) sum.add(counted.first, counted.second);
    co_return sum;
}

task<channel_stats> device_state::stats() { co_return (co_await gather()).stats; }

task<> device_state::reset_stats(stats_reset what) {
    bdev::reset(past.stats, what);
    co_await visit([what](channel_core& c) { c.reset_stats(what); });
}

namespace {
std::optional<metrics::histogram> make(const std::optional<histogram_options>& wanted) {
    if (!wanted) return std::nullopt;
    return metrics::histogram(wanted->granularity, static_cast<uint64_t>(wanted->min),
                              static_cast<uint64_t>(wanted->max));
}
}  // namespace

void channel_core::set_histogram(const std::optional<histogram_options>& wanted) {
    latencies = make(wanted);
    if (wanted) {
        histogram_op = wanted->only;
        watch(histogram_on);
    } else {
        unwatch(histogram_on);
    }
}

task<> device_state::set_histogram(std::optional<histogram_options> wanted) {
    histogram_wanted = wanted;
    past.latencies = make(wanted);
    co_await visit([wanted](channel_core& c) { c.set_histogram(wanted); });
}

task<std::optional<metrics::histogram>> device_state::histogram() { co_return (co_await gather()).latencies; }

task<> device_state::set_limits(const rate_limits& wanted) {
    if (wanted == limits) co_return;
    limits = wanted;
    std::unique_ptr<rate_budget> old = std::exchange(budget, nullptr);
    if (wanted.any()) budget = std::make_unique<rate_budget>(wanted, _app.now());
    co_await visit([now = budget.get()](channel_core& c) { c.rate.use(now); });
}

queue_depth_sampling::queue_depth_sampling(device_state& s, time_ns every)
    : period(every), last(s.app().now()), timer(due) {
    due.of = &s;
    due.run = [](work& w) noexcept { static_cast<tick&>(w).of->sample_queue_depth(); };
    timer.start(period);
}

void device_state::sample_queue_depth() { spawn(take_sample()); }

task<> device_state::take_sample() {
    uint64_t depth = 0;
    co_await look_around([&depth](channel_core& c) { depth += c.of->in_flight(); });
    if (sampling == nullptr) co_return;
    time_ns passed = _app.now() - std::exchange(sampling->last, _app.now());
    sampling->depth = depth;
    if (depth != 0) sampling->io_time += passed;
    sampling->weighted_io_time += passed * static_cast<time_ns>(depth);
    sampling->timer.start(sampling->period);
}

}  // namespace varve::bdev
