#include "env/sim/fiber.h"

#include <cstdint>
#include <utility>

#include "util/assert.h"

#if __has_feature(address_sanitizer)
#include <sanitizer/common_interface_defs.h>
#define VARVE_ASAN 1
#else
#define VARVE_ASAN 0
#endif
#if __has_feature(thread_sanitizer)
#include <sanitizer/tsan_interface.h>
#define VARVE_TSAN 1
#else
#define VARVE_TSAN 0
#endif

namespace varve::env::sim {

fiber::fiber(std::move_only_function<void()> body)
    : _body(std::move(body)), _stack(std::make_unique_for_overwrite<std::byte[]>(stack_size)) {
#if VARVE_TSAN
    _tsan_mine = __tsan_create_fiber(0);
#endif
}

fiber::~fiber() {
    VARVE_ASSERT(_ended || !_started);
#if VARVE_TSAN
    __tsan_destroy_fiber(_tsan_mine);
#endif
}

void fiber::enter(unsigned high, unsigned low) {
    auto address = (static_cast<uintptr_t>(high) << 32) | low;
    reinterpret_cast<fiber*>(address)->body();
}

void fiber::body() {
#if VARVE_ASAN
    __sanitizer_finish_switch_fiber(nullptr, &_resumer_stack, &_resumer_stack_size);
#endif
    _body();
    _body = nullptr;  // what it captured goes while the stack is still its own
    _ended = true;
#if VARVE_ASAN
    __sanitizer_start_switch_fiber(nullptr, _resumer_stack, _resumer_stack_size);
#endif
#if VARVE_TSAN
    __tsan_switch_to_fiber(_tsan_resumer, 0);
#endif
    setcontext(&_resumer);
    __builtin_unreachable();
}

void fiber::resume() {
    VARVE_ASSERT(!_ended);
    if (!std::exchange(_started, true)) {
        VARVE_ASSERT(getcontext(&_mine) == 0);
        _mine.uc_stack.ss_sp = _stack.get();
        _mine.uc_stack.ss_size = stack_size;
        _mine.uc_link = nullptr;
        auto address = reinterpret_cast<uintptr_t>(this);
        makecontext(&_mine, reinterpret_cast<void (*)()>(&fiber::enter), 2, static_cast<unsigned>(address >> 32),
                    static_cast<unsigned>(address));
    }
#if VARVE_ASAN
    void* resumer = nullptr;
    __sanitizer_start_switch_fiber(&resumer, _stack.get(), stack_size);
#endif
#if VARVE_TSAN
    _tsan_resumer = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(_tsan_mine, 0);
#endif
    VARVE_ASSERT(swapcontext(&_resumer, &_mine) == 0);
#if VARVE_ASAN
    __sanitizer_finish_switch_fiber(resumer, nullptr, nullptr);
#endif
}

void fiber::suspend() {
#if VARVE_ASAN
    __sanitizer_start_switch_fiber(&_asan_mine, _resumer_stack, _resumer_stack_size);
#endif
#if VARVE_TSAN
    __tsan_switch_to_fiber(_tsan_resumer, 0);
#endif
    VARVE_ASSERT(swapcontext(&_mine, &_resumer) == 0);
#if VARVE_ASAN
    __sanitizer_finish_switch_fiber(_asan_mine, &_resumer_stack, &_resumer_stack_size);
#endif
}

}  // namespace varve::env::sim
