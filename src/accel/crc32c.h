// CRC-32C (Castagnoli; RFC 3720 B.4): the checksum of NVMe/TCP and iSCSI digests and of on-disk metadata.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>

namespace varve::accel {

// Of `bytes` appended to what gave `before`: crc32c(b, crc32c(a)) is the checksum of a and b together.
uint32_t crc32c(std::span<const std::byte> bytes, uint32_t before = 0) noexcept;
uint32_t crc32c(std::span<const iovec> pieces, uint32_t before = 0) noexcept;

// Copies and returns the checksum of what was copied; each cache line is fetched once.
uint32_t copy_crc32c(std::byte* to, std::span<const std::byte> from, uint32_t before = 0) noexcept;

}  // namespace varve::accel
