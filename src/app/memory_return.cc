#include "app/memory_return.h"

#include <malloc.h>

#include <cstdlib>
#include <utility>

#include "thread/frame_pool.h"

namespace varve::app {

namespace {

constexpr time_ns quiet = 1 * seconds;
constexpr std::size_t worth_it = 256 * 1024;  // bytes

constexpr std::size_t kept = 7;  // freed blocks of each small size: by glibc, for every thread
constexpr std::size_t smallest = 24, largest = 1032, step = 16;

struct block {
    block* next;
};
block* take(std::size_t size) noexcept {
    block* line = nullptr;
    for (std::size_t i = 0; i < kept; ++i) {
        auto* b = static_cast<block*>(std::malloc(size));
        if (b == nullptr) break;
        b->next = line;
        line = b;
    }
    return line;
}
void give(block* line) noexcept {
    while (line != nullptr) std::free(std::exchange(line, line->next));
}

// Those kept lie anywhere, and each keeps a page from going back. They change places with others, which lie together,
// taken when the rest is free.
void renew_cache() noexcept {
    for (std::size_t size = smallest; size <= largest; size += step) {
        block* scattered = take(size);
        block* together = take(size);
        give(together);
        give(scattered);
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
