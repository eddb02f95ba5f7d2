#include "thread/buffer_budget.h"

#include "thread/buffer_pool.h"

namespace varve::thread {

buffer_budget::~buffer_budget() { VARVE_ASSERT(_used == 0); }

uint64_t buffer_budget::limit() const noexcept {
    std::lock_guard guard(_lock);
    return _limit;
}

uint64_t buffer_budget::used() const noexcept {
    std::lock_guard guard(_lock);
    return _used;
}

void buffer_budget::set_limit(uint64_t limit) noexcept {
    std::lock_guard guard(_lock);
    _limit = limit;
    grant();
}

void buffer_budget::join(buffer_pool& pool) noexcept {
    std::lock_guard guard(_lock);
    _all.push_back(pool);
}

void buffer_budget::leave(buffer_pool& pool) noexcept {
    std::lock_guard guard(_lock);
    list<buffer_pool, all_pools>::remove(pool);
}

bool buffer_budget::reserve(uint64_t bytes) noexcept {
    std::lock_guard guard(_lock);
    if (!_hungry.empty() || !fits(bytes)) return false;
    _used += bytes;
    return true;
}

void buffer_budget::give_back(uint64_t bytes) noexcept {
    std::lock_guard guard(_lock);
    VARVE_ASSERT(bytes <= _used);
    _used -= bytes;
    grant();
}

void buffer_budget::stand_in_line(buffer_pool& pool, uint64_t bytes) noexcept {
    std::lock_guard guard(_lock);
    pool._asked_for = bytes;
    _hungry.push_back(pool);
    grant();
    if (_hungry.empty() || _pressure.load(std::memory_order_relaxed) != memory_pressure::none) return;
    _pressure.store(memory_pressure::tight, std::memory_order_relaxed);
    for (buffer_pool& other : _all) {
        if (!other._reclaim_sent.exchange(true)) other._thread.post(other._reclaim);
    }
}

bool buffer_budget::leave_line(buffer_pool& pool) noexcept {
    std::lock_guard guard(_lock);
    if (!static_cast<list_node<hungry_pools>&>(pool).linked()) return false;
    list<buffer_pool, hungry_pools>::remove(pool);
    grant();  // who stood behind may need less
    if (_hungry.empty()) _pressure.store(memory_pressure::none, std::memory_order_relaxed);
    return true;
}

void buffer_budget::starve(bool yes) noexcept {
    std::lock_guard guard(_lock);
    if (_hungry.empty()) return;
    _pressure.store(yes ? memory_pressure::starving : memory_pressure::tight, std::memory_order_relaxed);
}

void buffer_budget::grant() noexcept {
    while (!_hungry.empty() && fits(_hungry.front()._asked_for)) {
        buffer_pool& next = *_hungry.pop_front();
        _used += next._asked_for;
        next._thread.post(next._grant);
        _pressure.store(_hungry.empty() ? memory_pressure::none : memory_pressure::tight, std::memory_order_relaxed);
    }
}

}  // namespace varve::thread
