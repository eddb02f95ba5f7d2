// What goes out in one send: PDU headers built in the batch's own memory, and pieces of the requests' data between
// them.
#pragma once

#include <cstring>
#include <memory>
#include <span>

#include "env/socket.h"
#include "util/assert.h"

namespace varve::nvme::host {

class send_batch : public env::send_op {
  public:
    void reserve(uint32_t memory_size, uint32_t pieces_max) {
        _memory = std::make_unique_for_overwrite<std::byte[]>(memory_size);
        _pieces = std::make_unique_for_overwrite<iovec[]>(pieces_max);
        _memory_size = memory_size;
        _pieces_max = pieces_max;
    }
    void clear() noexcept {
        _used = _count = 0;
        iov = _pieces.get();
        iov_count = 0;
    }
    bool empty() const noexcept { return _count == 0; }
    uint32_t free_pieces() const noexcept { return _pieces_max - _count; }
    bool fits(uint32_t bytes, uint32_t pieces) const noexcept {
        return bytes <= _memory_size - _used && pieces <= _pieces_max - _count;
    }

    // `size` bytes of the batch's memory, next in the stream; to be filled. One piece, or none when they continue the
    // last.
    std::byte* append(uint32_t size) noexcept {
        std::byte* at = _memory.get() + _used;
        _used += size;
        if (_count != 0 && end_of(_pieces[_count - 1]) == at) {
            _pieces[_count - 1].iov_len += size;
        } else {
            _pieces[_count++] = {at, size};
        }
        return at;
    }
    void append_outside(const iovec& piece) noexcept { _pieces[_count++] = piece; }
    void seal() noexcept {
        VARVE_ASSERT(_used <= _memory_size && _count <= _pieces_max);
        iov = _pieces.get();
        iov_count = _count;
    }

  private:
    // Data that happens to end where the memory goes on is not taken for a piece of it: compare whole pointers only.
    static std::byte* end_of(const iovec& piece) noexcept {
        return static_cast<std::byte*>(piece.iov_base) + piece.iov_len;
    }

    std::unique_ptr<std::byte[]> _memory;
    std::unique_ptr<iovec[]> _pieces;
    uint32_t _memory_size = 0, _pieces_max = 0;
    uint32_t _used = 0, _count = 0;
};

}  // namespace varve::nvme::host
