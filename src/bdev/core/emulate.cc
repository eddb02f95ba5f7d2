#include "bdev/core/emulate.h"

#include "bdev/core/channel_core.h"
#include "bdev/core/device_state.h"
#include "env/system.h"
#include "thread/awaits.h"
#include "thread/runtime.h"

namespace varve::bdev {

// co_await one of these: a part of an emulated request, done by the device itself.
struct emulator::transfer {
    transfer(channel_core& on, op what, uint64_t lba, uint32_t blocks) noexcept : core(on) {
        request.operation = what;
        request.lba = lba;
        request.blocks = blocks;
    }
    transfer& data(std::byte* at, std::size_t bytes) noexcept {
        memory = {at, bytes};
        request.iov = &memory;
        request.iov_count = 1;
        return *this;
    }
    transfer& as(const io& whole) noexcept {
        request.flags = static_cast<uint8_t>(whole.flags & ~io::leave_memory);  // the memory is another
        request.submitted = whole.submitted;
        return *this;
    }
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> who) noexcept {
        waiter = who;
        request.push([](io&, void* self) noexcept { static_cast<transfer*>(self)->waiter.resume(); }, this);
        core.hand_down(request);
    }
    status await_resume() const noexcept { return request.status; }

    io request;
    iovec memory{};
    channel_core& core;
    std::coroutine_handle<> waiter;
};

void emulator::start(io& r, way how) {
    start_detached(run(r, how), [](const result<>&) {});
}

// Completes later: the completion may close the channel, which must not lie under this coroutine's feet then.
task<> emulator::run(io& r, way how) {
    status outcome = co_await (this->*how)(r);
    complete_later(r, outcome);
}

uint32_t emulator::fit(op o, uint64_t lba, uint64_t blocks, std::size_t memory) const noexcept {
    uint64_t room = memory / _core.block_size();
    return _core.limits_of(o).fit(lba, std::min<uint64_t>(blocks, room));
}

// For all of a request or a part of it. Empty when there is no memory at all.
task<emulator::lent> emulator::borrow(const io& r) {
    semaphore::units unit = co_await _slots.acquire();
    const std::size_t block = _core.block_size(), most = std::max(buffer_size, block);
    auto memory = thread::scratch::get(std::min(most, r.blocks * block));
    if (!memory) co_return lent();
    co_return lent{std::move(unit), std::move(*memory)};
}

task<status> emulator::bounced(io& r) {
    lent buffer = co_await borrow(r);
    if (!buffer) co_return status::no_memory;
    iov_cursor memory(r.iov, r.iov_count);
    for (uint64_t done = 0; done < r.blocks;) {
        uint32_t blocks = fit(r.operation, r.lba + done, r.blocks - done, buffer.size());
        uint64_t bytes = uint64_t{blocks} * _core.block_size();
        iov_cursor from_here = memory;
        if (r.operation != op::read && !memory.gather(buffer.data(), bytes)) co_return status::invalid;
        transfer part(_core, r.operation, r.lba + done, blocks);
        if (r.metadata != nullptr) {
            part.request.metadata = static_cast<std::byte*>(r.metadata) + done * _core.metadata_size();
        }
        status s = co_await part.as(r).data(buffer.data(), bytes);
        if (s != status::ok) co_return s;
        if (r.operation == op::read) {
            memory = from_here;
            if (!memory.scatter(buffer.data(), bytes)) co_return status::invalid;
        }
        done += blocks;
    }
    co_return status::ok;
}

task<status> emulator::zeroed(io& r) {
    op how = r.operation == op::unmap && _core.offers(op::write_zeroes) ? op::write_zeroes : op::write;
    if (how == op::write && !_zeroes) {
        std::size_t size = std::max<std::size_t>(buffer_size, _core.block_size());
        result<env::buffer> made = _core.on.system().world().mem().allocate(size, 4096);
        if (!made) co_return status::no_memory;
        if (!_zeroes) _zeroes = std::move(*made);
    }
    for (uint64_t done = 0; done < r.blocks;) {
        std::size_t memory = how == op::write ? _zeroes.size() : SIZE_MAX;
        uint32_t blocks = fit(how, r.lba + done, r.blocks - done, memory);
        transfer part(_core, how, r.lba + done, blocks);
        if (how == op::write) part.data(_zeroes.data(), std::size_t{blocks} * _core.block_size());
        status s = co_await part.as(r);
        if (s != status::ok) co_return s;
        done += blocks;
    }
    co_return status::ok;
}

task<status> emulator::compare_range(uint64_t lba, uint32_t count, iov_cursor& with, std::byte* buffer,
                                     std::size_t size) {
    for (uint64_t done = 0; done < count;) {
        uint32_t blocks = fit(op::read, lba + done, count - done, size);
        std::size_t bytes = std::size_t{blocks} * _core.block_size();
        transfer part(_core, op::read, lba + done, blocks);
        status s = co_await part.data(buffer, bytes);
        if (s != status::ok) co_return s;
        if (!with.equal(buffer, bytes)) co_return status::compare_failed;
        done += blocks;
    }
    co_return status::ok;
}

task<status> emulator::compared(io& r) {
    lent buffer = co_await borrow(r);
    if (!buffer) co_return status::no_memory;
    iov_cursor with(r.iov, r.iov_count);
    co_return co_await compare_range(r.lba, r.blocks, with, buffer.data(), buffer.size());
}

// Writers to the range are kept away by its lock. The expected blocks come first in the memory, their replacement
// after.
task<status> emulator::compared_and_written(io& r) {
    lent buffer = co_await borrow(r);
    if (!buffer) co_return status::no_memory;
    iov_cursor memory(r.iov, r.iov_count);
    status equal = co_await compare_range(r.lba, r.blocks, memory, buffer.data(), buffer.size());
    if (equal != status::ok) co_return equal;
    for (uint64_t done = 0; done < r.blocks;) {
        uint32_t blocks = fit(op::write, r.lba + done, r.blocks - done, buffer.size());
        uint64_t bytes = uint64_t{blocks} * _core.block_size();
        if (!memory.gather(buffer.data(), bytes)) co_return status::invalid;
        transfer part(_core, op::write, r.lba + done, blocks);
        status s = co_await part.as(r).data(buffer.data(), bytes);
        if (s != status::ok) co_return s;
        done += blocks;
    }
    co_return status::ok;
}

void emulator::compare_and_write(io& r) {
    start_detached(run_alone(r), [](const result<>&) {});
}

task<> emulator::run_alone(io& r) {
    device_state& device = _core.device;
    block_range range{r.lba, r.lba + r.blocks - 1};
    uint64_t lock = co_await call_on(device.app(), [&device, range] { return device.lock(range); });
    if (_core.is_closed()) {  // frozen or gone meanwhile: it starts again when the gate opens
        device.unlock_later(lock);
        _core.resubmit(r);
        co_return;
    }
    _core.begin(r);
    status outcome = co_await compared_and_written(r);
    device.unlock_later(lock);
    complete_later(r, outcome);
}

// Between the device and a buffer that holds it all, for `r`.
task<status> emulator::moved(const io& r, op how, uint64_t lba, uint64_t blocks, std::byte* buffer) {
    for (uint64_t done = 0; done < blocks;) {
        uint32_t count = fit(how, lba + done, blocks - done, SIZE_MAX);
        transfer part(_core, how, lba + done, count);
        status s =
            co_await part.as(r).data(buffer + done * _core.block_size(), std::size_t{count} * _core.block_size());
        if (s != status::ok) co_return s;
        done += count;
    }
    co_return status::ok;
}

task<status> emulator::copied(io& r) {
    lent buffer = co_await borrow(r);
    if (!buffer) co_return status::no_memory;
    // Backwards when forwards would overwrite what is still to be read.
    bool backwards = r.lba > r.source_lba && r.lba < r.source_lba + r.blocks;
    for (uint64_t done = 0; done < r.blocks;) {
        uint64_t room = buffer.size() / _core.block_size();
        uint64_t blocks = std::min<uint64_t>(r.blocks - done, room);
        uint64_t at = backwards ? r.blocks - done - blocks : done;
        status s = co_await moved(r, op::read, r.source_lba + at, blocks, buffer.data());
        if (s == status::ok) s = co_await moved(r, op::write, r.lba + at, blocks, buffer.data());
        if (s != status::ok) co_return s;
        done += blocks;
    }
    co_return status::ok;
}

}  // namespace varve::bdev
