// The three masks (docs/ondisk-blobstore.md section 3) as bits in words: bit i is bit i % 64 of word i / 64, which is
// also the order on disk. SPDK's masks carry no checksum: they are hints of a clean unload, never proof.
#pragma once

#include <span>
#include <vector>

#include "blob/format/geometry.h"

namespace varve::blob::format {

class bit_mask {
  public:
    bit_mask() = default;
    explicit bit_mask(uint32_t bits) : _words((uint64_t{bits} + 63) / 64), _bits(bits) {}

    uint32_t size() const noexcept { return _bits; }
    bool test(uint32_t i) const noexcept { return i < _bits && (_words[i / 64] >> i % 64 & 1) != 0; }
    void set(uint32_t i) noexcept {
        if (i < _bits) _words[i / 64] |= uint64_t{1} << i % 64;
    }
    void reset(uint32_t i) noexcept {
        if (i < _bits) _words[i / 64] &= ~(uint64_t{1} << i % 64);
    }
    void set(uint32_t first, uint32_t count) noexcept;
    // All of [first, first + count) inside the mask and set.
    bool all(uint32_t first, uint32_t count) const noexcept;
    // None of [first, first + count) is set.
    bool none(uint32_t first, uint32_t count) const noexcept;
    uint64_t count() const noexcept;
    // The first bit from `from` on that is set; size() when there is none.
    uint32_t next(uint32_t from) const noexcept;
    std::span<const uint64_t> words() const noexcept { return _words; }
    std::span<uint64_t> words() noexcept { return _words; }
    bool operator==(const bit_mask&) const = default;

  private:
    std::vector<uint64_t> _words;
    uint32_t _bits = 0;
};

// Whoever reads a store keeps its masks in memory, several times over, and takes memory for nothing else that its super
// block alone says. no_memory: they are larger than those of any store there is.
result<> check_memory(const geometry& g);

// `bytes`: geometry::bytes_of_mask(). The header must have this type and at least `bits` bits (more, after a store's
// growth failed half way, is cut as SPDK does); bad_sequence otherwise. `grown`: the store may have become larger since
// its mask of clusters was written, as one that died may: the bits that this mask lacks are 0.
result<bit_mask> decode_mask(std::span<const std::byte> bytes, mask_type type, uint32_t bits, bool grown = false);

// Fills all of `out`, the region of the mask; out must have room (geometry from checked() says so).
void encode_mask(const bit_mask& mask, mask_type type, std::span<std::byte> out) noexcept;

std::string_view name_of(mask_type type) noexcept;  // "used_page_mask"

}  // namespace varve::blob::format
