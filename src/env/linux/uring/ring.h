// The submission and completion queues shared with the kernel, and the one system call.
#pragma once

#include <linux/io_uring.h>
#include <time.h>

#include <atomic>
#include <cstddef>
#include <memory>

#include "env/linux/descriptor.h"
#include "util/result.h"

namespace varve::env::os_linux::uring {

struct answer {
    uint64_t user_data;
    int32_t outcome;
    uint32_t flags;
};

class ring {
  public:
    // errc::unsupported where the kernel is too old, errc::not_permitted where it is told to refuse.
    static result<std::unique_ptr<ring>> make();
    ~ring();
    ring(const ring&) = delete;

    // From now on the ring belongs to the calling thread. Once.
    int enable() noexcept;
    int register_with(unsigned what, void* argument, unsigned count) noexcept;

    // A cleared entry to fill in, or null when the queue is full: enter() and try again.
    io_uring_sqe* next_entry() noexcept;
    unsigned queued() const noexcept { return _local_tail - _submitted; }
    // Whether the kernel has something to tell that only enter() fetches.
    bool has_news() const noexcept {
        constexpr unsigned news = IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW;
        return (_kernel_flags->load(std::memory_order_relaxed) & news) != 0;
    }
    // Hands over everything queued and fetches what has finished; sleeps until there is something if `sleep`, no longer
    // than `patience` (null: for ever). Returns a negated errno, or 0.
    int enter(bool fetch, bool sleep, const timespec* patience) noexcept;

    // How many answers are there; take each once.
    unsigned answers() const noexcept { return _cq_tail->load(std::memory_order_acquire) - _cq_local_head; }
    answer take_answer() noexcept {
        const io_uring_cqe& entry = _cqes[_cq_local_head & _cq_mask];
        answer taken{entry.user_data, entry.res, entry.flags};
        _cq_head->store(++_cq_local_head, std::memory_order_release);
        return taken;
    }

  private:
    using counter = std::atomic<unsigned>;
    ring() = default;
    result<> map(const io_uring_params& made);

    descriptor _descriptor;
    std::byte* _queues = nullptr;
    std::size_t _queues_size = 0;
    io_uring_sqe* _sqes = nullptr;
    std::size_t _sqes_size = 0;

    counter* _sq_head = nullptr;
    counter* _sq_tail = nullptr;
    counter* _kernel_flags = nullptr;
    unsigned _sq_mask = 0, _sq_entries = 0;
    unsigned _local_tail = 0;  // entries filled in
    unsigned _submitted = 0;   // entries the kernel has consumed
    unsigned _wait_flags = 0;

    counter* _cq_head = nullptr;
    counter* _cq_tail = nullptr;
    const io_uring_cqe* _cqes = nullptr;
    unsigned _cq_mask = 0, _cq_local_head = 0;
};

}  // namespace varve::env::os_linux::uring
