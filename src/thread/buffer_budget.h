// How much memory the I/O buffers of one runtime may take together, and who waits for some. Any thread; locked, because
// it is asked only when a pool grows or shrinks by a slab.
//
// Pools that need memory which is not there stand in line. Pressure tells all pools: 1, give back slabs as soon as they
// are free; 2, somebody has waited for long, hand out nothing until memory has come back (else a busy thread, whose
// slabs never become quite free, could starve the others for ever).
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>

#include "util/list.h"

namespace varve::thread {

class buffer_pool;

enum class memory_pressure : uint8_t { none, tight, starving };

class buffer_budget {
  public:
    explicit buffer_budget(uint64_t limit) noexcept : _limit(limit) {}
    buffer_budget(const buffer_budget&) = delete;
    ~buffer_budget();

    memory_pressure pressure() const noexcept { return _pressure.load(std::memory_order_relaxed); }
    uint64_t limit() const noexcept;
    uint64_t used() const noexcept;
    // Bytes. What is in use already stays in use.
    void set_limit(uint64_t limit) noexcept;

    // --- for pools
    void join(buffer_pool& pool) noexcept;  // from now on it is asked to give back what it does not use
    void leave(buffer_pool& pool) noexcept;
    // False when there is not enough or others have waited for longer. A single reservation may exceed the limit when
    // nothing else is reserved, so that nobody waits for ever.
    bool reserve(uint64_t bytes) noexcept;
    void give_back(uint64_t bytes) noexcept;
    // Puts the pool in line; it gets its granted() posted once `bytes` have been reserved for it.
    void stand_in_line(buffer_pool& pool, uint64_t bytes) noexcept;
    // False when it is not in line any more: the grant is on its way.
    bool leave_line(buffer_pool& pool) noexcept;
    // Somebody in line has lost patience, or has let the others suffer for long enough: buffers that are held for long
    // (by a client that does not send what it announced) must not stop everybody for ever.
    void starve(bool yes) noexcept;

  private:
    bool fits(uint64_t bytes) const noexcept { return _used == 0 || _used + bytes <= _limit; }
    void grant() noexcept;

    mutable std::mutex _lock;
    uint64_t _limit;
    uint64_t _used = 0;
    list<buffer_pool, struct hungry_pools> _hungry;
    list<buffer_pool, struct all_pools> _all;
    std::atomic<memory_pressure> _pressure{memory_pressure::none};
};

}  // namespace varve::thread
