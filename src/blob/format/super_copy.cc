#include "blob/format/super_copy.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "accel/crc32c.h"
#include "blob/format/page.h"
#include "util/assert.h"

namespace varve::blob::format {

namespace {

super_copy_wire wire_of(page_view page) noexcept {
    super_copy_wire w;
    std::memcpy(&w, page.data(), sizeof w);
    return w;
}
bool is_whole(const super_copy_wire& w, page_view page) noexcept {
    return w.magic == super_copy_magic && w.inverted_crc == ~crc_of(page) && w.version == super_copy_version &&
           w.length == first_sector;
}

page_bytes with_sequence(const super_block& s, uint64_t sequence) noexcept {
    VARVE_ASSERT(s.extension && s.extension->copy_page != 0);
    auto super = std::bit_cast<super_block_wire>(encode_super(s));
    super_extension_wire e;
    std::memcpy(&e, super.extension, sizeof e);
    super.clean = 0;
    e.super_sequence = 0;
    e.next_stamp = 0;
    e.masks_stamp = 0;
    e.sector_crc = 0;
    std::memcpy(super.extension, &e, sizeof e);

    super_copy_wire w{};
    w.magic = super_copy_magic;
    w.not_in_chain = UINT32_MAX;
    w.version = super_copy_version;
    w.length = static_cast<uint16_t>(first_sector);
    w.own_page = s.extension->copy_page;
    w.sequence = sequence;
    std::ranges::copy(s.extension->store.bytes, w.store_uuid);
    std::memcpy(w.sector, &super, sizeof w.sector);
    w.next = no_page;
    w.inverted_crc = ~crc_of(std::bit_cast<page_bytes>(w));
    return std::bit_cast<page_bytes>(w);
}

}  // namespace

page_bytes encode_super_copy(const super_block& s) { return with_sequence(s, s.extension->sequence); }

result<super_copy> decode_super_copy(page_view page, const device_shape& device) {
    const super_copy_wire w = wire_of(page);
    if (!is_whole(w, page)) return damaged("not a copy of a super block");
    page_bytes raw{};
    std::memcpy(raw.data(), w.sector, sizeof w.sector);
    if (!looks_like_super(raw)) return damaged("copy of the super block: its signature is not SPDKBLOB");
    super_copy out{.own_page = w.own_page, .sequence = w.sequence, .super = {}};
    auto super = decode_super_unchecked(raw, device);
    if (!super) return std::unexpected(std::move(super).error());
    out.super = std::move(*super);
    const auto& e = out.super.extension;
    if (!e || e->copy_page != w.own_page || !std::ranges::equal(e->store.bytes, w.store_uuid))
        return damaged("copy of the super block: it contradicts itself");
    out.super.extension->sequence = w.sequence;
    return out;
}

bool says_the_same(page_view page, const super_block& s) noexcept {
    if (!s.extension || s.extension->copy_page == 0) return false;
    return std::ranges::equal(page, with_sequence(s, wire_of(page).sequence));
}

bool is_copy_of(page_view page, const uuid& store, uint32_t own_page) noexcept {
    const super_copy_wire w = wire_of(page);
    return is_whole(w, page) && w.own_page == own_page && std::ranges::equal(w.store_uuid, store.bytes);
}

bool has_copy_magic(page_view page) noexcept { return wire_of(page).magic == super_copy_magic; }

std::optional<uint32_t> place_super_copy(const bit_mask& used_pages) noexcept {
    if (used_pages.size() < pages_least_for_copy) return std::nullopt;
    for (uint32_t page = used_pages.size(); page-- > 1;)
        if (!used_pages.test(page)) return page;
    return std::nullopt;
}

}  // namespace varve::blob::format
