// Listens on Unix sockets and runs the calls that come. Belongs to the app thread.
//
// While held, connections are accepted and nothing is read from them: clients that come during start-up wait for their
// answer instead of being refused.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "server/connection.h"
#include "thread/gate.h"
#include "thread/task.h"
#include "util/log.h"

namespace varve::server {

class rpc_server final : env::accept_handler {
  public:
    static constexpr std::size_t max_connections = 256;
    using call = std::function<task<json::value>(std::string_view method, json::value params)>;

    rpc_server(thread::thread& home, logger& log, call target);
    ~rpc_server();  // after stop(), or when it never listened

    // errc::address_in_use when somebody else serves that path.
    result<> listen(const std::string& path);
    bool held() const noexcept { return _held; }
    void hold() noexcept { _held = true; }
    void release();

    // No new connections and requests from here on.
    void stop_reading() noexcept;
    // Waits until the calls under way have ended, sends their replies (for a moment, to those who read them), closes.
    task<> stop();

    // --- for connections
    void run(const connection::ticket& of, request r);
    void forget(uint64_t connection) noexcept;

    void on_accept(std::unique_ptr<env::socket> client) noexcept override;

  private:
    task<> run_call(connection::ticket of, json::value id, task<json::value> body);

    thread::thread& _home;
    logger& _log;
    const call _target;
    std::vector<std::unique_ptr<env::listener>> _listeners;
    std::map<uint64_t, std::unique_ptr<connection>> _connections;
    uint64_t _next_connection = 1;
    bool _held = false;
    bool _stopped_reading = false;
    gate _calls;
};

}  // namespace varve::server
