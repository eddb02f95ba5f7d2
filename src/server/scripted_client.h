// For tests and fuzzing: a client of the JSON-RPC server without a kernel between. It hands bytes to the connection and
// keeps what is sent; sends end when the test says so.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <string_view>

#include "env/socket.h"

namespace varve::server {

// What both ends refer to; outlives the socket.
struct scripted_client {
    env::socket_handler* handler = nullptr;
    std::string unread;    // sent to the connection, not yet consumed
    std::string received;  // sent by the connection
    std::deque<env::send_op*> pending;
    bool reads = true;  // false: sends do not end until it is true again
    bool paused = false;
    bool close_asked = false;
    bool closed = false;

    // The socket to hand to rpc_server::on_accept.
    std::unique_ptr<env::socket> socket();

    void send(std::string_view bytes) {
        unread += bytes;
        offer();
    }
    // What the loop would do in its next turns.
    void turn() {
        for (bool more = true; more;) {
            more = false;
            if (handler != nullptr && !paused && !unread.empty()) {
                offer();
                more = true;
            }
            while (reads && !pending.empty()) {
                complete(0);
                more = true;
            }
            if (close_asked && !closed) {
                hang_up(0);
                more = true;
            }
        }
    }
    // It will send no more, and goes on reading.
    void end_sending() {
        turn();
        if (handler != nullptr && !closed && handler->on_peer_end()) close_asked = true;
    }
    // The client goes, whatever is under way.
    void hang_up(int reason) {
        if (closed || handler == nullptr) return;
        closed = true;
        while (!pending.empty()) complete(-32);
        handler->on_closed(reason);  // destroys the socket
        handler = nullptr;
    }

  private:
    void offer() {
        if (handler == nullptr || paused || closed || unread.empty()) return;
        std::size_t consumed = handler->on_data(std::as_bytes(std::span(unread)));
        paused = consumed < unread.size();
        unread.erase(0, consumed);
    }
    void complete(int result) {
        env::send_op& op = *pending.front();
        pending.pop_front();
        for (uint32_t i = 0; i < op.iov_count; ++i) {
            if (result == 0) received.append(static_cast<const char*>(op.iov[i].iov_base), op.iov[i].iov_len);
        }
        op.result = result;
        op.done(op);
    }
};

class scripted_socket final : public env::socket {
  public:
    explicit scripted_socket(scripted_client& script) : _script(script) {}
    void start(env::socket_handler& handler) noexcept override { _script.handler = &handler; }
    void send(env::send_op& op) noexcept override { _script.pending.push_back(&op); }
    void resume_receive() noexcept override { _script.paused = false; }
    void close() noexcept override { _script.close_asked = true; }
    const env::address& local() const noexcept override { return _nowhere; }
    const env::address& peer() const noexcept override { return _nowhere; }

  private:
    scripted_client& _script;
    env::address _nowhere;
};

inline std::unique_ptr<env::socket> scripted_client::socket() { return std::make_unique<scripted_socket>(*this); }

}  // namespace varve::server
