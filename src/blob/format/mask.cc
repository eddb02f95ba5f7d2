#include "blob/format/mask.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "util/assert.h"

namespace varve::blob::format {

static_assert(std::endian::native == std::endian::little, "words of a mask are copied as they lie");

void bit_mask::set(uint32_t first, uint32_t count) noexcept {
    for (uint64_t i = first; i < uint64_t{first} + count && i < _bits;) {
        if (i % 64 == 0 && i + 64 <= std::min<uint64_t>(uint64_t{first} + count, _bits)) {
            _words[i / 64] = ~uint64_t{0};
            i += 64;
        } else {
            set(static_cast<uint32_t>(i++));
        }
    }
}

bool bit_mask::all(uint32_t first, uint32_t count) const noexcept {
    if (!range_inside(first, count, _bits)) return false;
    for (uint32_t i = 0; i < count; ++i)
        if (!test(first + i)) return false;
    return true;
}

bool bit_mask::none(uint32_t first, uint32_t count) const noexcept {
    const uint64_t end = std::min<uint64_t>(uint64_t{first} + count, _bits);
    for (uint64_t i = first; i < end;) {
        if (i % 64 == 0 && i + 64 <= end) {
            if (_words[i / 64] != 0) return false;
            i += 64;
        } else if (test(static_cast<uint32_t>(i++))) {
            return false;
        }
    }
    return true;
}

uint64_t bit_mask::count() const noexcept {
    uint64_t n = 0;
    for (uint64_t word : _words) n += static_cast<uint64_t>(std::popcount(word));
    return n;
}

uint32_t bit_mask::next(uint32_t from) const noexcept {
    if (from >= _bits) return _bits;
    std::size_t index = from / 64;
    for (uint64_t word = _words[index] & (~uint64_t{0} << from % 64);; word = _words[index]) {
        if (word != 0)
            return std::min(_bits, static_cast<uint32_t>(index * 64 + static_cast<unsigned>(std::countr_zero(word))));
        if (++index == _words.size()) return _bits;
    }
}

result<> check_memory(const geometry& g) {
    constexpr uint64_t mib = 1 << 20, masks_max = 256 * mib;  // a PiB in clusters of 1 MiB
    const uint64_t bytes = (2 * uint64_t{g.md.count} + g.cluster_count) / 8;
    if (bytes <= masks_max) return {};
    return fail(errc::no_memory, fmt::format("its masks are of {} MiB, more than {}", bytes / mib, masks_max / mib));
}

std::string_view name_of(mask_type type) noexcept {
    switch (type) {
        case mask_type::used_pages:
            return "used_page_mask";
        case mask_type::used_clusters:
            return "used_cluster_mask";
        case mask_type::used_blobids:
            return "used_blobid_mask";
    }
    return "unknown mask";
}

result<bit_mask> decode_mask(std::span<const std::byte> bytes, mask_type type, uint32_t bits, bool grown) {
    mask_header_wire header;
    if (bytes.size() < sizeof header) return damaged(fmt::format("{}: no room for a header", name_of(type)));
    std::memcpy(&header, bytes.data(), sizeof header);
    if (header.type != static_cast<uint8_t>(type))
        return damaged(fmt::format("{}: type is {}, not {}", name_of(type), header.type, static_cast<int>(type)));
    const uint64_t room = (bytes.size() - sizeof header) * 8;
    const bool clusters = type == mask_type::used_clusters;
    if ((header.length < bits && !(clusters && grown)) || bits > room)
        return damaged(fmt::format("{}: length is {} bits, wanted are {} in room for {}", name_of(type),
                                   header.length.get(), bits, room));
    if (!clusters && header.length != bits)
        return damaged(fmt::format("{}: length is {} bits, not {}", name_of(type), header.length.get(), bits));
    bit_mask out(bits);
    const uint32_t known = std::min<uint32_t>(bits, header.length);
    const std::size_t count = (std::size_t{known} + 7) / 8;
    if (count > 0) std::memcpy(out.words().data(), bytes.data() + sizeof header, count);
    if (known % 64 != 0) out.words()[known / 64] &= (uint64_t{1} << known % 64) - 1;
    return out;
}

void encode_mask(const bit_mask& mask, mask_type type, std::span<std::byte> out) noexcept {
    const std::size_t count = (std::size_t{mask.size()} + 7) / 8;
    VARVE_ASSERT(out.size() >= sizeof(mask_header_wire) + count);
    std::fill(out.begin(), out.end(), std::byte{0});
    const mask_header_wire header{.type = static_cast<uint8_t>(type), .length = mask.size()};
    std::memcpy(out.data(), &header, sizeof header);
    if (count > 0) std::memcpy(out.data() + sizeof header, mask.words().data(), count);
}

}  // namespace varve::blob::format
