// Block I/O for coroutines: metadata, tests, tools. The request lies in the awaiting frame; nothing is allocated.
//
//   co_await read(*channel, lba, page.bytes());
#pragma once

#include <coroutine>
#include <span>
#include <string_view>

#include "bdev/channel.h"
#include "thread/task.h"
#include "util/result.h"

namespace varve::bdev {

// The error that a status is for people and RPC; `ok` is not an error.
errc code_of(status s) noexcept;
std::string_view text_of(status s) noexcept;
std::string_view name_of(op o) noexcept;  // "write_zeroes"

// What co_await submit(channel, r) waits for: gives the status, fails nothing.
class submission {
  public:
    submission(channel& on, io& r) noexcept : _on(on), _request(r) {}
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> waiter) noexcept {
        _waiter = waiter;
        _request.push([](io&, void* self) noexcept { static_cast<submission*>(self)->_waiter.resume(); }, this);
        _on.submit(_request);
    }
    status await_resume() const noexcept { return _request.status; }

  private:
    channel& _on;
    io& _request;
    std::coroutine_handle<> _waiter;
};
inline submission submit(channel& on, io& r) noexcept { return {on, r}; }

// Memory of whole blocks (`memory.size()` is a multiple of the block size); errors carry the operation and the range.
task<> read(channel& on, uint64_t lba, std::span<std::byte> memory);
task<> write(channel& on, uint64_t lba, std::span<const std::byte> memory, uint8_t flags = 0);
task<> compare(channel& on, uint64_t lba, std::span<const std::byte> memory);
task<> compare_and_write(channel& on, uint64_t lba, std::span<const std::byte> expected,
                         std::span<const std::byte> replacement);
task<> flush(channel& on);
task<> unmap(channel& on, uint64_t lba, uint32_t blocks);
task<> write_zeroes(channel& on, uint64_t lba, uint32_t blocks);
task<> copy(channel& on, uint64_t source, uint64_t lba, uint32_t blocks);
task<> reset(channel& on);
// The first block from `lba` on that may hold something, or that reads as zeroes; io::nowhere when there is none.
task<uint64_t> seek_data(channel& on, uint64_t lba);
task<uint64_t> seek_hole(channel& on, uint64_t lba);

}  // namespace varve::bdev
