// A connected socket of a simulated loop: hands to its handler what arrives at one end of a connection, in pieces of
// drawn sizes, each in memory of its own that is gone after the call.
#pragma once

#include <memory>

#include "env/sim/ready.h"
#include "env/socket.h"

namespace varve::env::sim {

class connection;
class endpoint;
class loop;
class network;

class socket final : public env::socket {
  public:
    socket(loop& at, network& in, uint64_t connection_number, unsigned side);
    ~socket() override;
    socket(const socket&) = delete;

    void start(socket_handler& handler) noexcept override;
    void send(send_op& op) noexcept override;
    void resume_receive() noexcept override;
    void close() noexcept override;
    const address& local() const noexcept override { return _local; }
    const address& peer() const noexcept override { return _peer; }

    // The endpoint's: something to deliver.
    void sends_ready() noexcept;
    void data_ready() noexcept;
    void closed_ready() noexcept;

    // The network's, of a socket that was not started.
    loop& at() noexcept { return _loop; }
    endpoint* give_up_end() noexcept;
    uint64_t connection_number() const noexcept { return _connection; }
    unsigned side() const noexcept { return _side; }

  private:
    struct part final : ready {
        part(socket& s, void (socket::*f)() noexcept) : of(s), function(f) {}
        void deliver() noexcept override { (of.*function)(); }
        socket& of;
        void (socket::*function)() noexcept;
    };
    void deliver_sends() noexcept;
    void deliver_data() noexcept;
    void deliver_end() noexcept;
    bool offer() noexcept;

    loop& _loop;
    network& _network;
    const uint64_t _connection;
    const unsigned _side;
    endpoint* _end;  // null once it is over
    const address _local, _peer;
    socket_handler* _handler = nullptr;
    bool _paused = false;
    bool _offering = false, _resumed = false;
    part _sends{*this, &socket::deliver_sends};
    part _data{*this, &socket::deliver_data};
    part _closed{*this, &socket::deliver_end};
};

}  // namespace varve::env::sim
