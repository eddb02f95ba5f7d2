// Loading, step 1: a round of changes that was committed, and perhaps not written in place before the store died.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "blob/load/loader.h"

namespace varve::blob {

namespace {

// Without the last change some of what users wrote may be missing, and what holds it would be free: nobody but the
// operator may decide that it be given up.
std::unexpected<error> unknown_round(uint32_t page, const error& why) {
    return fail(why.code(),
                fmt::format("metadata page {} cannot be read ({}), and may hold the last change before the store died: "
                            "it is not opened; varve fsck --repair --rewrite-unreadable gives that change up",
                            page, why.message()));
}

}  // namespace

task<> loader::repeat_round() {
    if (_s._super.clean || !area_is_ours()) co_return;
    const format::double_write_area area = _s._super.extension->double_write;
    const uint32_t first = area.header_page(0);
    const std::size_t stride = _g.md_page_size;
    env::buffer slot = co_await _s._disk.memory(area.per_slot * stride);
    auto page_of_slot = [&](std::size_t i) { return slot.bytes().subspan(i * stride, stride); };
    const bool all = (co_await read_patiently(_g.offset_of_md_page(first), slot.bytes())).has_value();
    if (!all) {
        auto read = co_await read_patiently(_g.offset_of_md_page(first), page_of_slot(0));
        if (!read) co_await unknown_round(first, read.error());
    }
    auto header = format::decode_double_write(page_of_slot(0).first<format::page_size>(), first, area,
                                              _s._super.extension->store, _g);
    if (!header) co_return;
    _s._round = header->sequence;
    std::vector<format::page_bytes> images(header->images.size());
    std::optional<std::unexpected<error>> unknown;
    for (std::size_t i = 0; i < images.size(); ++i) {
        const auto page = page_of_slot(i + 1);
        const uint32_t number = first + 1 + static_cast<uint32_t>(i);
        result<> read;
        if (!all) read = co_await read_patiently(_g.offset_of_md_page(number), page);
        if (!read && !co_await lies_in_place(header->images[i], page)) {
            unknown = unknown_round(number, read.error());
            continue;
        }
        std::ranges::copy(page.first<format::page_size>(), images[i].begin());
        if (format::crc_of_image(images[i]) != header->images[i].crc) co_return;  // it was not committed
    }
    if (unknown) co_await std::move(*unknown);
    co_await write_in_place(*header, images);
}

// What cannot be read of a round is as good where it was to be written.
task<bool> loader::lies_in_place(const format::double_write_header::image& image, std::span<std::byte> to) {
    auto read = co_await read_patiently(_g.offset_of_md_page(image.page), to);
    if (!read) co_return false;
    co_return format::crc_of_image(to.first<format::page_size>()) == image.crc;
}

task<> loader::write_in_place(const format::double_write_header& header, std::span<const format::page_bytes> images) {
    env::buffer memory = co_await _s._disk.memory(_g.md_page_size);
    for (std::size_t i = 0; i < images.size(); ++i) {
        const uint64_t offset = _g.offset_of_md_page(header.images[i].page);
        const bool read = (co_await read_patiently(offset, memory.bytes())).has_value();
        const auto in_place = memory.bytes().first<format::page_size>();
        if (read && !format::must_replay(header, i, images[i], in_place)) continue;
        std::memset(memory.data(), 0, memory.size());
        std::ranges::copy(images[i], memory.data());
        co_await _s._disk.write(offset, memory.bytes());
    }
    co_await _s._disk.flush();
}

}  // namespace varve::blob
