// A coroutine that waits for something and is resumed from its thread's queue when that happens.
#pragma once

#include <coroutine>
#include <utility>

#include "thread/thread.h"
#include "util/work.h"

namespace varve::bdev {

struct resumption : work {
    explicit operator bool() const noexcept { return static_cast<bool>(who); }
    void go(thread::thread& where) noexcept {
        resumed = std::exchange(who, {});
        run = [](work& w) noexcept { static_cast<resumption&>(w).resumed.resume(); };
        where.defer(*this);
    }
    std::coroutine_handle<> who;
    std::coroutine_handle<> resumed;

    // co_await until(condition): suspends unless it holds already; whoever makes it true calls go().
    template <class Condition>
    auto until(Condition holds) noexcept {
        struct awaiter {
            resumption& me;
            Condition condition;
            bool await_ready() const noexcept { return condition(); }
            void await_suspend(std::coroutine_handle<> waiter) noexcept { me.who = waiter; }
            void await_resume() const noexcept {}
        };
        return awaiter{*this, std::move(holds)};
    }
};

}  // namespace varve::bdev
