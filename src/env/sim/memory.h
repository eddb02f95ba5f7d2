// Memory of a simulated world: the heap, under the address sanitizer every allocation of exactly the size asked, so
// that it sees each overrun; and allocations that fail when a test says so.
#pragma once

#include <cstdint>
#include <unordered_map>

#include "env/memory.h"
#include "env/sim/rng.h"

namespace varve::env::sim {

class simulated_memory final : public memory {
  public:
    explicit simulated_memory(rng chance) noexcept : _chance(chance) {}
    ~simulated_memory() override;

    result<buffer> allocate(std::size_t size, std::size_t alignment = 4096) override;
    std::size_t bytes_allocated() const noexcept override { return _allocated; }

    // Allocations so far; the next one is number allocations().
    uint64_t allocations() const noexcept { return _allocations; }
    void fail_allocation(uint64_t number) noexcept { _failing = number; }
    void fail_one_in(uint32_t n) noexcept { _fail_one_in = n; }
    void limit(std::size_t bytes) noexcept { _limit = bytes; }

  private:
    void free(std::byte* data, std::size_t size) noexcept override;

    rng _chance;
    uint64_t _allocations = 0;
    uint64_t _failing = UINT64_MAX;
    uint32_t _fail_one_in = 0;
    std::size_t _limit = SIZE_MAX;
    std::size_t _allocated = 0;
    // Large ones: where the mapping begins, and its size. Never iterated.
    std::unordered_map<void*, std::pair<void*, std::size_t>> _mapped;
};

}  // namespace varve::env::sim
