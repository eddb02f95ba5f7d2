// What a coroutine may wait for on a lightweight thread. None of these allocates: the awaiter in the frame is the
// message.
#pragma once

#include <coroutine>

#include "thread/task.h"
#include "thread/thread.h"

namespace varve {

// co_await switch_to(t): the coroutine goes on on thread t (at once when it is there already).
class switch_to : work {
  public:
    explicit switch_to(thread::thread& target) noexcept : _target(target) {}
    bool await_ready() const noexcept { return thread::thread::current() == &_target; }
    void await_suspend(std::coroutine_handle<> waiter) noexcept {
        _waiter = waiter;
        run = [](work& self) noexcept { static_cast<switch_to&>(self)._waiter.resume(); };
        _target.post(*this);
    }
    void await_resume() const noexcept {}

  private:
    thread::thread& _target;
    std::coroutine_handle<> _waiter;
};

// co_await yield(): everything else that is ready on this thread runs first.
class yield : work {
  public:
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> waiter) noexcept {
        _waiter = waiter;
        run = [](work& self) noexcept { static_cast<yield&>(self)._waiter.resume(); };
        thread::thread::current()->defer(*this);
    }
    void await_resume() const noexcept {}

  private:
    std::coroutine_handle<> _waiter;
};

// co_await sleep(5 * milliseconds)
class sleep : work {
  public:
    explicit sleep(time_ns delay) noexcept : _timer(*this), _delay(delay) {}
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> waiter) noexcept {
        _waiter = waiter;
        run = [](work& self) noexcept { static_cast<sleep&>(self)._waiter.resume(); };
        _timer.start(_delay);
    }
    void await_resume() const noexcept {}

  private:
    thread::timer _timer;
    time_ns _delay;
    std::coroutine_handle<> _waiter;
};

namespace detail {
template <class T, class Function>
task<T> run_on(thread::thread& target, Function function) {
    thread::thread& home = *thread::thread::current();
    co_await switch_to(target);
    // The error must not climb on the foreign thread: bring the outcome home first.
    result<T> outcome = co_await as_result(function());
    co_await switch_to(home);
    if constexpr (std::is_void_v<T>) {
        co_await std::move(outcome);
    } else {
        co_return co_await std::move(outcome);
    }
}
}  // namespace detail

// co_await call_on(t, [&] { return f(); }) where f() gives task<T>: runs it on t and comes back here with its outcome.
template <class Function>
auto call_on(thread::thread& target, Function function) {
    using T = typename decltype(function())::value_type;
    return detail::run_on<T>(target, std::move(function));
}

}  // namespace varve
