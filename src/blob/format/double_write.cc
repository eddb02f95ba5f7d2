#include "blob/format/double_write.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
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

namespace {

double_write_header_wire wire_of(page_view page) noexcept {
    double_write_header_wire w;
    std::memcpy(&w, page.data(), sizeof w);
    return w;
}

// All but the checksum.
result<double_write_header> decode(const double_write_header_wire& w, uint32_t number, const double_write_area& area,
                                   const uuid& store, const geometry& g) {
    auto wrong = [number](std::string_view what) {
        return damaged(fmt::format("page {}: double-write header: {}", number, what));
    };
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

// Its checksum is in the place of a metadata page's, and inverted.
page_bytes with_other_crc(page_view page) noexcept {
    page_bytes out;
    std::copy(page.begin(), page.end(), out.begin());
    for (std::size_t i = offsetof(double_write_header_wire, inverted_crc); i < out.size(); ++i) out[i] = ~out[i];
    return out;
}

// What all headers of a slot have in common: of those a torn write leaves it, too, or a first sector of zeroes.
std::array<std::byte, 64> common_part(const page_bytes& header) noexcept {
    auto w = std::bit_cast<double_write_header_wire>(header);
    w.count = 0;
    w.flags = 0;
    w.sequence = 0;
    const auto page = std::bit_cast<page_bytes>(w);
    std::array<std::byte, offsetof(double_write_header_wire, entries)> out;
    std::copy_n(page.begin(), out.size(), out.begin());
    return out;
}
unsigned bits_off(std::span<const std::byte> a, std::span<const std::byte> b) noexcept {
    unsigned n = 0;
    for (std::size_t i = 0; i < a.size(); ++i)
        n += static_cast<unsigned>(std::popcount(static_cast<uint8_t>(a[i] ^ b[i])));
    return n;
}
constexpr unsigned nearly = 24;  // bits of the common part; of another store, half of the 128 of its uuid are others

// More may be torn between others than the first and the last.
constexpr std::size_t images_in_first_sector = (512 - offsetof(double_write_header_wire, entries)) / sizeof(uint64_t);

// The image, whole: a page of zeroes is known from its checksum, and one whose own checksum tells of a flipped bit.
std::optional<page_bytes> as_it_was(const std::optional<page_bytes>& seen, uint32_t crc) {
    static const uint32_t crc_of_clear = crc_of_image(page_bytes{});
    if (crc == crc_of_clear) return page_bytes{};
    if (!seen || crc_of_image(*seen) == crc) return seen;
    auto mended = without_flipped_bit(*seen);
    if (mended && crc_of_image(*mended) == crc) return mended;
    return std::nullopt;
}

}  // namespace

result<double_write_header> decode_double_write(page_view page, uint32_t number, const double_write_area& area,
                                                const uuid& store, const geometry& g) {
    const double_write_header_wire w = wire_of(page);
    auto wrong = [number](std::string_view what) {
        return damaged(fmt::format("page {}: double-write header: {}", number, what));
    };
    if (w.magic != double_write_magic) return wrong("there is none");
    if (w.inverted_crc != ~crc_of(page)) return wrong("its checksum is wrong");
    return decode(w, number, area, store, g);
}

found_header find_double_write(page_view page, uint32_t number, const double_write_area& area, const uuid& store,
                               const geometry& g) {
    using state = found_header::state;
    if (auto right = decode_double_write(page, number, area, store, g)) return {state::whole, std::move(*right)};
    if (auto mended = without_flipped_bit(with_other_crc(page))) {
        auto right = decode_double_write(with_other_crc(*mended), number, area, store, g);
        if (right) return {state::whole, std::move(*right)};
    }
    page_bytes here;
    std::copy(page.begin(), page.end(), here.begin());
    const auto wanted = common_part(encode_double_write({.store = store, .own_page = number}));
    const unsigned off = bits_off(common_part(here), wanted);
    if (off > nearly || wire_of(page).inverted_crc == ~crc_of(page)) return {};
    if (off > 0) return {state::damaged, {}};
    auto says = decode(wire_of(page), number, area, store, g);
    if (!says) return {state::damaged, {}};
    return {state::torn, std::move(*says)};
}

judged_round judge_round(const found_header& found, std::span<const image_seen> seen) {
    using fate = judged_round::fate;
    const auto& entries = found.header.images;
    VARVE_ASSERT(seen.size() == entries.size());
    judged_round out;
    std::optional<std::size_t> unreadable, wrong;
    bool begun = false, missing = false;
    for (std::size_t i = 0; i < entries.size(); ++i) {
        const auto in_place = seen[i].in_place ? as_it_was(seen[i].in_place, entries[i].crc) : std::nullopt;
        auto image = as_it_was(seen[i].image, entries[i].crc);
        if (in_place && !is_clear(*in_place)) begun = true;
        if (!in_place) missing = true;
        if (!image) image = in_place;
        if (!image) (seen[i].image ? wrong : unreadable) = i;
        out.images.push_back(image.value_or(page_bytes{}));
    }
    const bool torn = found.what == found_header::state::torn;
    if (torn) {
        // What was written over the last one lies in place nowhere, and the last one everywhere.
        const bool tells = entries.size() <= images_in_first_sector;
        if (tells && begun && missing) out.became = fate::unknown;
        return out;
    }
    if (!wrong && !unreadable) {
        out.became = fate::committed;
    } else if (begun || !wrong) {
        out.became = fate::unknown;
        out.which = wrong ? *wrong : *unreadable;
    }
    return out;
}

bool has_area(const bit_mask& used_pages, const double_write_area& area) noexcept {
    uint32_t has = 0;
    for (uint32_t i = 0; i < area.page_count(); ++i) has += used_pages.test(area.first + i) ? 1 : 0;
    return 2 * has > area.page_count();
}

bool double_write_trusted(const super_block& super, const bit_mask* used_pages) noexcept {
    if (super.clean || !super.extension || !super.extension->double_write.exists()) return false;
    if (super.origin != super_origin::whole && super.origin != super_origin::torn) return false;
    return used_pages == nullptr || has_area(*used_pages, super.extension->double_write);
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

uint16_t longest_free_run(const bit_mask& used_pages, uint16_t most) {
    uint16_t run = 0, longest = 0;
    for (uint32_t page = used_pages.size(); page-- > 1 && longest < most;) {
        run = used_pages.test(page) ? 0 : static_cast<uint16_t>(run + 1);
        longest = std::max(longest, run);
    }
    return longest;
}

}  // namespace varve::blob::format
