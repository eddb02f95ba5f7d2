#include "blob/format/geometry.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>

namespace varve::blob::format {

namespace {

constexpr uint64_t divide_up(uint64_t a, uint64_t b) noexcept { return (a + b - 1) / b; }

uint64_t pages_of_mask(uint64_t bits, uint32_t md_page_size) noexcept {
    return divide_up(sizeof(mask_header_wire) + divide_up(bits, 8), md_page_size);
}
uint64_t bits_in(page_range region, uint32_t md_page_size) noexcept {
    uint64_t bytes = uint64_t{region.count} * md_page_size;
    return bytes <= sizeof(mask_header_wire) ? 0 : (bytes - sizeof(mask_header_wire)) * 8;
}
uint64_t end_of(page_range region) noexcept { return uint64_t{region.first} + region.count; }
bool overlap(page_range a, page_range b) noexcept { return a.first < end_of(b) && b.first < end_of(a); }

auto wrong(std::string_view field, uint64_t value, std::string_view why) {
    return damaged(fmt::format("super block: {} is {}, {}", field, value, why));
}

result<> check_units(const geometry& g, const device_shape& device) {
    if (g.md_page_size < page_size || g.md_page_size % page_size != 0)
        return wrong("md_page_size", g.md_page_size, "not a multiple of 4096");
    if (g.md_page_size > md_page_size_max)
        return wrong("md_page_size", g.md_page_size, fmt::format("more than {}", md_page_size_max));
    if (g.io_unit_size < 512 || !is_power_of_two(g.io_unit_size) || g.md_page_size % g.io_unit_size != 0)
        return wrong("io_unit_size", g.io_unit_size, "not a power of two from 512 that divides md_page_size");
    if (device.block_size != 0 && g.io_unit_size % device.block_size != 0)
        return wrong("io_unit_size", g.io_unit_size,
                     fmt::format("not a multiple of the device's block size {}", device.block_size));
    if (g.cluster_size < g.md_page_size || g.cluster_size % page_size != 0 || g.cluster_size % g.io_unit_size != 0)
        return wrong("cluster_size", g.cluster_size,
                     fmt::format("not a multiple of 4096 and at least md_page_size {}", g.md_page_size));
    if (g.size.value > device.size.value)
        return wrong("size", g.size.value, fmt::format("but the device has {} bytes", device.size.value));
    if (g.size.value / g.cluster_size == 0 || g.size.value / g.cluster_size > UINT32_MAX)
        return wrong("size", g.size.value, fmt::format("which is not 1 to 2^32 clusters of {}", g.cluster_size));
    return {};
}

result<> check_regions(const geometry& g) {
    struct named {
        std::string_view name;
        page_range region;
        uint64_t bits;
    };
    const std::array masks{named{"used_page_mask", g.page_mask, g.md.count},
                           named{"used_cluster_mask", g.cluster_mask, g.cluster_count},
                           named{"used_blobid_mask", g.blobid_mask, g.md.count}};
    if (g.md.count == 0) return wrong("md_len", 0, "no page of metadata");
    if (g.md.first == 0) return wrong("md_start", 0, "where the super block is");
    for (std::size_t i = 0; i < masks.size(); ++i) {
        const auto& m = masks[i];
        if (m.region.count == 0 && i == 2) continue;  // before version 3
        if (m.region.first == 0) return wrong(fmt::format("{}_start", m.name), 0, "where the super block is");
        if (bits_in(m.region, g.md_page_size) < m.bits)
            return wrong(fmt::format("{}_len", m.name), m.region.count,
                         fmt::format("too few pages for {} bits", m.bits));
        if (end_of(m.region) > g.md.first)
            return wrong(fmt::format("{}_start", m.name), m.region.first,
                         fmt::format("with {} pages not before the metadata at {}", m.region.count, g.md.first));
        for (std::size_t j = 0; j < i; ++j)
            if (overlap(m.region, masks[j].region))
                return wrong(fmt::format("{}_start", m.name), m.region.first,
                             fmt::format("overlapping the {}", masks[j].name));
    }
    return {};
}

}  // namespace

std::unexpected<error> damaged(std::string what) { return fail(error(errc::bad_sequence, std::move(what))); }

uint64_t geometry::bytes_of_mask(page_range region, uint32_t bits) const noexcept {
    return std::min<uint64_t>(region.count, pages_of_mask(bits, md_page_size)) * md_page_size;
}

uint64_t geometry::cluster_count_max() const noexcept {
    page_range room = cluster_mask;
    uint32_t limit = md.first;
    if (blobid_mask.count != 0 && blobid_mask.first > room.first) limit = std::min(limit, blobid_mask.first);
    if (limit > room.first) room.count = std::max(room.count, limit - room.first);
    return std::min<uint64_t>(bits_in(room, md_page_size), UINT32_MAX);
}

result<geometry> checked(geometry g, const device_shape& device) {
    VARVE_TRY(check_units(g, device));
    g.cluster_count = static_cast<uint32_t>(g.size.value / g.cluster_size);
    VARVE_TRY(check_regions(g));
    // Whole pages in a cluster, as SPDK counts: where cluster_size is no multiple of md_page_size it reserves more.
    const uint64_t md_clusters = divide_up(end_of(g.md), g.cluster_size / g.md_page_size);
    if (md_clusters > g.cluster_count)
        return wrong("md_len", g.md.count,
                     fmt::format("metadata needs {} clusters of {}", md_clusters, g.cluster_count));
    g.first_data_cluster = static_cast<uint32_t>(md_clusters);
    return g;
}

result<geometry> plan_store(const device_shape& device, const store_shape& shape) {
    geometry g;
    g.size = device.size;
    g.cluster_size = shape.cluster_size;
    g.io_unit_size = device.block_size;
    // A physical block that is no power of two, or so large, is nothing to lay pages out by.
    const bool fits = is_power_of_two(shape.physical_block_size) && shape.physical_block_size <= md_page_size_max;
    const uint32_t physical = fits ? shape.physical_block_size : 0;
    g.md_page_size = std::max({shape.md_page_size, physical, static_cast<uint32_t>(page_size)});
    if (g.md_page_size % page_size != 0)
        return fail(errc::invalid, fmt::format("md_page_size {}: must be a multiple of 4096", g.md_page_size));
    if (g.md_page_size > md_page_size_max)
        return fail(errc::invalid, fmt::format("md_page_size {}: at most {}", g.md_page_size, md_page_size_max));
    if (g.io_unit_size < 512 || !is_power_of_two(g.io_unit_size) || g.md_page_size % g.io_unit_size != 0)
        return fail(errc::invalid,
                    fmt::format("the device has blocks of {} bytes: a blobstore needs a power of two from "
                                "512 that divides its pages of {}",
                                g.io_unit_size, g.md_page_size));
    if (g.cluster_size == 0 || device.size.value < g.cluster_size)
        return fail(errc::no_space, fmt::format("cluster_size {}: the device has {} bytes, not one cluster",
                                                g.cluster_size, device.size.value));
    if (g.cluster_size % page_size != 0 || g.cluster_size < g.md_page_size)
        return fail(errc::invalid, fmt::format("cluster_size {}: must be a multiple of 4096 and at least {}",
                                               g.cluster_size, g.md_page_size));
    const uint64_t clusters = device.size.value / g.cluster_size;
    const uint64_t md_pages = shape.md_page_count != 0 ? shape.md_page_count : clusters;
    if (clusters > UINT32_MAX || md_pages >= no_page)
        return fail(errc::invalid, fmt::format("cluster_size {}: too small for a device of {} bytes", g.cluster_size,
                                               device.size.value));
    const uint64_t md_mask = pages_of_mask(md_pages, g.md_page_size);
    const uint64_t cluster_mask = pages_of_mask(clusters, g.md_page_size);
    const uint64_t cluster_room = std::max(cluster_mask, md_mask);  // SPDK leaves room to grow
    const uint64_t end = 1 + md_mask + cluster_room + md_mask + md_pages;
    if (divide_up(end, g.cluster_size / g.md_page_size) > clusters)
        return fail(errc::no_memory, fmt::format("{} pages of metadata do not fit into {} clusters of {} bytes",
                                                 md_pages, clusters, g.cluster_size));
    auto region = [](uint64_t first, uint64_t count) {
        return page_range{static_cast<uint32_t>(first), static_cast<uint32_t>(count)};
    };
    g.page_mask = region(1, md_mask);
    g.cluster_mask = region(1 + md_mask, cluster_mask);
    g.blobid_mask = region(1 + md_mask + cluster_room, md_mask);
    g.md = region(1 + md_mask + cluster_room + md_mask, md_pages);
    return checked(g, device);
}

result<geometry> grown(const geometry& g, const device_shape& device) {
    const uint64_t clusters = device.size.value / g.cluster_size;
    if (device.size.value < g.size.value)
        return fail(errc::invalid, fmt::format("the device has {} bytes, the store {}: it cannot shrink",
                                               device.size.value, g.size.value));
    if (clusters > g.cluster_count_max())
        return fail(errc::no_space, fmt::format("the mask of used clusters has room for {} clusters, the device has {}",
                                                g.cluster_count_max(), clusters));
    geometry out = g;
    out.size = device.size;
    out.cluster_mask.count = static_cast<uint32_t>(pages_of_mask(clusters, g.md_page_size));
    return checked(out, device);
}

}  // namespace varve::blob::format
