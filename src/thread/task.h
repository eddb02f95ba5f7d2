// task<T>: a lazily started coroutine that yields a T or an error.
//
//   co_await f()             waits; an error of f becomes mine and I am left where I stand (never resumed)
//   co_await as_result(f())  waits and gives result<T>: I handle the error
//   co_await some_result     the same rules for a plain result<T>; co_await fail(...) leaves with that error
//   co_return fail(...)      in a task<T> with a value; a task<> says co_await fail(...)
//
// An error that passes frames leaves them suspended; the frame that handles it destroys them, innermost first, when its
// task temporaries end. Destructors are the rollback, so they must not wait, fail or do I/O.
// A task must not be destroyed while it waits for something outside (I/O, a timer): count it in a gate and let it end.
// Threads: a task runs on whichever thread resumes it; see thread.h for co_await switch_to(thread).
// Frames come from per-OS-thread free lists (frame_pool.h).
#pragma once

#include <coroutine>
#include <cstddef>
#include <exception>
#include <optional>
#include <utility>

#include "thread/frame_pool.h"
#include "util/assert.h"
#include "util/result.h"

namespace varve {

template <class T = void>
class task;

namespace detail {

class promise_base {
  public:
    static void* operator new(std::size_t size) { return thread::allocate_frame(size); }
    static void operator delete(void* frame, std::size_t size) noexcept { thread::free_frame(frame, size); }

    std::suspend_always initial_suspend() noexcept { return {}; }
    [[noreturn]] void unhandled_exception() noexcept { std::terminate(); }

    struct finisher {
        bool await_ready() noexcept { return false; }
        template <class Promise>
        std::coroutine_handle<> await_suspend(std::coroutine_handle<Promise> self) noexcept {
            return self.promise().whom_to_resume();
        }
        void await_resume() noexcept {}
    };
    finisher final_suspend() noexcept { return {}; }

    // The frame to resume now that this one has ended or failed: an error climbs past every frame that does not handle
    // it.
    std::coroutine_handle<> whom_to_resume() noexcept {
        promise_base* at = this;
        while (at->failure && at->propagates_to != nullptr) {
            at->propagates_to->failure = std::move(at->failure);
            at = at->propagates_to;
        }
        return at->continuation;
    }

    std::coroutine_handle<> continuation = std::noop_coroutine();
    promise_base* propagates_to = nullptr;  // null: the continuation handles errors itself
    std::optional<error> failure;

    // co_await of a result leaves the frame with its error.
    template <class T>
    struct result_awaiter {
        result<T> value;
        bool await_ready() const noexcept { return value.has_value(); }
        template <class Promise>
        std::coroutine_handle<> await_suspend(std::coroutine_handle<Promise> self) noexcept {
            promise_base& mine = self.promise();
            mine.failure = std::move(value).error();
            return mine.whom_to_resume();
        }
        T await_resume() {
            if constexpr (!std::is_void_v<T>) return std::move(*value);
        }
    };
    template <class T>
    result_awaiter<T> await_transform(result<T> value) {
        return {std::move(value)};
    }
    result_awaiter<void> await_transform(std::unexpected<error> failed) { return {result<void>(std::move(failed))}; }
    template <class Awaitable>
    Awaitable&& await_transform(Awaitable&& awaitable) noexcept {
        return std::forward<Awaitable>(awaitable);
    }
};

template <class T>
class task_promise final : public promise_base {
  public:
    task<T> get_return_object() noexcept;
    template <class U>
        requires std::constructible_from<T, U>
    void return_value(U&& value) {
        _value.emplace(std::forward<U>(value));
    }
    void return_value(T value) { _value.emplace(std::move(value)); }
    void return_value(std::unexpected<error> failed) { failure = std::move(failed).error(); }
    void return_value(result<T> outcome) {
        if (outcome) {
            _value.emplace(std::move(*outcome));
        } else {
            failure = std::move(outcome).error();
        }
    }
    T take_value() { return std::move(*_value); }
    result<T> take_result() {
        if (failure) return std::unexpected(std::move(*failure));
        return std::move(*_value);
    }

  private:
    std::optional<T> _value;
};

template <>
class task_promise<void> final : public promise_base {
  public:
    task<void> get_return_object() noexcept;
    void return_void() noexcept {}
    void take_value() noexcept {}
    result<void> take_result() {
        if (failure) return std::unexpected(std::move(*failure));
        return {};
    }
};

}  // namespace detail

template <class T>
class [[nodiscard]] task {
  public:
    using promise_type = detail::task_promise<T>;
    using value_type = T;
    using handle = std::coroutine_handle<promise_type>;

    task() noexcept = default;
    explicit task(handle frame) noexcept : _frame(frame) {}
    task(task&& other) noexcept : _frame(std::exchange(other._frame, {})) {}
    task& operator=(task&& other) noexcept {
        if (this != &other) {
            if (_frame) _frame.destroy();
            _frame = std::exchange(other._frame, {});
        }
        return *this;
    }
    ~task() {
        if (_frame) _frame.destroy();
    }

    explicit operator bool() const noexcept { return static_cast<bool>(_frame); }

    class awaiter {
      public:
        explicit awaiter(handle frame) noexcept : _frame(frame) {}
        bool await_ready() const noexcept { return false; }
        template <class Promise>
            requires std::derived_from<Promise, detail::promise_base>
        handle await_suspend(std::coroutine_handle<Promise> parent) noexcept {
            _frame.promise().continuation = parent;
            _frame.promise().propagates_to = &parent.promise();
            return _frame;
        }
        T await_resume() { return _frame.promise().take_value(); }

      private:
        handle _frame;
    };
    // The task object must live until the awaiting statement ends (it does: it is a temporary of it, or a local).
    awaiter operator co_await() noexcept {
        VARVE_ASSERT(_frame);
        return awaiter(_frame);
    }

    class result_awaiter {
      public:
        explicit result_awaiter(task owned) noexcept : _task(std::move(owned)) {}
        bool await_ready() const noexcept { return false; }
        handle await_suspend(std::coroutine_handle<> parent) noexcept {
            _task._frame.promise().continuation = parent;
            return _task._frame;
        }
        result<T> await_resume() { return _task._frame.promise().take_result(); }

      private:
        task _task;
    };

  private:
    handle _frame;
};

// co_await as_result(f()): the error, if any, is mine to handle. The frames it passed are destroyed when the statement
// ends.
template <class T>
[[nodiscard]] typename task<T>::result_awaiter as_result(task<T> waited_for) noexcept {
    return typename task<T>::result_awaiter(std::move(waited_for));
}

namespace detail {

template <class T>
task<T> task_promise<T>::get_return_object() noexcept {
    return task<T>(std::coroutine_handle<task_promise<T>>::from_promise(*this));
}
inline task<void> task_promise<void>::get_return_object() noexcept {
    return task<void>(std::coroutine_handle<task_promise<void>>::from_promise(*this));
}

// The root of a tree of tasks: starts at once, destroys itself at the end. Made by start_detached only.
struct detached {
    struct promise_type {
        static void* operator new(std::size_t size) { return thread::allocate_frame(size); }
        static void operator delete(void* frame, std::size_t size) noexcept { thread::free_frame(frame, size); }
        detached get_return_object() noexcept { return {}; }
        std::suspend_never initial_suspend() noexcept { return {}; }
        std::suspend_never final_suspend() noexcept { return {}; }
        void return_void() noexcept {}
        [[noreturn]] void unhandled_exception() noexcept { std::terminate(); }
    };
};

template <class T, class Done>
detached run_detached(task<T> body, Done done) {
    result<T> outcome = co_await as_result(std::move(body));
    done(std::move(outcome));
}

}  // namespace detail

// Starts `body` now, on this thread, and calls done(result<T>) when it ends. The caller sees to it that what the body
// refers to outlives it: normally through gate::spawn (gate.h), which is what you want instead of this.
template <class T, class Done>
void start_detached(task<T> body, Done done) {
    detail::run_detached(std::move(body), std::move(done));
}

}  // namespace varve
