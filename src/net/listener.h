// Accepts connections for a coroutine.
//
//   net::listener doors = co_await net::listener::open(address);
//   for (;;) serve(co_await doors.accept());
#pragma once

#include <memory>

#include "net/stream.h"

namespace varve::net {

class listener {
  public:
    // Listens on the current thread's loop.
    static result<listener> open(const env::address& at);
    listener(listener&& other) noexcept;
    listener& operator=(listener&& other) noexcept;
    // Who waits in accept() gets errc::cancelled; connections nobody took are closed.
    ~listener();

    // One at a time. Connections that come meanwhile wait in line, up to a limit; beyond it they are closed.
    task<stream> accept();
    const env::address& local() const noexcept;  // with the real port

  private:
    class line;
    explicit listener(std::unique_ptr<line> made) noexcept;
    std::unique_ptr<line> _line;
};

}  // namespace varve::net
