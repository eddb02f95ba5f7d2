#include "blob/format/super.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "accel/crc32c.h"
#include "blob/format/page.h"

namespace varve::blob::format {

namespace {

constexpr std::size_t sealed_bytes = 508;        // of the first sector
constexpr uint32_t unit_before_recorded = 4096;  // io_unit_size and md_page_size of stores that do not say

uint32_t crc_of_page(const super_block_wire& w) noexcept {
    return accel::crc32c(std::as_bytes(std::span(&w, 1)).first(offsetof(super_block_wire, crc)));
}
uint32_t crc_of_sector(const super_block_wire& w) noexcept {
    return accel::crc32c(std::as_bytes(std::span(&w, 1)).first(sealed_bytes));
}

super_extension_wire extension_in(const super_block_wire& w) noexcept {
    super_extension_wire e;
    std::memcpy(&e, w.extension, sizeof e);
    return e;
}
bool has_extension(const super_extension_wire& e) noexcept {
    return std::string_view(e.magic, sizeof e.magic) == extension_magic && e.version == extension_version &&
           e.length == sizeof e;
}
bool sealed(const super_block_wire& w) noexcept {
    auto e = extension_in(w);
    return has_extension(e) && e.sector_crc == crc_of_sector(w);
}

result<super_origin> judge(const super_block_wire& w) {
    const uint32_t crc = crc_of_page(w);
    if (crc == w.crc) return !has_extension(extension_in(w)) || sealed(w) ? super_origin::whole : super_origin::foreign;
    if (sealed(w)) return super_origin::torn;
    super_block_wire flipped = w;
    flipped.clean = w.clean == 0 ? 1 : 0;
    if (w.clean <= 1 && crc_of_page(flipped) == w.crc) return super_origin::clean_flag_torn;
    return damaged(fmt::format("super block: crc is {:#010x}, its bytes make {:#010x}", w.crc.get(), crc));
}

std::optional<super_extension> decode_extension(const super_block_wire& w, const geometry& g) {
    const auto e = extension_in(w);
    if (!has_extension(e)) return std::nullopt;
    super_extension out;
    std::copy(std::begin(e.store_uuid), std::end(e.store_uuid), out.store.bytes.begin());
    out.sequence = e.super_sequence;
    out.next_stamp = e.next_stamp;
    out.masks_stamp = e.masks_stamp;
    const double_write_area area{e.double_write_first, e.double_write_slots, e.double_write_per_slot};
    // An area that cannot be is none: it costs protection against tears, not the store.
    if (area.slots == 1 && area.per_slot >= 2 && area.per_slot - 1 <= int{double_write_images_max} &&
        range_inside(area.first, area.page_count(), g.md.count))
        out.double_write = area;
    if (g.has_md_page(e.super_copy) && !out.double_write.holds(e.super_copy)) out.copy_page = e.super_copy;
    return out;
}

void encode_extension(const super_extension& in, super_block_wire& w) noexcept {
    super_extension_wire e = extension_in(w);
    if (!has_extension(e)) e = {};
    std::copy(extension_magic.begin(), extension_magic.end(), e.magic);
    e.version = extension_version;
    e.length = static_cast<uint16_t>(sizeof e);
    std::copy(in.store.bytes.begin(), in.store.bytes.end(), e.store_uuid);
    e.super_sequence = in.sequence;
    e.double_write_first = in.double_write.first;
    e.double_write_slots = in.double_write.slots;
    e.double_write_per_slot = in.double_write.per_slot;
    e.next_stamp = in.next_stamp;
    e.masks_stamp = in.masks_stamp;
    e.super_copy = in.copy_page;
    std::memcpy(w.extension, &e, sizeof e);
    e.sector_crc = crc_of_sector(w);
    std::memcpy(w.extension, &e, sizeof e);
}

// What the bytes say, out.raw being what they are to be kept as.
result<super_block> understood(super_block out, const device_shape& device) {
    const auto w = std::bit_cast<super_block_wire>(out.raw);
    if (w.version < version_min || w.version > version_max)
        return fail(errc::unsupported, fmt::format("super block: version is {}, known are {} to {}", w.version.get(),
                                                   version_min, version_max));
    out.version = w.version;
    out.clean = w.clean == 1 && out.origin != super_origin::clean_flag_torn && !out.flipped;
    out.super_blob = w.super_blob;
    std::copy(std::begin(w.type), std::end(w.type), out.type.begin());

    geometry g;
    g.size = {w.size == 0 ? device.size.value : w.size.get()};
    g.cluster_size = w.cluster_size;
    g.io_unit_size = w.io_unit_size == 0 ? unit_before_recorded : w.io_unit_size.get();
    g.md_page_size = w.md_page_size == 0 ? unit_before_recorded : w.md_page_size.get();
    g.page_mask = {w.used_page_mask_start, w.used_page_mask_length};
    g.cluster_mask = {w.used_cluster_mask_start, w.used_cluster_mask_length};
    g.blobid_mask = {w.used_blobid_mask_start, w.used_blobid_mask_length};
    g.md = {w.md_start, w.md_length};
    auto layout = checked(g, device);
    if (!layout) return std::unexpected(std::move(layout).error());
    out.layout = *layout;
    out.extension = decode_extension(w, out.layout);
    return out;
}

}  // namespace

std::string super_block::type_text() const {
    std::string text;
    for (char c : type) {
        if (c == 0) break;
        text += c >= ' ' && c <= '~' ? c : '.';
    }
    return text;
}

bool looks_like_super(page_view page) noexcept {
    return std::memcmp(page.data(), super_signature.data(), super_signature.size()) == 0;
}

bool super_crc_right(page_view page) noexcept {
    super_block_wire w;
    std::memcpy(&w, page.data(), sizeof w);
    return crc_of_page(w) == w.crc;
}

bool first_sector_sealed(page_view page) noexcept {
    super_block_wire w;
    std::memcpy(&w, page.data(), sizeof w);
    return sealed(w);
}

result<super_block> decode_super_unchecked(page_view page, const device_shape& device) {
    super_block out;
    std::copy(page.begin(), page.end(), out.raw.begin());
    return understood(std::move(out), device);
}

result<super_block> decode_super(page_view page, const device_shape& device) {
    super_block out;
    std::copy(page.begin(), page.end(), out.raw.begin());
    auto origin = judge(std::bit_cast<super_block_wire>(out.raw));
    if (!origin) {
        auto mended = without_flipped_bit(page);
        if (mended && looks_like_super(*mended)) {
            out.flipped = true;
            out.raw = *mended;
            origin = judge(std::bit_cast<super_block_wire>(out.raw));
        }
    }
    if (!looks_like_super(out.raw)) return damaged("super block: its signature is not SPDKBLOB");
    if (!origin) return std::unexpected(std::move(origin).error());
    out.origin = *origin;
    return understood(std::move(out), device);
}

page_bytes encode_super(const super_block& s) {
    auto w = std::bit_cast<super_block_wire>(s.raw);
    std::copy(super_signature.begin(), super_signature.end(), w.signature);
    w.version = s.version;
    w.length = static_cast<uint32_t>(page_size);
    w.clean = s.clean ? 1 : 0;
    w.super_blob = s.super_blob;
    w.cluster_size = s.layout.cluster_size;
    w.used_page_mask_start = s.layout.page_mask.first;
    w.used_page_mask_length = s.layout.page_mask.count;
    w.used_cluster_mask_start = s.layout.cluster_mask.first;
    w.used_cluster_mask_length = s.layout.cluster_mask.count;
    w.used_blobid_mask_start = s.layout.blobid_mask.first;
    w.used_blobid_mask_length = s.layout.blobid_mask.count;
    w.md_start = s.layout.md.first;
    w.md_length = s.layout.md.count;
    std::copy(s.type.begin(), s.type.end(), w.type);
    w.size = s.layout.size.value;
    w.io_unit_size = s.layout.io_unit_size;
    w.md_page_size = s.layout.md_page_size;
    if (s.extension) encode_extension(*s.extension, w);
    w.crc = crc_of_page(w);
    return std::bit_cast<page_bytes>(w);
}

super_block new_super(const geometry& layout, std::string_view type) {
    super_block s;
    s.layout = layout;
    std::copy_n(type.begin(), std::min(type.size(), s.type.size()), s.type.begin());
    return s;
}

}  // namespace varve::blob::format
