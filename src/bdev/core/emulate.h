// What a device does not do itself, made of what it does: memory that is not aligned goes through a bounce buffer,
// compare, copy, compare-and-write, unmap and write-zeroes become reads and writes. Coroutines on the channel's thread,
// a part at a time; their buffers are the thread's pool's, and when as many are in use as may be a request waits.
#pragma once

#include "bdev/core/iov_cursor.h"
#include "bdev/io.h"
#include "env/memory.h"
#include "thread/buffer_pool.h"
#include "thread/sync.h"
#include "thread/task.h"

namespace varve::bdev {

struct channel_core;

class emulator {
  public:
    explicit emulator(channel_core& core) noexcept : _core(core) {}

    // Take a request that was begun (channel_core::begin) and complete it; compare_and_write begins it itself, when it
    // has the range for itself.
    void bounce(io& r) { start(r, &emulator::bounced); }
    void zero(io& r) { start(r, &emulator::zeroed); }  // unmap and write_zeroes
    void compare(io& r) { start(r, &emulator::compared); }
    void copy(io& r) { start(r, &emulator::copied); }
    void compare_and_write(io& r);

    static constexpr std::size_t buffer_size = 128 * 1024, buffers = 16;

  private:
    // A buffer, and the right to have one.
    struct lent {
        semaphore::units unit;
        thread::scratch memory;
        explicit operator bool() const noexcept { return !memory.bytes().empty(); }
        std::byte* data() const noexcept { return memory.bytes().data(); }
        std::size_t size() const noexcept { return memory.bytes().size(); }
    };
    struct transfer;

    using way = task<status> (emulator::*)(io&);
    void start(io& r, way how);
    task<> run(io& r, way how);
    task<> run_alone(io& r);
    task<status> bounced(io& r);
    task<status> zeroed(io& r);
    task<status> compared(io& r);
    task<status> compared_and_written(io& r);
    task<status> copied(io& r);
    task<status> moved(const io& r, op how, uint64_t lba, uint64_t blocks, std::byte* buffer);
    task<status> compare_range(uint64_t lba, uint32_t blocks, iov_cursor& with, std::byte* buffer, std::size_t size);
    task<lent> borrow(const io& r);
    uint32_t fit(op o, uint64_t lba, uint64_t blocks, std::size_t memory) const noexcept;

    channel_core& _core;
    semaphore _slots{buffers};
    env::buffer _zeroes;
};

}  // namespace varve::bdev
