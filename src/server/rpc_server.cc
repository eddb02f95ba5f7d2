#include "server/rpc_server.h"

#include <fmt/format.h>

#include <algorithm>

#include "env/loop.h"
#include "thread/awaits.h"
#include "thread/thread.h"
#include "util/assert.h"

namespace varve::server {

rpc_server::rpc_server(thread::thread& home, logger& log, call target)
    : _home(home), _log(log), _target(std::move(target)) {}

rpc_server::~rpc_server() { VARVE_ASSERT(_connections.empty() && _listeners.empty()); }

result<> rpc_server::listen(const std::string& path) {
    auto listener = _home.loop().listen({env::address::family::unix_path, path, 0}, *this);
    if (!listener) return std::unexpected(std::move(listener).error());
    if (_listeners.empty()) _home.pin();
    _listeners.push_back(std::move(*listener));
    return {};
}

void rpc_server::release() {
    _held = false;
    for (auto& [id, c] : _connections) c->resume();
}

void rpc_server::on_accept(std::unique_ptr<env::socket> client) noexcept {
    thread::entered in(_home);
    if (_stopped_reading) return;
    if (_connections.size() >= max_connections) {
        _log.warning(fmt::format("refused an RPC connection: there are {}", _connections.size()));
        return;
    }
    uint64_t id = _next_connection++;
    auto& c = _connections[id] = std::make_unique<connection>(*this, _home, id, std::move(client));
    c->start();
}

void rpc_server::forget(uint64_t id) noexcept { _connections.erase(id); }

void rpc_server::run(const connection::ticket& of, request r) {
    auto body = _target(r.method, std::move(r.params));
    // The gate is closed only when nothing is read any more.
    _calls.spawn(run_call(of, std::move(r.id), std::move(body)), [](error) {});
}

task<> rpc_server::run_call(connection::ticket of, json::value id, task<json::value> body) {
    result<json::value> outcome = co_await as_result(std::move(body));
    auto asked = _connections.find(of.connection);
    if (asked == _connections.end()) co_return;
    std::string reply;
    if (!outcome) {
        reply = error_reply(id, outcome.error());
    } else if (!id.is_null()) {
        reply = result_reply(id, *outcome);
    }
    asked->second->finish(of, std::move(reply));
}

void rpc_server::stop_reading() noexcept {
    _stopped_reading = true;
    if (!_listeners.empty()) _home.unpin();
    _listeners.clear();
    for (auto& [id, c] : _connections) c->stop_reading();
}

task<> rpc_server::stop() {
    if (!_stopped_reading) stop_reading();
    co_await _calls.close();
    co_await yield();  // off the stack of the last call to end
    constexpr int rounds = 50;
    constexpr time_ns pause = 10 * milliseconds;
    auto unsent = [this] {
        return std::ranges::any_of(_connections, [](const auto& c) { return !c.second->all_sent(); });
    };
    for (int i = 0; i < rounds && unsent(); ++i) co_await sleep(pause);
    for (auto& [id, c] : _connections) c->close();
    while (!_connections.empty()) co_await sleep(milliseconds);
}

}  // namespace varve::server
