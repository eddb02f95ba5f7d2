// One per reactor: every asynchronous operation of that reactor goes in and comes out here, and it is the one place
// where the reactor sleeps. All calls from the reactor's OS thread, except wake() and detach/adopt's handover object.
#pragma once

#include <memory>

#include "env/file.h"
#include "env/socket.h"
#include "util/result.h"
#include "util/units.h"
#include "util/work.h"

namespace varve::env {

// What is left of a socket between two loops: it may cross threads. Destroying it closes the connection.
class detached_socket {
  public:
    virtual ~detached_socket() = default;
};

class connect_handler {
  public:
    // Either a connected socket, not started, or an error. Called once.
    virtual void on_connect(result<std::unique_ptr<socket>> outcome) noexcept = 0;

  protected:
    ~connect_handler() = default;
};

// Calls its work each time the descriptor is readable, until destroyed.
class watch {
  public:
    virtual ~watch() = default;
};

class loop {
  public:
    virtual ~loop() = default;

    // Hands over what was submitted since the last call and runs the callbacks of what has finished. Never blocks.
    // Returns whether any callback ran.
    virtual bool poll() noexcept = 0;
    // As poll, but blocks until something finished, wake() was called, or `deadline` (system::now time) has come.
    virtual bool wait(time_ns deadline) noexcept = 0;
    // Makes a wait() in progress, or the next one, return. Any thread. Cheap when the loop is not waiting is not
    // promised: callers keep a flag.
    virtual void wake() noexcept = 0;
    // Operations and sockets under way: what must end before the loop may be destroyed.
    virtual std::size_t in_flight() const noexcept = 0;

    virtual void submit(file_op& op) noexcept = 0;

    virtual result<std::unique_ptr<listener>> listen(const address& at, accept_handler& handler) = 0;
    virtual void connect(const address& to, connect_handler& handler) = 0;
    // An accepted or connected socket that was not started leaves its loop ...
    virtual std::unique_ptr<detached_socket> detach(std::unique_ptr<socket> connection) noexcept = 0;
    // ... and joins another, on that loop's thread.
    virtual result<std::unique_ptr<socket>> adopt(std::unique_ptr<detached_socket> connection) = 0;

    // errc::unsupported in the simulation.
    virtual result<std::unique_ptr<watch>> watch_readable(int descriptor, work& on_readable) = 0;

    // "io_uring", "epoll" or "sim": for reports.
    virtual const char* kind() const noexcept = 0;
};

}  // namespace varve::env
