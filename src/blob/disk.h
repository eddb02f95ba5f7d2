// The device a store lies on, in bytes, for the store's thread: metadata, clearing, copying. Data of volumes goes
// through channels of its own (channel.h).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "bdev/registry.h"
#include "env/memory.h"
#include "thread/gate.h"
#include "thread/sync.h"
#include "thread/task.h"

namespace varve::blob {

// Several tasks at once; all are waited for, and the first error becomes the error of done().
//
//   crew all;
//   for (...) all.start(read(...));
//   co_await all.done();                nothing that can fail between start and done: a crew must be waited for
class crew {
  public:
    void start(task<> t) {
        _gate.spawn(std::move(t), [this](error e) {
            if (!_failed) _failed = std::move(e);
        });
    }
    bool failed() const noexcept { return _failed.has_value(); }
    task<> done() {
        co_await _gate.close();
        if (_failed) co_await fail(std::move(*_failed));
    }

  private:
    gate _gate;
    std::optional<error> _failed;
};

class disk {
  public:
    disk(bdev::registry& devices, bdev::descriptor base);

    // Gives the device back.
    bdev::descriptor close() && {
        _channel = {};
        return std::move(_base);
    }

    bdev::device& device() const noexcept { return *_base; }
    bdev::channel_ref open_channel() const { return _base.channel(); }
    uint32_t block_size() const noexcept { return _block_size; }
    uint64_t size() const noexcept { return _base->num_blocks() * _block_size; }
    // What was written is safe only after a flush.
    bool has_cache() const noexcept { return _base->props().write_cache; }
    // Unmapping makes zeroes.
    bool unmap_zeroes() const noexcept { return _base->props().unmap_zeroes && _base->offers(bdev::op::unmap); }
    // Zeroed memory that every device takes as it is. errc::no_memory.
    result<env::buffer> memory(std::size_t bytes) const;

    // Offsets and lengths are multiples of the block size, or programmer errors.
    task<> read(uint64_t offset, std::span<std::byte> to);
    task<> write(uint64_t offset, std::span<const std::byte> from);
    // By the device itself where it can, in pieces of at most `copy_bytes_max`: others who ask something of the device
    // meanwhile wait for that much of each copy.
    task<> copy(uint64_t from, uint64_t to, uint64_t length);
    static constexpr uint64_t copy_bytes_max = 128 << 10;
    // Nothing when the device has no cache. When it fails, what was written since the last that succeeded may be lost,
    // also if the next succeeds: Linux tells of an error once. So every flush of the device goes through here, one at a
    // time, and flushes_failed() is true before anybody can rely on a later one; who comes while one is under way
    // shares the next.
    task<> flush();
    // The same, and errc::io also when more have failed by then than `failed`: for whoever counted them before he
    // wrote.
    task<> flush_since(uint64_t failed);
    // A write and a flush; errc::io also when somebody else's has failed between them.
    task<> write_durably(uint64_t offset, std::span<const std::byte> from);
    uint64_t flushes_failed() const noexcept { return _flushes_failed; }
    // `what` is done as soon as one has, before anybody who waits for it goes on.
    void on_failed_flush(std::function<void()> what) { _on_failed_flush = std::move(what); }
    // Zeroes, by unmapping if that makes them: in pieces of at most `zero_bytes_max`.
    task<> zero(uint64_t offset, uint64_t length);
    task<> unmap(uint64_t offset, uint64_t length);
    // From `offset` on: what may hold something, or the first that certainly reads as zeroes; nowhere: there is none.
    task<uint64_t> next_data(uint64_t offset);
    task<uint64_t> next_hole(uint64_t offset);
    static constexpr uint64_t nowhere = UINT64_MAX;
    task<> write_zeroes(uint64_t offset, uint64_t length);
    static constexpr uint64_t zero_bytes_max = 256 << 20;

    uint64_t flushes() const noexcept { return _flushes; }

  private:
    uint64_t block(uint64_t offset) const noexcept;

    bdev::registry& _devices;
    bdev::descriptor _base;
    const uint32_t _block_size;
    bdev::channel_ref _channel;
    struct shared_flush {
        bool over = false;
        std::optional<error> failed;
    };
    mutex _flushing;
    std::shared_ptr<shared_flush> _next;  // has not begun
    std::function<void()> _on_failed_flush;
    uint64_t _flushes = 0, _flushes_failed = 0;
};

}  // namespace varve::blob
