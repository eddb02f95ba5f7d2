#include "accel/crc32c.h"

#include <isa-l/crc.h>

#include <algorithm>
#include <cstring>

namespace varve::accel {

namespace {

// ISA-L counts in int and leaves the two inversions to its caller.
uint32_t update(const std::byte* data, std::size_t size, uint32_t state) noexcept {
    constexpr std::size_t piece_max = std::size_t{1} << 30;
    while (size != 0) {
        const std::size_t n = std::min(size, piece_max);
        // The function reads only; its parameter lacks the const.
        auto* bytes = const_cast<unsigned char*>(reinterpret_cast<const unsigned char*>(data));  // NOLINT
        state = crc32_iscsi(bytes, static_cast<int>(n), state);
        data += n;
        size -= n;
    }
    return state;
}

}  // namespace

uint32_t crc32c(std::span<const std::byte> bytes, uint32_t before) noexcept {
    return ~update(bytes.data(), bytes.size(), ~before);
}

uint32_t crc32c(std::span<const iovec> pieces, uint32_t before) noexcept {
    uint32_t state = ~before;
    for (const iovec& piece : pieces)
        state = update(static_cast<const std::byte*>(piece.iov_base), piece.iov_len, state);
    return ~state;
}

uint32_t copy_crc32c(std::byte* to, std::span<const std::byte> from, uint32_t before) noexcept {
    // Small enough that the second pass finds the bytes in the first-level cache.
    constexpr std::size_t piece_max = 8192;
    uint32_t state = ~before;
    while (!from.empty()) {
        const std::size_t n = std::min(from.size(), piece_max);
        std::memcpy(to, from.data(), n);
        state = update(to, n, state);
        to += n;
        from = from.subspan(n);
    }
    return ~state;
}

}  // namespace varve::accel
