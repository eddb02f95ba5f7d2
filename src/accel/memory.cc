#include "accel/memory.h"

#include <algorithm>
#include <cstring>

namespace varve::accel {

namespace {

// Walks scattered bytes a contiguous piece at a time.
class cursor {
  public:
    explicit cursor(std::span<const iovec> pieces, std::size_t skip = 0) noexcept : _pieces(pieces) {
        settle();
        while (skip != 0 && left() != 0) {
            const std::size_t n = std::min(skip, left());
            advance(n);
            skip -= n;
        }
    }
    // Contiguous bytes here; 0 only at the end.
    std::size_t left() const noexcept { return _pieces.empty() ? 0 : _pieces.front().iov_len - _offset; }
    std::byte* at() const noexcept { return static_cast<std::byte*>(_pieces.front().iov_base) + _offset; }
    void advance(std::size_t n) noexcept {
        _offset += n;
        settle();
    }

  private:
    void settle() noexcept {
        while (!_pieces.empty() && _offset == _pieces.front().iov_len) {
            _pieces = _pieces.subspan(1);
            _offset = 0;
        }
    }
    std::span<const iovec> _pieces;
    std::size_t _offset = 0;
};

// Calls f(at a, at b, n) for each run contiguous on both sides, until one side ends or f says stop. Returns bytes done.
template <class F>
std::size_t pairwise(cursor a, cursor b, F f) noexcept {
    std::size_t total = 0;
    while (const std::size_t n = std::min(a.left(), b.left())) {
        if (!f(a.at(), b.at(), n)) break;
        a.advance(n);
        b.advance(n);
        total += n;
    }
    return total;
}

bool copy_run(std::byte* to, const std::byte* from, std::size_t n) noexcept {
    std::memcpy(to, from, n);
    return true;
}

}  // namespace

std::size_t total_length(std::span<const iovec> pieces) noexcept {
    std::size_t total = 0;
    for (const iovec& piece : pieces) total += piece.iov_len;
    return total;
}

std::size_t copy(std::span<const iovec> to, std::span<const std::byte> from, std::size_t skip) noexcept {
    cursor at(to, skip);
    const std::byte* source = from.data();
    std::size_t left = from.size();
    while (const std::size_t n = std::min(at.left(), left)) {
        std::memcpy(at.at(), source, n);
        at.advance(n);
        source += n;
        left -= n;
    }
    return from.size() - left;
}

std::size_t copy(std::span<std::byte> to, std::span<const iovec> from, std::size_t skip) noexcept {
    const iovec whole{to.data(), to.size()};
    return pairwise(cursor({&whole, 1}), cursor(from, skip), copy_run);
}

std::size_t copy(std::span<const iovec> to, std::span<const iovec> from) noexcept {
    return pairwise(cursor(to), cursor(from), copy_run);
}

void fill(std::span<const iovec> pieces, uint8_t value) noexcept {
    for (const iovec& piece : pieces)
        if (piece.iov_len != 0) std::memset(piece.iov_base, value, piece.iov_len);
}

bool all_zero(std::span<const std::byte> bytes) noexcept {
    // The first bytes by hand, then the rest against themselves shifted by that much.
    constexpr std::size_t head = 16;
    for (std::size_t i = 0; i < std::min(head, bytes.size()); ++i)
        if (bytes[i] != std::byte{0}) return false;
    return bytes.size() <= head || std::memcmp(bytes.data(), bytes.data() + head, bytes.size() - head) == 0;
}

bool equal(std::span<const iovec> a, std::span<const iovec> b) noexcept {
    bool same = true;
    pairwise(cursor(a), cursor(b), [&same](const std::byte* x, const std::byte* y, std::size_t n) {
        same = std::memcmp(x, y, n) == 0;
        return same;
    });
    return same;
}

}  // namespace varve::accel
