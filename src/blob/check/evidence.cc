#include "blob/check/evidence.h"

#include <fmt/format.h>

#include <algorithm>

namespace varve::blob::check {

evidence::evidence(const format::device_shape& device, format::page_view super_page) {
    std::copy(super_page.begin(), super_page.end(), _super_page.begin());
    auto decoded = format::decode_super(super_page, device);
    if (decoded)
        _super = std::move(*decoded);
    else
        _why_none = decoded.error().message();
    _unknown_version = !decoded && decoded.error().code() == errc::unsupported;
}

void evidence::take_super(format::super_block rebuilt, std::string from) {
    _super = std::move(rebuilt);
    _rebuilt_from = std::move(from);
}
void evidence::explain(std::string_view why_not_rebuilt) { _why_none += fmt::format("; {}", why_not_rebuilt); }

void evidence::take_mask(format::mask_type type, std::span<const std::byte> bytes) {
    auto& mine = _masks[static_cast<std::size_t>(type)];
    mine.bytes.assign(bytes.begin(), bytes.end());
    auto decoded = format::decode_mask(bytes, type, bits_of(type, layout()), !store()->clean);
    if (decoded)
        mine.bits = std::move(*decoded);
    else
        mine.why_none = decoded.error().message();
}

void evidence::take_unreadable_mask(format::mask_type type, std::string_view why) {
    _masks[static_cast<std::size_t>(type)].why_none = why;
}

void evidence::take_page(uint32_t number, format::page_view bytes) {
    if (!format::is_clear(bytes)) std::copy(bytes.begin(), bytes.end(), _pages[number].begin());
}

void evidence::take_unreadable(uint32_t first_page, uint32_t count, std::string_view why) {
    for (uint32_t i = 0; i < count; ++i) _unreadable.emplace(first_page + i, why);
}

void evidence::give_up(uint32_t page) {
    auto found = _unreadable.extract(page);
    if (!found.empty()) _given_up.insert(std::move(found));
}

void evidence::replace_page(uint32_t number, const format::page_bytes& bytes) {
    const format::page_bytes* now = page(number);
    _replaced.try_emplace(number, now == nullptr ? format::page_bytes{} : *now);
    if (format::is_clear(bytes))
        _pages.erase(number);
    else
        _pages[number] = bytes;
}

const format::page_bytes* evidence::page(uint32_t number) const noexcept {
    auto found = _pages.find(number);
    return found == _pages.end() ? nullptr : &found->second;
}

const format::page_bytes* evidence::original(uint32_t number) const noexcept {
    auto found = _replaced.find(number);
    return found == _replaced.end() ? page(number) : &found->second;
}

const std::string* evidence::why_unreadable(uint32_t page) const noexcept {
    auto found = _unreadable.find(page);
    return found == _unreadable.end() ? nullptr : &found->second;
}

const format::bit_mask* evidence::mask(format::mask_type type) const noexcept {
    return read(type).bits ? &*read(type).bits : nullptr;
}
const std::string& evidence::why_no_mask(format::mask_type type) const noexcept { return read(type).why_none; }
std::span<const std::byte> evidence::mask_bytes(format::mask_type type) const noexcept { return read(type).bytes; }

uint32_t bits_of(format::mask_type type, const format::geometry& g) noexcept {
    return type == format::mask_type::used_clusters ? g.cluster_count : g.md.count;
}

format::page_range region_of(format::mask_type type, const format::geometry& g) noexcept {
    switch (type) {
        case format::mask_type::used_pages:
            return g.page_mask;
        case format::mask_type::used_clusters:
            return g.cluster_mask;
        case format::mask_type::used_blobids:
            return g.blobid_mask;
    }
    return {};
}

}  // namespace varve::blob::check
