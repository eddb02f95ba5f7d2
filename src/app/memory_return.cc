#include "app/memory_return.h"

#include <malloc.h>

#include <array>
#include <atomic>
#include <cstdlib>

#include "thread/frame_pool.h"

namespace varve::app {

namespace {

constexpr time_ns quiet = 1 * seconds;
constexpr std::size_t worth_it = 256 * 1024;  // bytes

// glibc keeps up to seven freed blocks of each small size for every thread, wherever they lie, and one keeps a page
// from going back. They change places with others, which lie together, taken when the rest is free. (Atomic: compilers
// leave out blocks that nobody looks at.)
void renew_cache() noexcept {
    constexpr std::size_t largest = 1032, step = 16, kept = 7;
    for (std::size_t size = step + 8; size <= largest; size += step) {
        std::array<std::atomic<void*>, kept> old{}, fresh{};
        for (auto& p : old) p.store(std::malloc(size), std::memory_order_relaxed);
        for (auto& p : fresh) p.store(std::malloc(size), std::memory_order_relaxed);
        for (auto& p : fresh) std::free(p.load(std::memory_order_relaxed));
        for (auto& p : old) std::free(p.load(std::memory_order_relaxed));
    }
}

}  // namespace

memory_return::memory_return(thread::runtime& threads) noexcept : _threads(threads), _quiet(_due) {
    _due.of = this;
    _due.run = [](work& w) noexcept {
        memory_return& me = *static_cast<due&>(w).of;
        me._running.spawn(me.give_back(), [](const error&) {});
    };
}

void memory_return::put_off() noexcept {
    if (!_running.closed()) _quiet.start(quiet);
}

task<> memory_return::end() {
    _quiet.cancel();
    co_await _running.close();
}

task<> memory_return::give_back() {
    co_await _threads.for_each_thread([](thread::thread&) {
        thread::release_frames();
        renew_cache();
    });
    if (::mallinfo2().fordblks >= worth_it) ::malloc_trim(0);
}

}  // namespace varve::app
