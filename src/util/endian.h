// Integers as they lie on the wire or on disk: fixed byte order, alignment 1, so structures of them need no packing.
#pragma once

#include <bit>
#include <compare>
#include <cstdint>
#include <cstring>

namespace varve {

template <class T, std::endian Order>
class wire_integer {
  public:
    wire_integer() = default;
    constexpr wire_integer(T value) noexcept { *this = value; }  // NOLINT: meant to be implicit
    constexpr wire_integer& operator=(T value) noexcept {
        if constexpr (Order != std::endian::native) value = std::byteswap(value);
        _bytes = std::bit_cast<bytes>(value);
        return *this;
    }
    constexpr operator T() const noexcept { return get(); }  // NOLINT: meant to be implicit
    constexpr T get() const noexcept {
        T value = std::bit_cast<T>(_bytes);
        if constexpr (Order != std::endian::native) value = std::byteswap(value);
        return value;
    }

  private:
    struct bytes {
        unsigned char data[sizeof(T)];
    };
    bytes _bytes;
};

using le16 = wire_integer<uint16_t, std::endian::little>;
using le32 = wire_integer<uint32_t, std::endian::little>;
using le64 = wire_integer<uint64_t, std::endian::little>;
using be16 = wire_integer<uint16_t, std::endian::big>;
using be32 = wire_integer<uint32_t, std::endian::big>;
using be64 = wire_integer<uint64_t, std::endian::big>;

static_assert(sizeof(le64) == 8 && alignof(le64) == 1 && std::is_trivially_copyable_v<le64>);

}  // namespace varve
