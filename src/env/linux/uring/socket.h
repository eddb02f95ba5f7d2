// A connection under io_uring: one multishot receive, and at most one gathered send, are with the kernel.
#pragma once

#include "env/linux/uring/loop.h"

namespace varve::env::os_linux::uring {

class socket final : public socket_base {
  public:
    socket(loop& home, descriptor connection, address local, address peer) noexcept
        : socket_base(home, std::move(connection), std::move(local), std::move(peer)), _receive(*this), _send(*this) {}

  private:
    struct receive_request final : request {
        explicit receive_request(socket& s) noexcept : of(s) {}
        void prepare(io_uring_sqe& entry) noexcept override { of.prepare_receive(entry); }
        void answered(int32_t outcome, uint32_t flags) noexcept override { of.receive_answered(outcome, flags); }
        socket& of;
    };
    struct send_request final : request {
        explicit send_request(socket& s) noexcept : of(s) {}
        void prepare(io_uring_sqe& entry) noexcept override { of.prepare_send(entry); }
        void answered(int32_t outcome, uint32_t) noexcept override { of.send_answered(outcome); }
        socket& of;
    };

    loop& home() noexcept { return static_cast<loop&>(_home); }
    void transmit() noexcept override;
    void begin_receive() noexcept override;
    void hold_receive() noexcept override;
    void quiesce() noexcept override;
    bool quiet() const noexcept override { return !_receiving && !_sending; }
    bool all_sent() const noexcept override { return _queue.empty(); }
    void prepare_receive(io_uring_sqe& entry) noexcept;
    void receive_answered(int32_t outcome, uint32_t flags) noexcept;
    void prepare_send(io_uring_sqe& entry) noexcept;
    void send_answered(int32_t outcome) noexcept;

    receive_request _receive;
    send_request _send;
    bool _receiving = false;  // _receive is with the kernel
    bool _holding = false;    // and was asked to come back
    bool _sending = false;    // _send is with the kernel; the ops it covers are still in the queue
};

}  // namespace varve::env::os_linux::uring
