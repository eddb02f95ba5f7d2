#include "accel/crc64.h"

#include <isa-l/crc64.h>

namespace varve::accel {

uint64_t crc64_iso(std::span<const std::byte> bytes, uint64_t before) noexcept {
    return crc64_iso_refl(before, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
}

}  // namespace varve::accel
