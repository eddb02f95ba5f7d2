// Metadata that could not be read when a store was loaded: whose it may be, and how it becomes readable again.
#include <fmt/format.h>

#include "blob/check/finding.h"
#include "blob/load/loader.h"
#include "thread/awaits.h"

namespace varve::blob {

task<result<>> loader::read_patiently(uint64_t offset, std::span<std::byte> to) {
    result<> outcome = co_await as_result(_s._disk.read(offset, to));
    if (!outcome) outcome = co_await as_result(_s._disk.read(offset, to));
    co_return outcome;
}

// Whether the pages of the double-write area hold images, and are nobody's: varve wrote the super block last, and the
// mask of used pages has them. A mask that cannot be read or is none SPDK would have written, and so made a good one.
bool loader::area_is_ours() const noexcept {
    const auto& extension = _s._super.extension;
    return super_is_ours() && extension && extension->double_write.exists() &&
           (!_used_pages || format::has_area(*_used_pages, extension->double_write));
}
bool loader::copy_is_ours() const noexcept {
    const auto& extension = _s._super.extension;
    return super_is_ours() && extension && extension->copy_page != 0 &&
           (!_used_pages || _used_pages->test(extension->copy_page));
}
bool loader::super_is_ours() const noexcept {
    const format::super_origin origin = _s._super.origin;
    return origin == format::super_origin::whole || origin == format::super_origin::torn;
}

// A blob may have begun in a page that cannot be read, unless a chain or an extent table names it, or it lies in the
// double-write area or is to be the super block's copy, or the masks of a store that was unloaded call it free.
void loader::judge_unreadable() {
    if (_unreadable.empty()) return;
    const format::bit_mask named = pages_named();
    for (const auto& [page, why] : _unreadable) {
        if (named.test(page)) {
            _s._unreadable.of_blobs.emplace(page, why);
        } else if ((area_is_ours() && _s._super.extension->double_write.holds(page)) ||
                   (copy_is_ours() && _s._super.extension->copy_page == page)) {
            continue;
        } else if (!_clean || _used_pages->test(page) || _used_ids->test(page)) {
            _s._unreadable.of_nobody_known.emplace(page, why);
        }
    }
    if (!_s._unreadable.of_nobody_known.empty()) _owners_unknown = true;
}

std::string store::trouble() const {
    const std::string unknown = clusters_without_owner();
    const bool large = format::area_pages(_space.page_count()) >= committer::per_slot_least;
    if (!large || !_super.extension || _super.extension->double_write.exists()) return unknown;
    return fmt::format(
        "no {} metadata pages in a row were free for a double-write area: a power cut may damage blobs that change; "
        "the "
        "next load tries again{}{}",
        committer::per_slot_least, unknown.empty() ? "" : "; ", unknown);
}

std::string store::clusters_without_owner() const {
    if (_kept_clusters.count() == 0 && _unreadable.of_nobody_known.empty()) return {};
    const std::string kept = fmt::format("{} clusters without a known owner are not free", _kept_clusters.count());
    if (_unreadable.of_nobody_known.empty()) return kept + " before the blobs are removed that are set aside";
    std::vector<uint32_t> pages;
    for (const auto& [page, why] : _unreadable.of_nobody_known) pages.push_back(page);
    return fmt::format(
        "metadata pages {} cannot be read ({}), and blobs may begin there that nobody has seen: {}; varve "
        "fsck --repair --rewrite-unreadable gives such pages up",
        check::in_words(pages), _unreadable.of_nobody_known.begin()->second, kept);
}

task<> store::make_readable(const blob_state& gone) {
    if (_unreadable.of_blobs.empty()) co_return;
    std::set<uint32_t> mine(gone.record.pages.begin(), gone.record.pages.end());
    for (uint32_t p : gone.extent_pages) mine.insert(p);
    for (const auto& [id, other] : _blobs) {
        if (other.get() == &gone) continue;
        for (uint32_t p : other->record.pages) mine.erase(p);
        for (uint32_t p : other->extent_pages) mine.erase(p);
    }
    env::buffer memory = co_await _disk.memory(_super.layout.md_page_size);
    for (uint32_t p : mine) {
        if (!_unreadable.of_blobs.contains(p)) continue;
        std::ranges::fill(memory.bytes(), std::byte{});
        co_await _disk.write(_super.layout.offset_of_md_page(p), memory.bytes());
        co_await _disk.read(_super.layout.offset_of_md_page(p), memory.bytes());
        _unreadable.of_blobs.erase(p);
    }
}

}  // namespace varve::blob
