// The loop of a simulated reactor: what was submitted starts with the next poll; what has finished is delivered by a
// poll, all of it or (drawn) only some.
#pragma once

#include "env/loop.h"
#include "env/sim/ready.h"
#include "env/sim/rng.h"

namespace varve::env::sim {

class universe;
class world;

class loop final : public env::loop {
  public:
    loop(world& in, uint64_t number);
    ~loop() override;

    bool poll() noexcept override;
    // Inside a worker's turn as poll(): there the scheduler decides who waits.
    bool wait(time_ns deadline) noexcept override;
    void wake() noexcept override;
    std::size_t in_flight() const noexcept override { return _in_flight; }
    void submit(file_op& op) noexcept override;
    result<std::unique_ptr<listener>> listen(const address& at, accept_handler& handler) override;
    void connect(const address& to, connect_handler& handler) override;
    std::unique_ptr<detached_socket> detach(std::unique_ptr<env::socket> connection) noexcept override;
    result<std::unique_ptr<env::socket>> adopt(std::unique_ptr<detached_socket> connection) override;
    result<std::unique_ptr<watch>> watch_readable(int descriptor, work& on_readable) override;
    const char* kind() const noexcept override { return "sim"; }

    world& in() noexcept { return _world; }
    // To be delivered by a poll to come; nothing when it is in line already.
    void make_ready(ready& what) noexcept;
    void file_op_delivered() noexcept { --_in_flight; }
    // Sockets, listeners and connects count themselves.
    void hold() noexcept { ++_in_flight; }
    void release() noexcept { --_in_flight; }

  private:
    bool something_ready() const noexcept { return !_ready.empty() || _woken; }

    world& _world;
    universe& _universe;
    const uint64_t _number;
    rng _chance;
    queue<file_op> _submitted;
    list<ready> _ready;
    std::size_t _in_flight = 0;
    bool _woken = false;
    bool _polling = false;
};

}  // namespace varve::env::sim
