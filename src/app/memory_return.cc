#include "app/memory_return.h"

#include <malloc.h>

#include "thread/frame_pool.h"

namespace varve::app {

namespace {

constexpr time_ns quiet = 1 * seconds;
constexpr std::size_t worth_it = 256 * 1024;  // bytes

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
    co_await _threads.for_each_thread([](thread::thread&) { thread::release_frames(); });
    if (::mallinfo2().fordblks >= worth_it) ::malloc_trim(0);
}

}  // namespace varve::app
