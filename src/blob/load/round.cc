// Loading, step 1: a round of changes that was committed, and perhaps not written in place before the store died.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "blob/load/loader.h"

namespace varve::blob {

namespace {

// Without the last change some of what users wrote may be missing, and what holds it would be free: nobody but the
// operator may decide that it be given up.
std::unexpected<error> unknown_round(uint32_t page, errc code, std::string_view what) {
    return fail(code, fmt::format("metadata page {} {}, and may hold the last change before the store died: "
                                  "it is not opened; varve fsck --repair --rewrite-unreadable gives that change up",
                                  page, what));
}
format::page_bytes copy_of(std::span<const std::byte> page) {
    format::page_bytes out;
    std::ranges::copy(page.first<format::page_size>(), out.begin());
    return out;
}
std::unexpected<error> unreadable_round(uint32_t page, const error& why) {
    return unknown_round(page, why.code(), fmt::format("cannot be read ({})", why.message()));
}

}  // namespace

task<> loader::repeat_round() {
    if (_s._super.clean || !area_is_ours()) co_return;
    using state = format::found_header::state;
    using fate = format::judged_round::fate;
    const format::double_write_area area = _s._super.extension->double_write;
    const uint32_t first = area.header_page(0);
    const std::size_t stride = _g.md_page_size;
    env::buffer slot = co_await _s._disk.memory(area.per_slot * stride);
    auto page_of_slot = [&](std::size_t i) { return slot.bytes().subspan(i * stride, stride); };
    const bool all = (co_await read_patiently(_g.offset_of_md_page(first), slot.bytes())).has_value();
    if (!all) {
        auto read = co_await read_patiently(_g.offset_of_md_page(first), page_of_slot(0));
        if (!read) co_await unreadable_round(first, read.error());
    }
    const auto found = format::find_double_write(page_of_slot(0).first<format::page_size>(), first, area,
                                                 _s._super.extension->store, _g);
    if (found.what == state::none) co_return;
    if (found.what == state::damaged) co_await unknown_round(first, errc::bad_sequence, "is damaged");
    if (found.what == state::whole) _s._round = found.header.sequence;
    std::vector<format::image_seen> seen(found.header.images.size());
    std::vector<std::optional<error>> why(seen.size());
    env::buffer memory = co_await _s._disk.memory(stride);
    for (std::size_t i = 0; i < seen.size(); ++i) {
        const uint32_t number = first + 1 + static_cast<uint32_t>(i);
        result<> read;
        if (!all) read = co_await read_patiently(_g.offset_of_md_page(number), page_of_slot(i + 1));
        if (read)
            seen[i].image = copy_of(page_of_slot(i + 1));
        else
            why[i] = std::move(read).error();
        if (co_await read_patiently(_g.offset_of_md_page(found.header.images[i].page), memory.bytes())) {
            seen[i].in_place = copy_of(memory.bytes());
        }
    }
    const auto round = format::judge_round(found, seen);
    if (round.became == fate::committed) co_return co_await write_in_place(found.header, round.images, seen);
    if (round.became == fate::not_committed) co_return;
    const uint32_t number = first + 1 + static_cast<uint32_t>(round.which);
    if (found.what == state::torn) co_await unknown_round(first, errc::bad_sequence, "is damaged");
    if (!seen[round.which].image) co_await unreadable_round(number, *why[round.which]);
    co_await unknown_round(number, errc::bad_sequence, "is damaged");
}

task<> loader::write_in_place(const format::double_write_header& header, std::span<const format::page_bytes> images,
                              std::span<const format::image_seen> seen) {
    env::buffer memory = co_await _s._disk.memory(_g.md_page_size);
    for (std::size_t i = 0; i < images.size(); ++i) {
        if (seen[i].in_place && !format::must_replay(header, i, images[i], *seen[i].in_place)) continue;
        std::memset(memory.data(), 0, memory.size());
        std::ranges::copy(images[i], memory.data());
        co_await _s._disk.write(_g.offset_of_md_page(header.images[i].page), memory.bytes());
    }
    co_await _s._disk.flush();
}

}  // namespace varve::blob
