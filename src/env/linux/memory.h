// Memory straight from the kernel or the C library, sized by need. Which of them follows from the size alone, so that
// freeing needs no record.
#pragma once

#include <atomic>

#include "env/memory.h"

namespace varve::env::os_linux {

class system_memory final : public env::memory {
  public:
    explicit system_memory(bool hugepages) noexcept : _hugepages(hugepages) {}

    result<buffer> allocate(std::size_t size, std::size_t alignment) override;
    std::size_t bytes_allocated() const noexcept override { return _allocated.load(std::memory_order_relaxed); }

  private:
    void free(std::byte* data, std::size_t size) noexcept override;
    void populate(std::span<std::byte> range) noexcept override;

    const bool _hugepages;
    std::atomic<std::size_t> _allocated = 0;
};

}  // namespace varve::env::os_linux
