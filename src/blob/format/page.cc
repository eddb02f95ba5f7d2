#include "blob/format/page.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "accel/crc32c.h"
#include "util/assert.h"

namespace varve::blob::format {

namespace {

md_page_wire wire_of(page_view page) noexcept {
    md_page_wire w;
    std::memcpy(&w, page.data(), sizeof w);
    return w;
}
template <class Wire>
Wire descriptor_at(page_view page, std::size_t offset) noexcept {
    Wire w;
    std::memcpy(&w, page.data() + offsetof(md_page_wire, descriptors) + offset, sizeof w);
    return w;
}
bool is_double_write_header(page_view page) noexcept {
    double_write_header_wire w;
    std::memcpy(&w, page.data(), sizeof w);
    return w.magic == double_write_magic && w.inverted_crc == ~crc_of(page);
}
bool is_super_copy(page_view page) noexcept {
    super_copy_wire w;
    std::memcpy(&w, page.data(), sizeof w);
    return w.magic == super_copy_magic && w.inverted_crc == ~crc_of(page);
}
auto wrong(uint32_t number, std::string_view what) { return damaged(fmt::format("page {}: {}", number, what)); }

}  // namespace

std::string_view name_of(page_content content) noexcept {
    switch (content) {
        case page_content::clear:
            return "clear";
        case page_content::damaged:
            return "damaged";
        case page_content::root:
            return "first page of a blob";
        case page_content::continuation:
            return "continuation";
        case page_content::extents:
            return "extent page";
        case page_content::double_write:
            return "double-write header";
        case page_content::super_copy:
            return "copy of the super block";
        case page_content::elsewhere:
            return "first page of a blob whose place is elsewhere";
    }
    return "?";
}

uint32_t crc_of(page_view page) noexcept { return accel::crc32c(page.first<offsetof(md_page_wire, crc)>()); }
bool crc_right(page_view page) noexcept { return wire_of(page).crc == crc_of(page); }
bool is_clear(page_view page) noexcept {
    // Each byte is as the one before it: the library compares with the widest instructions there are.
    return page[0] == std::byte{0} && std::memcmp(page.data(), &page[1], page.size() - 1) == 0;
}

page_header header_of(page_view page) noexcept {
    const auto w = wire_of(page);
    return {.id = w.id, .sequence = w.sequence, .stamp = w.stamp, .next = w.next};
}

glimpse look_at(page_view page, uint32_t number) noexcept {
    if (is_clear(page)) return {};
    glimpse out{.content = page_content::damaged, .header = header_of(page)};
    if (is_double_write_header(page))
        out.content = page_content::double_write;
    else if (is_super_copy(page))
        out.content = page_content::super_copy;
    else if (!crc_right(page))
        out.content = page_content::damaged;
    else if (out.header.sequence != 0)
        out.content = page_content::continuation;
    else if (descriptor_at<descriptor_header_wire>(page, 0).type == static_cast<uint8_t>(descriptor_type::extent_page))
        out.content = page_content::extents;
    else
        out.content = out.header.id == id_of_root_page(number) ? page_content::root : page_content::elsewhere;
    return out;
}

result<extent_page> decode_extent_page(page_view page, uint32_t number, const geometry& g) {
    const auto w = wire_of(page);
    if (w.crc != crc_of(page))
        return wrong(number, fmt::format("crc is {:#010x}, its bytes make {:#010x}", w.crc.get(), crc_of(page)));
    if (w.sequence != 0)
        return wrong(number, fmt::format("an extent page has sequence 0, this one {}", w.sequence.get()));
    if (w.next != no_page)
        return wrong(number, fmt::format("an extent page has no next page, this one {}", w.next.get()));
    const auto d = descriptor_at<extent_page_wire>(page, 0);
    if (d.header.type != static_cast<uint8_t>(descriptor_type::extent_page))
        return wrong(number, fmt::format("not an extent page: its first descriptor is of type {}", d.header.type));
    const uint64_t length = d.header.length;
    if (length < sizeof(le32) || length % sizeof(le32) != 0 ||
        length + sizeof(descriptor_header_wire) > descriptor_space)
        return wrong(number, fmt::format("extent page descriptor: length is {}", length));
    const std::size_t count = length / sizeof(le32) - 1;
    if (count > clusters_per_extent_page)
        return wrong(number, fmt::format("extent page descriptor: {} clusters, 512 are possible", count));
    if (d.first_cluster % clusters_per_extent_page != 0)
        return wrong(number, fmt::format("extent page descriptor: first cluster {} is no multiple of 512",
                                         d.first_cluster.get()));
    const std::size_t end = sizeof(descriptor_header_wire) + length;
    if (end + sizeof(descriptor_header_wire) <= descriptor_space &&
        descriptor_at<descriptor_header_wire>(page, end).length != 0)
        return wrong(number, "an extent page has one descriptor, this one more");
    extent_page out{.id = w.id, .stamp = w.stamp, .first_cluster = d.first_cluster, .clusters = {}};
    out.clusters.reserve(count);
    for (std::size_t i = 0; i < count; ++i) {
        const uint32_t cluster = descriptor_at<le32>(page, sizeof d + i * sizeof(le32));
        if (cluster != 0 && !g.has_data_cluster(cluster))
            return wrong(number,
                         fmt::format("cluster {} of the blob is at {}, data clusters are {} to {}",
                                     out.first_cluster + i, cluster, g.first_data_cluster, g.cluster_count - 1));
        out.clusters.push_back(cluster);
    }
    return out;
}

std::optional<page_bytes> without_flipped_bit(page_view page) noexcept {
    constexpr uint32_t polynomial = 0x82f63b78;  // of CRC-32C, reflected
    constexpr std::size_t bits = offsetof(md_page_wire, crc) * 8;
    const le32 computed = crc_of(page);
    const uint32_t syndrome = computed ^ wire_of(page).crc;
    if (syndrome == 0) return std::nullopt;
    page_bytes out;
    std::copy(page.begin(), page.end(), out.begin());
    if (std::has_single_bit(syndrome)) {  // in the checksum itself
        std::memcpy(out.data() + offsetof(md_page_wire, crc), &computed, sizeof computed);
        return out;
    }
    // What a flip of the last bit does to the checksum; each bit before it goes one step further through the register.
    uint32_t effect = polynomial;
    for (std::size_t at = bits; at-- > 0;) {
        if (effect == syndrome) {
            out[at / 8] ^= std::byte{1} << at % 8;
            return out;
        }
        effect = (effect >> 1) ^ ((effect & 1) != 0 ? polynomial : 0);
    }
    return std::nullopt;
}

result<salvaged_extent_page> salvage_extent_page(page_view page, uint32_t number, const geometry& g) {
    page_bytes copy;
    std::copy(page.begin(), page.end(), copy.begin());
    salvaged_extent_page out;
    const auto head = descriptor_at<extent_page_wire>(copy, 0);
    const std::size_t room = (descriptor_space - sizeof head) / sizeof(le32);
    const bool extents = head.header.type == static_cast<uint8_t>(descriptor_type::extent_page);
    for (std::size_t i = 0; extents && i < room && (i + 2) * sizeof(le32) <= head.header.length; ++i) {
        const uint32_t cluster = descriptor_at<le32>(copy, sizeof head + i * sizeof(le32));
        if (cluster == 0 || g.has_data_cluster(cluster)) continue;
        out.outside.push_back(i);
        std::memset(copy.data() + offsetof(md_page_wire, descriptors) + sizeof head + i * sizeof(le32), 0,
                    sizeof(le32));
    }
    const le32 crc = crc_of(copy);
    std::memcpy(copy.data() + offsetof(md_page_wire, crc), &crc, sizeof crc);
    auto decoded = decode_extent_page(copy, number, g);
    if (!decoded) return std::unexpected(std::move(decoded).error());
    out.page = std::move(*decoded);
    return out;
}

page_bytes encode_extent_page(const extent_page& in) {
    VARVE_ASSERT(in.clusters.size() <= clusters_per_extent_page);
    md_page_wire w{};
    w.id = in.id;
    w.stamp = in.stamp;
    w.next = no_page;
    extent_page_wire d{};
    d.header.type = static_cast<uint8_t>(descriptor_type::extent_page);
    d.header.length = static_cast<uint32_t>(sizeof(le32) * (1 + in.clusters.size()));
    d.first_cluster = in.first_cluster;
    std::memcpy(w.descriptors, &d, sizeof d);
    for (std::size_t i = 0; i < in.clusters.size(); ++i) {
        const le32 cluster = in.clusters[i];
        std::memcpy(w.descriptors + sizeof d + i * sizeof cluster, &cluster, sizeof cluster);
    }
    auto out = std::bit_cast<page_bytes>(w);
    w.crc = crc_of(out);
    return std::bit_cast<page_bytes>(w);
}

}  // namespace varve::blob::format
