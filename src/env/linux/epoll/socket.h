// A connection under epoll: bytes are read when the set says so, sends are written at the turn's flush.
#pragma once

#include "env/linux/epoll/loop.h"

namespace varve::env::os_linux::epoll {

class socket final : public socket_base, private event_source {
  public:
    socket(loop& home, descriptor connection, address local, address peer) noexcept
        : socket_base(home, std::move(connection), std::move(local), std::move(peer)) {}

  private:
    loop& home() noexcept { return static_cast<loop&>(_home); }
    void ready(uint32_t events) noexcept override;
    void transmit() noexcept override;
    void begin_receive() noexcept override;
    void hold_receive() noexcept override;
    void quiesce() noexcept override;
    bool quiet() const noexcept override { return true; }
    bool all_sent() const noexcept override { return _queue.empty(); }
    void receive() noexcept;
    void want(uint32_t events) noexcept;

    uint32_t _interest = 0;
};

}  // namespace varve::env::os_linux::epoll
