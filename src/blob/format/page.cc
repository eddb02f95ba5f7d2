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
