// The life of a server, from its first line to its last: listen, load, serve, drain. Belongs to the app thread.
#pragma once

#include <memory>

#include "app/memory_return.h"
#include "app/serve_options.h"
#include "env/loop.h"
#include "server/instance.h"
#include "server/rpc_server.h"
#include "thread/sync.h"

namespace varve::app {

class daemon {
  public:
    daemon(const serve_options& how, server::instance& system, logger& out);
    ~daemon();

    // Ends when a signal has asked for it, or with the error that kept it from serving. Then nothing runs any more.
    task<> live();
    // As a signal does. App thread.
    void ask_to_end() noexcept { _end.set(); }

  private:
    struct on_signal;
    result<> watch_signals();
    void take_signals() noexcept;
    task<> begin();
    task<> load();
    task<> drain();

    const serve_options& _how;
    server::instance& _system;
    logger& _out;
    thread::thread& _home;
    memory_return _memory;
    server::rpc_server _server;
    int _signals = -1;
    std::unique_ptr<on_signal> _on_signal;
    std::unique_ptr<env::watch> _watch;
    event _end;
    int _ends_asked = 0;
};

// Signals that reach take_signals() instead of a handler; before any thread is made.
void block_signals() noexcept;

}  // namespace varve::app
