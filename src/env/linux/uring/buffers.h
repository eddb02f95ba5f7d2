// Provided buffers: the kernel picks one when bytes are there, so that an idle connection holds none. One ring per
// loop.
//
// Incremental (Linux 6.12): large buffers which the kernel fills bit by bit; small messages lie side by side, large
// ones arrive in few pieces. Otherwise a buffer is good for one piece, and there are more, smaller ones. Few are lent
// in the beginning. Each time the kernel runs out there are twice as many, up to the ring's size: memory follows the
// traffic.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "env/linux/uring/ring.h"

namespace varve::env::os_linux::uring {

class buffers {
  public:
    static constexpr uint16_t group = 0;

    // Registers with the ring, which must go before this.
    static result<std::unique_ptr<buffers>> make(ring& with, bool incremental);
    ~buffers();
    buffers(const buffers&) = delete;

    bool incremental() const noexcept { return _incremental; }

    // The bytes an answer brought.
    std::span<const std::byte> bytes_of(int32_t outcome, uint32_t flags) const noexcept;
    // They have been looked at. The buffer goes back when the kernel will put no more into it.
    void release(int32_t outcome, uint32_t flags) noexcept;
    // The kernel found none: lends more, if there are more.
    void grow() noexcept;
    // Shows the kernel what went back since the last time.
    void publish() noexcept;

  private:
    explicit buffers(bool incremental) noexcept;
    result<> map();
    void lend(uint16_t id) noexcept;
    std::byte* at(uint16_t id) const noexcept { return _memory + std::size_t(id) * _each; }

    const bool _incremental;
    const unsigned _count;    // a power of two
    const std::size_t _each;  // bytes
    io_uring_buf* _ring = nullptr;
    std::byte* _memory = nullptr;
    unsigned _lent = 0;  // how many ids are in use
    uint16_t _tail = 0;
    bool _unpublished = false;
    std::vector<uint32_t> _filled;  // incremental: bytes of each buffer the kernel has filled
};

}  // namespace varve::env::os_linux::uring
