#include "blob/disk.h"

#include <algorithm>

#include "bdev/awaits.h"
#include "env/system.h"
#include "thread/runtime.h"

namespace varve::blob {

disk::disk(bdev::registry& devices, bdev::descriptor base)
    : _devices(devices), _base(std::move(base)), _block_size(_base->block_size()), _channel(_base.channel()) {}

result<env::buffer> disk::memory(std::size_t bytes) const { return _devices.world().mem().allocate(bytes, 4096); }

uint64_t disk::block(uint64_t offset) const noexcept {
    VARVE_ASSERT(offset % _block_size == 0);
    return offset / _block_size;
}

task<> disk::read(uint64_t offset, std::span<std::byte> to) { return bdev::read(*_channel, block(offset), to); }

task<> disk::write(uint64_t offset, std::span<const std::byte> from) {
    return bdev::write(*_channel, block(offset), from);
}

task<> disk::copy(uint64_t from, uint64_t to, uint64_t length) {
    for (uint64_t done = 0; done < length;) {
        const uint64_t here = std::min(length - done, copy_bytes_max);
        co_await bdev::copy(*_channel, block(from + done), block(to + done), static_cast<uint32_t>(block(here)));
        done += here;
    }
}

task<> disk::flush() {
    if (!has_cache()) co_return;
    if (!_next) _next = std::make_shared<shared_flush>();
    const std::shared_ptr<shared_flush> mine = _next;
    {
        auto turn = co_await _flushing.lock();
        if (!mine->over) {
            _next = nullptr;  // who comes from now on is too late for this one
            ++_flushes;
            result<> outcome = co_await as_result(bdev::flush(*_channel));
            mine->over = true;
            if (!outcome) {
                mine->failed = std::move(outcome).error();
                ++_flushes_failed;
                if (_on_failed_flush) _on_failed_flush();
            }
        }
    }
    if (mine->failed) co_await fail(error(*mine->failed));
}

task<> disk::flush_since(uint64_t failed) {
    co_await flush();
    if (failed != _flushes_failed) co_await fail(errc::io, "a flush has failed, and what was written may be lost");
}

task<> disk::write_durably(uint64_t offset, std::span<const std::byte> from) {
    const uint64_t since = _flushes_failed;
    co_await write(offset, from);
    co_await flush_since(since);
}

task<> disk::zero(uint64_t offset, uint64_t length) {
    return unmap_zeroes() ? unmap(offset, length) : write_zeroes(offset, length);
}

task<> disk::write_zeroes(uint64_t offset, uint64_t length) {
    for (uint64_t end = offset + length; offset < end;) {
        uint64_t here = std::min(end - offset, zero_bytes_max);
        co_await bdev::write_zeroes(*_channel, block(offset), static_cast<uint32_t>(block(here)));
        offset += here;
    }
}

task<> disk::unmap(uint64_t offset, uint64_t length) {
    for (uint64_t end = offset + length; offset < end;) {
        uint64_t here = std::min(end - offset, zero_bytes_max);
        co_await bdev::unmap(*_channel, block(offset), static_cast<uint32_t>(block(here)));
        offset += here;
    }
}

task<uint64_t> disk::next_data(uint64_t offset) {
    const uint64_t found = co_await bdev::seek_data(*_channel, block(offset));
    co_return found == bdev::io::nowhere ? nowhere : found* _block_size;
}

task<uint64_t> disk::next_hole(uint64_t offset) {
    const uint64_t found = co_await bdev::seek_hole(*_channel, block(offset));
    co_return found == bdev::io::nowhere ? nowhere : found* _block_size;
}

}  // namespace varve::blob
