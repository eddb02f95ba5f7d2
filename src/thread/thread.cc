#include "thread/thread.h"

#include <algorithm>
#include <utility>

#include "thread/buffer_pool.h"
#include "thread/reactor.h"
#include "thread/runtime.h"
#include "util/assert.h"

namespace varve::thread {

constinit thread_local thread* thread::_current = nullptr;

namespace {

struct boxed_function : work {
    explicit boxed_function(std::move_only_function<void()> f) : function(std::move(f)) { run = call; }
    static void call(work& self) noexcept {
        std::unique_ptr<boxed_function> box(static_cast<boxed_function*>(&self));
        box->function();
    }
    std::move_only_function<void()> function;
};

// Runs a chain; whatever is queued again meanwhile is not in it any more.
void run_chain(work* w) noexcept {
    while (w != nullptr) {
        work* next = w->next;
        w->run(*w);
        w = next;
    }
}

}  // namespace

thread::thread(runtime& system, mailbox& mail, uint64_t id, std::string name, time_ns now)
    : _mail(mail),
      _clock(&mail.home.load(std::memory_order_relaxed)->clock()),
      _created(now),
      _control(std::make_unique<control>()),
      _system(system),
      _id(id),
      _name(std::move(name)) {
    _control->arrive.about = _control->leave.about = _control->end.about = this;
    _control->arrive.run = [](work& w) noexcept {
        reactor::current()->adopt(*static_cast<control::message&>(w).about);
    };
    _control->leave.run = [](work& w) noexcept {
        thread& t = *static_cast<control::message&>(w).about;
        t._control->leave_sent.store(false, std::memory_order_seq_cst);
        reactor* to = t._control->wanted.load(std::memory_order_seq_cst);
        t._destination = to == t._reactor ? nullptr : to;
        t._reactor->needs_tidying();
    };
    _control->end.run = [](work& w) noexcept {
        thread& t = *static_cast<control::message&>(w).about;
        t._ending = true;
        if (t._buffers != nullptr) t._buffers->close();
        t._reactor->needs_tidying();
    };
}

thread::~thread() {
    _buffers.reset();
    // Left behind here, each would touch this thread later: its owner should have gone first.
    VARVE_ASSERT(_pollers.empty());
    VARVE_ASSERT(_channels.empty());
    VARVE_ASSERT(_timers.empty());
    // What came when the system had already stopped never runs; only what the thread itself allocated is freed.
    for (work* w = _mail.take(); w != nullptr;) {
        work* next = w->next;
        if (w->run == boxed_function::call) delete static_cast<boxed_function*>(w);
        w = next;
    }
}

thread_stats thread::stats() const noexcept {
    time_ns busy = _busy_time.load(std::memory_order_relaxed);
    return {busy, std::max<time_ns>(_system.world().now() - _created - busy, 0)};
}

void thread::post(work& w) noexcept {
    // Once pushed, the work may run and end this thread: only the mailbox is touched afterwards.
    mailbox& mail = _mail;
    if (mail.push(w)) mail.home.load(std::memory_order_seq_cst)->wake();
}

void thread::post(std::move_only_function<void()> function) { post(*new boxed_function(std::move(function))); }

env::loop& thread::loop() const noexcept {
    VARVE_ASSERT(_reactor != nullptr);
    return _reactor->loop();
}

void thread::pin() noexcept {
    check_here();
    _pins.store(_pins.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

void thread::unpin() noexcept {
    check_here();
    unsigned pins = _pins.load(std::memory_order_relaxed);
    VARVE_ASSERT(pins > 0);
    _pins.store(pins - 1, std::memory_order_relaxed);
    if (pins == 1 && _reactor != nullptr && (_destination != nullptr || _ending)) _reactor->needs_tidying();
}

void thread::check_here() const noexcept {
    VARVE_ASSERT(!_system.running() || (_reactor != nullptr && reactor::current() == _reactor));
}

void thread::check_mine() const noexcept { VARVE_ASSERT(_current == this || !_system.running()); }

void thread::enter() noexcept {
    VARVE_ASSERT(_current == nullptr && _reactor != nullptr && reactor::current() == _reactor);
    _reactor->charge_to(*this);
    _current = this;
}

bool thread::queued() const noexcept { return _mail.waiting() || !_deferred.empty() || !_woken.empty(); }

bool thread::holds_nothing() const noexcept {
    if (_buffers != nullptr && _buffers->buffers_in_use() != 0) return false;
    return !queued() && _pins == 0 && _pollers.empty() && _timers.empty() && _channels.empty();
}

bool thread::run_ready(time_ns now) noexcept {
    _current = this;
    bool found = false;
    if (_mail.waiting()) {
        found = true;
        run_chain(_mail.take());
    }
    if (!_deferred.empty()) {
        found = true;
        run_chain(_deferred.take_all());
    }
    if (now >= _timers.next_deadline()) found |= run_timers(now);
    if (!_busy.empty()) found |= run_busy_pollers();
    if (!_woken.empty()) found |= run_woken_pollers();
    _current = nullptr;
    return found;
}

bool thread::run_timers(time_ns now) noexcept {
    const uint64_t started_before = _timers.next_order();
    unsigned ran = 0;
    _ran_idle = 0;
    while (timer_queue::node* due = _timers.take_due(now, started_before)) {
        ++ran;
        work& what = *static_cast<timer*>(due)->_what;
        what.run(what);
    }
    return ran > _ran_idle;
}

bool thread::run_busy_pollers() noexcept {
    bool found = false;
    _running_busy = true;
    for (std::size_t i = 0, count = _busy.size(); i < count; ++i) {
        if (_busy[i] != nullptr) found |= call(*_busy[i]);
    }
    _running_busy = false;
    if (_busy_has_holes) {
        std::erase(_busy, nullptr);
        _busy_has_holes = false;
    }
    return found;
}

bool thread::run_woken_pollers() noexcept {
    bool found = false;
    const uint32_t round = ++_woken_round;
    while (!_woken.empty() && _woken.front()._woken_in_round != round) found |= call(*_woken.pop_front());
    return found;
}

bool thread::call(poller& p) noexcept {
    _polling = &p;
    ++p._runs;
    bool busy = p._function();
    if (_polling != nullptr) p._busy_runs += busy;  // else it destroyed itself
    _polling = nullptr;
    return busy;
}

poller::poller(std::string name, poller_kind kind, std::move_only_function<bool()> function, time_ns period)
    : _owner(*thread::current()),
      _function(std::move(function)),
      _kind(kind),
      _period(period),
      _timer(*this),
      _id(_owner._next_poller_id++),
      _name(std::move(name)) {
    VARVE_ASSERT(kind != poller_kind::timed || period > 0);
    run = [](work& w) noexcept {
        poller& p = static_cast<poller&>(w);
        thread& owner = p._owner;
        p._timer.start(p._period);
        if (!owner.call(p)) ++owner._ran_idle;
    };
    _owner._pollers.push_back(*this);
    start();
}

poller::~poller() {
    _owner.check_mine();
    if (!_paused) stop();
    if (_owner._polling == this) _owner._polling = nullptr;
}

void poller::start() {
    if (_kind == poller_kind::busy) _owner._busy.push_back(this);
    if (_kind == poller_kind::timed) _timer.start(_period);
}

void poller::stop() noexcept {
    _timer.cancel();
    list<poller, woken_pollers>::remove(*this);
    if (_kind != poller_kind::busy) return;
    auto at = std::ranges::find(_owner._busy, this);
    VARVE_ASSERT(at != _owner._busy.end());
    if (_owner._running_busy) {
        *at = nullptr;
        _owner._busy_has_holes = true;
    } else {
        _owner._busy.erase(at);
    }
}

void poller::pause() noexcept {
    _owner.check_mine();
    if (_paused) return;
    _woken_while_paused = static_cast<list_node<woken_pollers>&>(*this).linked();
    stop();
    _paused = true;
}

void poller::resume() {
    _owner.check_mine();
    if (!_paused) return;
    _paused = false;
    start();
    if (std::exchange(_woken_while_paused, false)) wake();
}

void poller::wake() noexcept {
    _owner.check_here();
    if (_paused) {
        _woken_while_paused = true;
    } else if (!static_cast<list_node<woken_pollers>&>(*this).linked()) {
        _woken_in_round = _owner._woken_round;
        _owner._woken.push_back(*this);
    }
}

void timer::start(time_ns delay) noexcept {
    cancel();
    _owner = thread::current();
    VARVE_ASSERT(_owner != nullptr);
    time_ns now = _owner->now();
    time_ns longest = timer_queue::never - 1 - now;
    _owner->_timers.add(*this, now + std::clamp<time_ns>(delay, 0, longest));
}

void timer::cancel() noexcept {
    if (!queued()) return;
    _owner->check_mine();
    _owner->_timers.remove(*this);
}

}  // namespace varve::thread
