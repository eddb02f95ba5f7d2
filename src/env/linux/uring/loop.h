// The loop over io_uring.
#pragma once

#include <sys/socket.h>

#include <array>
#include <memory>
#include <vector>

#include "env/linux/loop_base.h"
#include "env/linux/uring/buffers.h"
#include "env/linux/uring/request.h"
#include "env/linux/uring/ring.h"

namespace varve::env::os_linux::uring {

class loop final : public loop_base {
  public:
    static result<std::unique_ptr<env::loop>> make(const surroundings& around, bool incremental_receive);
    ~loop() override;

    void submit(file_op& op) noexcept override;
    result<std::unique_ptr<env::listener>> listen(const address& at, accept_handler& handler) override;
    result<std::unique_ptr<env::watch>> watch_readable(int number, work& on_readable) override;
    const char* kind() const noexcept override { return "io_uring"; }

    // Queues the request; it is with the kernel from the next turn on and until its last answer.
    void ask(request& r) noexcept;
    // The kernel is to give it back: its last answer comes soon (that it was cancelled, or what happened first).
    void cancel(request& r) noexcept;

    buffers& receive_buffers() noexcept { return *_buffers; }
    // For a request being prepared: a message header over vectors that live until the kernel has read them. May be
    // fewer vectors than wanted, also none.
    std::span<iovec> spare_vectors(std::size_t wanted) noexcept;
    msghdr& message_over(iovec* first, std::size_t count) noexcept;

  private:
    class owned_request;
    class recurring_request;
    class waking;
    class listening;
    class watching;
    class connecting;
    class listener_handle;
    class watch_handle;

    loop(const surroundings& around, std::unique_ptr<ring> queues, std::unique_ptr<buffers> provided);
    void exchange(bool may_sleep, time_ns deadline) noexcept override;
    std::unique_ptr<socket_base> make_socket(descriptor connection, address local, address peer) override;
    void connect_to(const socket_name& name, descriptor socket, connect_handler& handler) override;

    io_uring_sqe* entry() noexcept;
    int enter(bool fetch, bool sleep, const timespec* patience) noexcept;
    void talk(bool may_sleep, time_ns deadline) noexcept;
    void catch_up() noexcept;
    void dispatch(const answer& from_kernel) noexcept;
    bool ask_step(file_op& op) noexcept;
    void file_answered(file_op& op, int32_t outcome) noexcept;

    // The ring goes first, so that the kernel lets go of what the others are made of.
    std::unique_ptr<buffers> _buffers;
    std::unique_ptr<ring> _ring;
    bool _enabled = false;

    // What found the submission queue full. Rare: its entries are many and an enter empties it.
    queue<request> _backlog;
    queue<file_op> _file_backlog;
    std::vector<request*> _cancel_backlog;

    // Records that may outlive whoever asked for them; freed at their last answer, or with the loop.
    list<owned_request> _owned;

    std::size_t _vectors_used = 0, _messages_used = 0;
    std::array<iovec, 4096> _vectors;
    std::array<msghdr, 256> _messages;
};

}  // namespace varve::env::os_linux::uring
