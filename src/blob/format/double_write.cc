#include "blob/format/double_write.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "accel/crc32c.h"
#include "util/assert.h"

namespace varve::blob::format {

uint32_t crc_of_image(page_view image) noexcept {
    // A page that ends with its own checksum has the same checksum as any other such page; so the end comes first.
    constexpr std::size_t end = offsetof(md_page_wire, crc);
    return accel::crc32c(image.first<end>(), accel::crc32c(image.subspan<end>()));
}

page_bytes encode_double_write(const double_write_header& header) {
    VARVE_ASSERT(header.images.size() <= double_write_images_max);
    double_write_header_wire w{};
    w.magic = double_write_magic;
    w.not_in_chain = UINT32_MAX;
    w.version = double_write_version;
    w.count = static_cast<uint16_t>(header.images.size());
    w.flags = header.flags;
    w.sequence = header.sequence;
    std::copy(header.store.bytes.begin(), header.store.bytes.end(), w.store_uuid);
    w.own_page = header.own_page;
    for (std::size_t i = 0; i < header.images.size(); ++i)
        w.entries[i] = {.page = header.images[i].page, .crc = header.images[i].crc};
    w.next = no_page;
    w.inverted_crc = ~crc_of(std::bit_cast<page_bytes>(w));
    return std::bit_cast<page_bytes>(w);
}

result<double_write_header> decode_double_write(page_view page, uint32_t number, const double_write_area& area,
                                                const uuid& store, const geometry& g) {
    double_write_header_wire w;
    std::memcpy(&w, page.data(), sizeof w);
    auto wrong = [number](std::string_view what) {
        return damaged(fmt::format("page {}: double-write header: {}", number, what));
    };
    if (w.magic != double_write_magic) return wrong("there is none");
    if (w.inverted_crc != ~crc_of(page)) return wrong("its checksum is wrong");
    if (w.version != double_write_version) return wrong(fmt::format("version is {}", w.version.get()));
    if (w.own_page != number) return wrong(fmt::format("it belongs into page {}", w.own_page.get()));
    double_write_header out{.sequence = w.sequence, .flags = w.flags, .store = {}, .own_page = number, .images = {}};
    std::copy(std::begin(w.store_uuid), std::end(w.store_uuid), out.store.bytes.begin());
    if (out.store != store)
        return wrong(fmt::format("it is of store {}, this is {}", out.store.to_string(), store.to_string()));
    if (w.count > double_write_images_max || w.count + 1 > int{area.per_slot})
        return wrong(fmt::format("it counts {} images in a slot of {} pages", w.count.get(), area.per_slot));
    for (std::size_t i = 0; i < w.count; ++i) {
        const auto& e = w.entries[i];
        if (!g.has_md_page(e.page) || area.holds(e.page))
            return wrong(fmt::format("image {} is of page {}", i, e.page.get()));
        out.images.push_back({e.page, e.crc});
    }
    return out;
}

bool double_write_trusted(const super_block& super, const bit_mask& used_pages) noexcept {
    if (super.clean || !super.extension || !super.extension->double_write.exists()) return false;
    if (super.origin != super_origin::whole && super.origin != super_origin::torn) return false;
    const auto& area = super.extension->double_write;
    return used_pages.all(area.first, area.page_count());
}

bool is_whole(const double_write_header& header, std::span<const page_bytes> images) noexcept {
    VARVE_ASSERT(images.size() == header.images.size());
    for (std::size_t i = 0; i < images.size(); ++i)
        if (crc_of_image(images[i]) != header.images[i].crc) return false;
    return true;
}

bool must_replay(const double_write_header& header, std::size_t i, page_view image, page_view in_place) noexcept {
    VARVE_ASSERT(i < header.images.size());
    if (std::equal(image.begin(), image.end(), in_place.begin())) return false;
    const bool whole = crc_right(in_place) || is_clear(in_place);
    return !whole || (header.flags & double_write_flag::redo) != 0;
}

std::optional<double_write_area> place_double_write(const bit_mask& used_pages, uint16_t slots, uint16_t per_slot) {
    const uint32_t wanted = uint32_t{slots} * per_slot;
    if (wanted == 0 || per_slot < 2) return std::nullopt;
    uint32_t run = 0;
    for (uint32_t page = used_pages.size(); page-- > 1;) {  // page 0 is never ours: SPDK's first blob goes there
        run = used_pages.test(page) ? 0 : run + 1;
        if (run == wanted) return double_write_area{.first = page, .slots = slots, .per_slot = per_slot};
    }
    return std::nullopt;
}

}  // namespace varve::blob::format
