// A coroutine that waits for a callback of the loop, and goes on in a turn of its thread: never inside the callback.
#pragma once

#include <coroutine>

#include "thread/thread.h"
#include "util/work.h"

namespace varve::net {

class parked : public work {
  public:
    bool await_ready() const noexcept { return false; }
    void park(std::coroutine_handle<> who) noexcept {
        _who = who;
        run = [](work& self) noexcept { static_cast<parked&>(self)._who.resume(); };
    }
    void go_on(thread::thread& home) noexcept { home.defer(*this); }

  private:
    std::coroutine_handle<> _who;
};

}  // namespace varve::net
