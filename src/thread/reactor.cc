#include "thread/reactor.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "thread/runtime.h"
#include "util/assert.h"

namespace varve::thread {

constinit thread_local reactor* reactor::_current = nullptr;

namespace {

// While something must be polled, virtual time goes on in steps of this.
constexpr time_ns polling_step = microseconds;

void add(std::atomic<time_ns>& sum, time_ns amount) noexcept {  // one writer
    sum.store(sum.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
}

}  // namespace

bool turn_once(reactor& r) noexcept { return r.run_turn(); }

// One symbol around every instruction that the data path spends, for measuring tools to switch on and off at.
extern "C" [[gnu::noinline]] bool varve_reactor_turn(reactor* r) noexcept { return turn_once(*r); }

reactor::reactor(runtime& system, env::system& world, std::unique_ptr<env::loop> loop, unsigned cpu, options how)
    : _world(world), _loop(std::move(loop)), _system(system), _how(how), _cpu(cpu) {
    _created = _now = _stamp = world.now();
}

reactor::~reactor() = default;

bool reactor::turn() noexcept { return varve_reactor_turn(this); }

bool reactor::run_turn() noexcept {
    const time_ns now = _world.now();
    settle(now);
    _now = now;
    _current = this;
    if (_quiet_seen && !_system.leave_quiet(*this)) [[unlikely]] {
        _current = nullptr;
        return _finished;
    }
    bool found = _mail.waiting() && take_mail();
    const bool alone = _threads.size() == 1;
    for (thread* t : _threads) {
        if (!t->turn(now)) continue;
        found = true;
        _charged = t;
        if (!alone) settle(_world.now());
    }
    found |= _loop->poll();
    if (_untidy) [[unlikely]]
        tidy();
    if (_system.stopping()) [[unlikely]]
        found |= wind_down();
    _current = nullptr;
    return found;
}

bool reactor::take_mail() noexcept {
    for (work* w = _mail.take(); w != nullptr;) {
        work* next = w->next;
        w->run(*w);
        w = next;
    }
    return true;
}

void reactor::adopt(thread& t) noexcept {
    t._reactor = this;
    t._clock = &_now;
    _threads.push_back(&t);
    _untidy = true;  // it may have been told to end or to move on while it was on its way
}

void reactor::settle(time_ns now) noexcept {
    if (_charged != nullptr) {
        add(_charged->_busy_time, now - _stamp);
        add(_busy_time, now - _stamp);
        _charged = nullptr;
    }
    _stamp = now;
}

void reactor::charge_to(thread& t) noexcept {
    if (_in_wait || (_charged != nullptr && _charged != &t)) {
        time_ns now = _world.now();
        settle(now);
        if (std::exchange(_in_wait, false)) _now = now;
    }
    _charged = &t;
}

void reactor::tidy() noexcept {
    _untidy = false;
    for (std::size_t i = 0; i < _threads.size();) {
        thread& t = *_threads[i];
        const bool moves = t._destination != nullptr && t._pins == 0;
        if (!moves && !t._ending) {
            ++i;
            continue;
        }
        if (_charged == &t) settle(_world.now());
        if (t._ending && t.holds_nothing() && _system.end(t)) {
            _threads.erase(_threads.begin() + static_cast<std::ptrdiff_t>(i));
        } else if (moves) {
            _threads.erase(_threads.begin() + static_cast<std::ptrdiff_t>(i));
            reactor& to = *std::exchange(t._destination, nullptr);
            t._reactor = nullptr;
            _system.moved(*this, to);
            t._mail.home.store(&to, std::memory_order_seq_cst);
            to.post(t._control->arrive);  // from here on it is the other's
        } else {
            _untidy = true;  // looked at again after each turn until it lets go
            ++i;
        }
    }
}

time_ns reactor::next_deadline() const noexcept {
    time_ns next = timer_queue::never;
    for (const thread* t : _threads) {
        if (t->queued()) return _now;
        next = std::min(next, t->_busy.empty() ? t->_timers.next_deadline() : _now + polling_step);
    }
    if (_stopping_since != 0 && !_finished && !_quiet_seen) next = std::min(next, _stopping_since + runtime::linger);
    return next;
}

bool reactor::must_poll() const noexcept {
    return std::ranges::any_of(_threads, [](const thread* t) { return !t->_busy.empty(); });
}

void reactor::run() noexcept {
    bool slept_well = false;
    unsigned quiet_turns = 0;
    _last_found = _world.now();
    while (!_finished) {
        bool found = varve_reactor_turn(this);
        if (found | slept_well) _last_found = _now;
        slept_well = false;
        if (found) {
            quiet_turns = 0;
        } else if (_quiet_seen) {
            if (++quiet_turns < 64) {
                std::this_thread::yield();  // what comes for a quiet reactor mostly comes soon
            } else {
                _system.wait_for_others();
            }
        } else if (!_how.busy_poll && !must_poll()) {
            if (_now - _last_found < _how.spin) {
                __builtin_ia32_pause();
            } else {
                slept_well = sleep();
            }
        }
    }
}

bool reactor::sleep() noexcept {
    _sleeping.store(true, std::memory_order_seq_cst);
    bool awaited = _mail.waiting_before_sleep() || (_stopping_since == 0 && _system.stopping_before_sleep());
    for (const thread* t : _threads) awaited |= t->_mail.waiting_before_sleep() || t->queued();
    bool found = false;
    if (!awaited) {
        _current = this;
        _in_wait = true;
        found = _loop->wait(next_deadline());
        _in_wait = false;
        _current = nullptr;
    }
    _sleeping.store(false, std::memory_order_relaxed);
    return found;
}

bool reactor::has_mail() const noexcept {
    return _mail.waiting() || std::ranges::any_of(_threads, [](const thread* t) { return t->_mail.waiting(); });
}

// A stopping system ends when no reactor has anything queued and nothing is on its way between them. Whoever has
// nothing to do says so (goes quiet), and from then on runs no code of anybody until it has taken that back; so when
// all are quiet and all inboxes are empty, they stay empty. The runtime looks, under its lock.
bool reactor::wind_down() noexcept {
    if (_stopping_since == 0) _stopping_since = std::max<time_ns>(_now, 1);
    for (const thread* t : _threads) {
        if (t->_mail.waiting() || !t->_deferred.empty()) return false;
    }
    if (_mail.waiting()) return false;
    if (_loop->in_flight() != 0 && _now - _stopping_since < runtime::linger) return false;
    _quiet_seen = true;
    if (_system.go_quiet(*this)) _finished = true;
    return true;
}

}  // namespace varve::thread
