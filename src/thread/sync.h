// What coroutines of one thread wait for each other with. First come, first served. A waiter is resumed through
// thread::defer, never from inside the call that let it go on, so nothing recurses and callers keep their invariants.
// None of them allocates: the awaiter in the frame is the queue's element.
//
//   co_await ready.wait();                    event: ready.set() lets everybody pass until ready.reset(),
//                                             ready.pulse() those who wait just now
//   auto held = co_await lock.lock();         mutex: released by the holder's destructor, to the one waiting longest
//   auto taken = co_await slots.acquire(2);   semaphore: given back by the destructor
#pragma once

#include <coroutine>
#include <cstddef>
#include <utility>

#include "thread/thread.h"
#include "util/assert.h"
#include "util/list.h"

namespace varve {

namespace detail {

// A coroutine in a queue of waiters.
struct waiter : work {
    thread::thread* home = nullptr;
    std::coroutine_handle<> coroutine;

    void wait_in(queue<work>& line, std::coroutine_handle<> who) noexcept {
        home = thread::thread::current();
        VARVE_ASSERT(home != nullptr);
        coroutine = who;
        run = [](work& self) noexcept { static_cast<waiter&>(self).coroutine.resume(); };
        line.push(*this);
    }
    void go_on() noexcept { home->defer(*this); }
};

}  // namespace detail

// Set or not; stays as it is until changed by hand.
class event {
  public:
    event() noexcept = default;
    event(const event&) = delete;
    ~event() { VARVE_ASSERT(_waiting.empty()); }

    bool is_set() const noexcept { return _set; }
    void set() noexcept {
        _set = true;
        while (work* w = _waiting.pop()) static_cast<detail::waiter*>(w)->go_on();
    }
    void reset() noexcept { _set = false; }
    // Whoever waits now goes on; who comes later waits.
    void pulse() noexcept {
        set();
        reset();
    }

    class awaiter : detail::waiter {
      public:
        explicit awaiter(event& of) noexcept : _of(of) {}
        bool await_ready() const noexcept { return _of._set; }
        void await_suspend(std::coroutine_handle<> who) noexcept { wait_in(_of._waiting, who); }
        // It was set since the call; it may have been reset again.
        void await_resume() const noexcept {}

      private:
        event& _of;
    };
    [[nodiscard]] awaiter wait() noexcept { return awaiter(*this); }

  private:
    bool _set = false;
    queue<work> _waiting;
};

class semaphore {
  public:
    // What was taken; the destructor gives it back.
    class units {
      public:
        units() noexcept = default;
        units(units&& other) noexcept : _of(std::exchange(other._of, nullptr)), _count(other._count) {}
        units& operator=(units&& other) noexcept {
            std::swap(_of, other._of);
            std::swap(_count, other._count);
            return *this;
        }
        ~units() { release(); }
        void release() noexcept {
            if (semaphore* of = std::exchange(_of, nullptr)) of->put(_count);
        }
        explicit operator bool() const noexcept { return _of != nullptr; }

      private:
        friend class semaphore;
        units(semaphore& of, std::size_t count) noexcept : _of(&of), _count(count) {}
        semaphore* _of = nullptr;
        std::size_t _count = 0;
    };

    explicit semaphore(std::size_t count) noexcept : _free(count), _total(count) {}
    semaphore(const semaphore&) = delete;
    ~semaphore() { VARVE_ASSERT(_free == _total && _waiting.empty()); }

    std::size_t available() const noexcept { return _free; }

    class awaiter : detail::waiter {
      public:
        awaiter(semaphore& of, std::size_t count) noexcept : _of(of), _count(count) {}
        bool await_ready() noexcept { return _of.take(_count); }
        void await_suspend(std::coroutine_handle<> who) noexcept { wait_in(_of._waiting, who); }
        units await_resume() const noexcept { return units(_of, _count); }

      private:
        friend class semaphore;
        semaphore& _of;
        std::size_t _count;
    };
    // More than there will ever be is a programmer error. Whoever asks for many is not overtaken by those who ask for
    // few.
    [[nodiscard]] awaiter acquire(std::size_t count = 1) noexcept {
        VARVE_ASSERT(count <= _total);
        return awaiter(*this, count);
    }
    // Empty when it would have to wait.
    [[nodiscard]] units try_acquire(std::size_t count = 1) noexcept {
        return take(count) ? units(*this, count) : units();
    }

  private:
    bool take(std::size_t count) noexcept {
        if (!_waiting.empty() || count > _free) return false;
        _free -= count;
        return true;
    }
    void put(std::size_t count) noexcept {
        _free += count;
        while (work* first = _waiting.front()) {
            auto& next = static_cast<awaiter&>(*first);
            if (next._count > _free) break;
            _free -= next._count;
            _waiting.pop();
            next.go_on();
        }
    }

    std::size_t _free;
    const std::size_t _total;
    queue<work> _waiting;
};

class mutex {
  public:
    using holder = semaphore::units;

    bool locked() const noexcept { return _one.available() == 0; }
    [[nodiscard]] semaphore::awaiter lock() noexcept { return _one.acquire(); }
    // Empty when somebody holds it.
    [[nodiscard]] holder try_lock() noexcept { return _one.try_acquire(); }

  private:
    semaphore _one{1};
};

}  // namespace varve
