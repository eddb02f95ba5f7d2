// The loop where io_uring is forbidden or old: epoll for descriptors, Linux AIO for direct reads and writes, helper
// threads for everything else about files.
#pragma once

#include <sys/epoll.h>

#include <array>
#include <memory>
#include <vector>

#include "env/linux/epoll/aio.h"
#include "env/linux/loop_base.h"

namespace varve::env::os_linux::epoll {

// Something with a descriptor in the epoll set.
class event_source {
  public:
    virtual void ready(uint32_t events) noexcept = 0;

  protected:
    ~event_source() = default;
};

class loop final : public loop_base {
  public:
    static result<std::unique_ptr<env::loop>> make(const surroundings& around);
    ~loop() override;

    void submit(file_op& op) noexcept override;
    result<std::unique_ptr<env::listener>> listen(const address& at, accept_handler& handler) override;
    result<std::unique_ptr<env::watch>> watch_readable(int number, work& on_readable) override;
    const char* kind() const noexcept override { return "epoll"; }

    // For the sources. `events` of 0 takes the descriptor out of the set; the kernel reports nothing of it then.
    void set_interest(int number, event_source& source, uint32_t& now, uint32_t events) noexcept;
    // Events of this turn that are for `source` are dropped: it goes.
    void forget(event_source& source) noexcept;

    // One receive buffer for all: bytes are offered at once, so it stays hot in the cache.
    std::span<std::byte> receive_buffer() const noexcept { return {_receive_buffer.get(), receive_buffer_size}; }
    std::span<iovec> send_vectors() noexcept { return _send_vectors; }
    queue<send_op>& sent() noexcept { return _sent; }

  private:
    class listening;
    class watching;
    class connecting;
    struct file_job;
    friend class socket;
    friend class listening;
    friend class connecting;

    loop(const surroundings& around, descriptor set);
    void exchange(bool may_sleep, time_ns deadline) noexcept override;
    std::unique_ptr<socket_base> make_socket(descriptor connection, address local, address peer) override;
    void connect_to(const socket_name& name, descriptor socket, connect_handler& handler) override;
    int wait_for_events(bool may_sleep, time_ns deadline) noexcept;
    void run_sent() noexcept;
    bool through_aio(file_op& op) noexcept;
    void run_finished_files() noexcept;
    bool watch_edges(int number) noexcept;
    file_job& take_job();
    void give_job(file_job& job) noexcept;

    static constexpr std::size_t receive_buffer_size = 256 << 10;
    const descriptor _set;
    const std::unique_ptr<std::byte[]> _receive_buffer;
    queue<send_op> _sent;       // done; told after the sends of the turn
    std::unique_ptr<aio> _aio;  // made for the first operation that suits it
    bool _aio_tried = false;
    file_job* _spare_jobs = nullptr;
    int _event_count = 0, _event_at = 0;
    std::array<epoll_event, 256> _events;
    std::array<iovec, 1024> _send_vectors;
};

}  // namespace varve::env::os_linux::epoll
