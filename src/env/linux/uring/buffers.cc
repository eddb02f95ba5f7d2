#include "env/linux/uring/buffers.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstddef>

#include "util/assert.h"

namespace varve::env::os_linux::uring {
namespace {

// As the kernel has it; the headers of Debian 12 call `flags` padding.
struct ring_registration {
    uint64_t address;
    uint32_t entries;
    uint16_t group;
    uint16_t flags;
    uint64_t reserved[3];
};
static_assert(sizeof(ring_registration) == sizeof(io_uring_buf_reg));
constexpr uint16_t ring_incremental = 2;         // IOU_PBUF_RING_INC
constexpr uint32_t answer_buffer_more = 1 << 4;  // IORING_CQE_F_BUF_MORE

struct shape {
    unsigned count;
    std::size_t each;
    unsigned first_lent;
};
constexpr shape incremental_shape{64, 64 << 10, 4}, plain_shape{256, 16 << 10, 16};

uint16_t id_of(uint32_t flags) noexcept { return static_cast<uint16_t>(flags >> IORING_CQE_BUFFER_SHIFT); }

}  // namespace

buffers::buffers(bool incremental) noexcept
    : _incremental(incremental),
      _count(incremental ? incremental_shape.count : plain_shape.count),
      _each(incremental ? incremental_shape.each : plain_shape.each) {}

result<std::unique_ptr<buffers>> buffers::make(ring& with, bool incremental) {
    std::unique_ptr<buffers> made(new buffers(incremental));
    VARVE_TRY(made->map());
    ring_registration wanted = {};
    wanted.address = reinterpret_cast<uint64_t>(made->_ring);
    wanted.entries = made->_count;
    wanted.group = group;
    wanted.flags = incremental ? ring_incremental : 0;
    if (int failure = with.register_with(IORING_REGISTER_PBUF_RING, &wanted, 1); failure < 0) {
        return fail(errc::unsupported, "io_uring's provided buffers");
    }
    unsigned first = incremental ? incremental_shape.first_lent : plain_shape.first_lent;
    while (made->_lent < first) made->lend(static_cast<uint16_t>(made->_lent++));
    made->publish();
    return made;
}

result<> buffers::map() {
    auto reserve = [](std::size_t size) {
        void* at = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        return at == MAP_FAILED ? nullptr : at;
    };
    _ring = static_cast<io_uring_buf*>(reserve(_count * sizeof(io_uring_buf)));
    _memory = static_cast<std::byte*>(reserve(_count * _each));
    if (_ring == nullptr || _memory == nullptr) return fail(errc::no_memory, "receive buffers");
    if (_incremental) _filled.resize(_count);
    return {};
}

buffers::~buffers() {
    if (_ring != nullptr) ::munmap(_ring, _count * sizeof(io_uring_buf));
    if (_memory != nullptr) ::munmap(_memory, _count * _each);
}

std::span<const std::byte> buffers::bytes_of(int32_t outcome, uint32_t flags) const noexcept {
    if ((flags & IORING_CQE_F_BUFFER) == 0) return {};
    uint16_t id = id_of(flags);
    VARVE_ASSERT(id < _lent);
    std::size_t from = _incremental ? _filled[id] : 0;
    return {at(id) + from, static_cast<std::size_t>(std::max(outcome, 0))};
}

void buffers::release(int32_t outcome, uint32_t flags) noexcept {
    if ((flags & IORING_CQE_F_BUFFER) == 0) return;
    uint16_t id = id_of(flags);
    if (_incremental && (flags & answer_buffer_more) != 0) {
        _filled[id] += static_cast<uint32_t>(std::max(outcome, 0));
    } else {
        lend(id);
    }
}

void buffers::lend(uint16_t id) noexcept {
    if (_incremental) _filled[id] = 0;
    io_uring_buf& entry = _ring[_tail & (_count - 1)];
    entry.addr = reinterpret_cast<uint64_t>(at(id));
    entry.len = static_cast<uint32_t>(_each);
    entry.bid = id;
    ++_tail;
    _unpublished = true;
}

void buffers::grow() noexcept {
    unsigned wanted = std::min(_count, _lent * 2);
    while (_lent < wanted) lend(static_cast<uint16_t>(_lent++));
}

void buffers::publish() noexcept {
    if (!_unpublished) return;
    _unpublished = false;
    // The ring's tail lies in the first entry, where that has padding.
    auto* tail = reinterpret_cast<uint16_t*>(reinterpret_cast<std::byte*>(_ring) + offsetof(io_uring_buf_ring, tail));
    std::atomic_ref(*tail).store(_tail, std::memory_order_release);
}

}  // namespace varve::env::os_linux::uring
