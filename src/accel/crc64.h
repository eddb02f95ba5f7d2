// CRC-64 of ISO 3309 (polynomial 0x1b, reflected): the checksum of snapshots.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace varve::accel {

// Of `bytes` appended to what gave `before`.
uint64_t crc64_iso(std::span<const std::byte> bytes, uint64_t before = 0) noexcept;

}  // namespace varve::accel
