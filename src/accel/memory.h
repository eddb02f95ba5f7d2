// Copying, filling and testing bytes, scattered or not.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>

namespace varve::accel {

std::size_t total_length(std::span<const iovec> pieces) noexcept;

// Bytes copied: as many as both sides have. `skip` bytes of the scattered side are left out first.
std::size_t copy(std::span<const iovec> to, std::span<const std::byte> from, std::size_t skip = 0) noexcept;
std::size_t copy(std::span<std::byte> to, std::span<const iovec> from, std::size_t skip = 0) noexcept;
std::size_t copy(std::span<const iovec> to, std::span<const iovec> from) noexcept;

void fill(std::span<const iovec> pieces, uint8_t value) noexcept;
bool all_zero(std::span<const std::byte> bytes) noexcept;
// Whether both sides have the same bytes, as far as the shorter goes.
bool equal(std::span<const iovec> a, std::span<const iovec> b) noexcept;

}  // namespace varve::accel
