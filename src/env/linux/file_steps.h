// How a file operation is brought to its end: what to ask the kernel next, and what its answer means. Both loops and
// the blocking_threads use it, so that short transfers, refused zeroing and the end of the file behave alike
// everywhere.
#pragma once

#include <cstdint>

#include "env/file.h"

namespace varve::env::os_linux {

struct file_step {
    enum class verb : uint8_t { read, write, readv, writev, datasync, fallocate };
    verb what = verb::read;
    int descriptor = -1;
    void* memory = nullptr;  // read, write: the bytes; readv, writev: the first iovec
    uint64_t length = 0;     // read, write, fallocate: bytes; readv, writev: number of iovecs
    uint64_t offset = 0;
    int mode = 0;  // fallocate
};

// Bytes of zeroes to write from, for file systems that cannot zero a range. Costs no memory: never touched, all its
// pages are the kernel's one page of zeroes. One per system.
class zero_pages {
  public:
    static constexpr std::size_t size = 1 << 20;
    zero_pages();
    ~zero_pages();
    zero_pages(const zero_pages&) = delete;
    void* data() const noexcept { return _data; }  // null when there was no address space

  private:
    void* _data = nullptr;
};

// The next step of `op`, from op.progress on. The step refers to the op's iovecs.
file_step next_step(file_op& op, const zero_pages& zeroes) noexcept;

// Takes the kernel's answer (bytes or a negated errno). True: op.result is set, the operation is over.
bool take_answer(file_op& op, int64_t answer) noexcept;

// Does the step here and now, blocking; the kernel's answer.
int64_t perform(const file_step& step) noexcept;

}  // namespace varve::env::os_linux
