// Walks scattered memory piece by piece.
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace varve::bdev {

class iov_cursor {
  public:
    iov_cursor() noexcept = default;
    iov_cursor(const iovec* at, uint32_t count) noexcept : _at(at), _left(count) {}

    // Writes the next `bytes` bytes as at most out.size() iovecs and moves on. Returns how many it wrote, and in
    // `bytes` what they hold: less than asked when `out` or the memory ends first.
    uint32_t take(std::span<iovec> out, uint64_t& bytes) noexcept {
        uint64_t wanted = bytes;
        uint32_t used = 0;
        while (wanted > 0 && _left > 0 && used < out.size()) {
            std::size_t here = std::min<uint64_t>(_at->iov_len - _offset, wanted);
            if (here > 0) {
                out[used++] = {static_cast<std::byte*>(_at->iov_base) + _offset, here};
                wanted -= here;
                _offset += here;
            }
            if (_offset == _at->iov_len) {
                ++_at;
                --_left;
                _offset = 0;
            }
        }
        bytes -= wanted;
        return used;
    }
    // Between here and contiguous memory; moves on. False: the memory ended first (or is not equal).
    bool gather(std::byte* to, uint64_t bytes) noexcept {
        return each(bytes, [&](std::byte* here, std::size_t n) {
            std::memcpy(to, here, n);
            to += n;
            return true;
        });
    }
    bool scatter(const std::byte* from, uint64_t bytes) noexcept {
        return each(bytes, [&](std::byte* here, std::size_t n) {
            std::memcpy(here, from, n);
            from += n;
            return true;
        });
    }
    bool equal(const std::byte* to, uint64_t bytes) noexcept {
        return each(bytes, [&](const std::byte* here, std::size_t n) {
            bool same = std::memcmp(here, to, n) == 0;
            to += n;
            return same;
        });
    }

  private:
    template <class Function>
    bool each(uint64_t bytes, Function f) noexcept {
        iovec piece;
        while (bytes > 0) {
            uint64_t here = bytes;
            if (take({&piece, 1}, here) == 0) return false;
            if (!f(static_cast<std::byte*>(piece.iov_base), piece.iov_len)) return false;
            bytes -= here;
        }
        return true;
    }

    const iovec* _at = nullptr;
    uint32_t _left = 0;
    std::size_t _offset = 0;  // in *_at
};

}  // namespace varve::bdev
