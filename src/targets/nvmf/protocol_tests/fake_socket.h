// A socket whose other end is in a test's hands. The test writes to `wire::to_target` and reads `wire::from_target`; a
// wire that goes ends the connection. The socket keeps the contract of env/socket.h towards its handler, strictly:
// bytes live in memory of their own during the call only, sends are done later and in order, on_closed is the last
// call.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "env/socket.h"
#include "thread/thread.h"
#include "util/list.h"

namespace varve::targets::nvmf::protocol_tests {

class fake_socket;

// The test's end.
struct wire {
    wire() = default;
    wire(const wire&) = delete;
    ~wire();
    std::string to_target, from_target;
    std::size_t delivery_max = SIZE_MAX;  // bytes that are offered at once
    bool hold_sends = false;              // nothing that is sent is taken until this is cleared
    bool acknowledge = true;              // false: what is sent arrives, but the sender does not hear of it yet
    bool late = false;                    // what was written is offered once more after the target has closed
    bool closed_by_target = false;
    bool over = false;    // on_closed was called
    bool paused = false;  // the handler has left bytes behind
    uint64_t sends = 0, deliveries = 0;
    fake_socket* socket = nullptr;

    // Lets happen what can happen, on the target's thread, soon.
    void poke();
    void write(std::string_view bytes) {
        to_target += bytes;
        poke();
    }
    // The host closes (0), or the connection breaks (a negated errno).
    void end(int reason = 0);
};

class fake_socket final : public env::socket, work {
  public:
    fake_socket(wire& other_end, thread::thread& on, env::address local, env::address peer)
        : _wire(&other_end), _thread(on), _local(std::move(local)), _peer(std::move(peer)) {
        _wire->socket = this;
        _nobody.hold_sends = true;
        run = [](work& w) noexcept {
            auto& me = static_cast<fake_socket&>(w);
            me._queued = false;
            me.turn();
        };
    }
    ~fake_socket() override {
        EXPECT_TRUE(_handler == nullptr || _over);
        EXPECT_FALSE(_in_call);
        _wire->socket = nullptr;
    }

    void start(env::socket_handler& handler) noexcept override {
        _handler = &handler;
        poke();
    }
    void send(env::send_op& op) noexcept override {
        EXPECT_FALSE(_over);
        ++_wire->sends;
        _sends.push(op);
        poke();
    }
    void resume_receive() noexcept override {
        if (!_wire->paused) return;
        _wire->paused = false;
        poke();
    }
    void close() noexcept override {
        _wire->closed_by_target = true;
        end(0);
    }
    const env::address& local() const noexcept override { return _local; }
    const env::address& peer() const noexcept override { return _peer; }

    void let_go() noexcept {
        _wire->socket = nullptr;
        _wire = &_nobody;
        end(0);
    }
    void end(int reason) noexcept {
        if (_ending) return;
        _ending = true;
        _reason = reason;
        poke();
    }
    void poke() noexcept {
        if (_queued || _over) return;
        _queued = true;
        _thread.post(*this);
    }

  private:
    void turn() noexcept {
        if (_ending) {
            if (_wire->late && !_wire->to_target.empty()) deliver();
            return finish();
        }
        while (!_wire->hold_sends && !_sends.empty()) {
            env::send_op& op = *_sends.pop();
            for (uint32_t i = 0; i < op.iov_count; ++i)
                _wire->from_target.append(static_cast<const char*>(op.iov[i].iov_base), op.iov[i].iov_len);
            _taken.push(op);
        }
        while (_wire->acknowledge && !_taken.empty()) {
            env::send_op& op = *_taken.pop();
            op.result = 0;
            op.done(op);
        }
        if (!_wire->paused && !_wire->to_target.empty() && !_ending) deliver();
    }
    void deliver() noexcept {
        std::size_t size = std::min(_wire->delivery_max, _wire->to_target.size());
        auto bytes = std::make_unique<std::byte[]>(size);  // of exactly this size, for address sanitizer
        std::memcpy(bytes.get(), _wire->to_target.data(), size);
        ++_wire->deliveries;
        _in_call = true;
        std::size_t used = _handler->on_data({bytes.get(), size});
        _in_call = false;
        EXPECT_LE(used, size);
        _wire->to_target.erase(0, used);
        if (used < size) _wire->paused = true;
        if (!_wire->paused && !_wire->to_target.empty() && !_ending) poke();
    }
    void finish() noexcept {
        _queued = true;  // there is no further turn
        while (env::send_op* op = _taken.empty() ? _sends.pop() : _taken.pop()) {
            op->result = _reason != 0 ? _reason : -ECANCELED;
            op->done(*op);
        }
        _over = true;
        _wire->over = true;
        _handler->on_closed(_reason);  // may destroy this
    }

    wire* _wire;
    wire _nobody;  // when the test has let go
    thread::thread& _thread;
    const env::address _local, _peer;
    env::socket_handler* _handler = nullptr;
    queue<env::send_op> _sends, _taken;
    int _reason = 0;
    bool _queued = false, _ending = false, _over = false, _in_call = false;
};

inline wire::~wire() {
    if (socket != nullptr) socket->let_go();
}
inline void wire::poke() {
    if (socket != nullptr) socket->poke();
}
inline void wire::end(int reason) {
    if (socket != nullptr) socket->end(reason);
}

}  // namespace varve::targets::nvmf::protocol_tests
