// A program of a simulation: straight code on a stack of its own that the scheduler resumes when what it waits for has
// come. This is how several systems, whose run() blocks, live in one process under one scheduler without OS threads.
#pragma once

#include <ucontext.h>

#include <cstddef>
#include <functional>
#include <memory>

namespace varve::env::sim {

class fiber {
  public:
    explicit fiber(std::move_only_function<void()> body);
    ~fiber();  // never started, or ended
    fiber(const fiber&) = delete;

    // From the scheduler's stack: runs until the fiber suspends itself or ends.
    void resume();
    // From inside: back to whoever resumed it.
    void suspend();
    bool ended() const noexcept { return _ended; }

  private:
    static void enter(unsigned high, unsigned low);
    void body();

    static constexpr std::size_t stack_size = 1 << 20;  // of address space; pages never touched cost nothing
    std::move_only_function<void()> _body;
    std::unique_ptr<std::byte[]> _stack;
    ucontext_t _mine{}, _resumer{};
    bool _started = false, _ended = false;
    // For the sanitizers, which must know which stack is in use.
    [[maybe_unused]] void* _asan_mine = nullptr;
    [[maybe_unused]] const void* _resumer_stack = nullptr;
    [[maybe_unused]] std::size_t _resumer_stack_size = 0;
    [[maybe_unused]] void* _tsan_mine = nullptr;
    [[maybe_unused]] void* _tsan_resumer = nullptr;
};

}  // namespace varve::env::sim
