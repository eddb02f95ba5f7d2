// Blob after blob: its chain, its extent pages, its flags.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "blob/check/descriptors.h"
#include "blob/check/examiner.h"
#include "blob/format/belief.h"
#include "blob/format/stale.h"

namespace varve::blob::check {

using format::page_content;

void examiner::find_blobs() {
    _extent_uses = sparse<uint8_t>(_g.md.count);
    const format::bit_mask* ids = clean() ? _e.mask(format::mask_type::used_blobids) : nullptr;
    std::vector<uint32_t> unmarked;
    const auto& extension = _super.extension;
    const format::last_masks of_a_crash(_super, _e.mask(format::mask_type::used_pages),
                                        _e.mask(format::mask_type::used_blobids),
                                        extension ? _e.page(extension->double_write.first) : nullptr);
    for (const auto& [number, bytes] : _e.pages()) {
        const auto seen = format::look_at(bytes, number);
        if (seen.content != page_content::root) continue;
        if (of_a_crash.call_deleted(number, seen.header))
            report_stale_root(number);
        else if (ids != nullptr && !ids->test(number))
            unmarked.push_back(number);
        else
            read_blob(number);
    }
    if (!unmarked.empty()) judge_unmarked_roots(unmarked);
    find_bad_roots(ids);
}

// A mask has no checksum, and a blob is not deleted for one bit of it: a deletion frees the blob's pages and clusters,
// too, and others have them by and by. One that was written after the super block is not of the time of the masks.
void examiner::judge_unmarked_roots(std::span<const uint32_t> roots) {
    format::bit_mask pages(_g.md.count), clusters(_g.cluster_count);  // of those that are marked
    for (const examined_blob& b : _out.blobs) {
        for (uint32_t page : b.record.pages) pages.set(page);
        for (const auto& use : b.extents) pages.set(use.page);
        for (const auto& run : b.owned) clusters.set(run.first, run.count);
    }
    const format::bit_mask* used_pages = _e.mask(format::mask_type::used_pages);
    const format::bit_mask* used_clusters = _e.mask(format::mask_type::used_clusters);
    for (uint32_t root : roots) {
        const std::size_t findings = _out.findings.size();
        read_blob(root);
        bool owns = false, others = false;
        for (const auto& run : _out.blobs.back().owned) {
            others = others || !clusters.none(run.first, run.count);
            owns = owns || used_clusters == nullptr || !used_clusters->none(run.first, run.count);
        }
        const bool page_used = (used_pages == nullptr || used_pages->test(root)) && !pages.test(root);
        const bool later = format::is_later(_out.blobs.back().record.stamp, _super);
        if (page_used || ((owns || later) && !others)) continue;
        _out.findings.resize(findings);
        _out.blobs.pop_back();
        report_stale_root(root);
    }
    std::ranges::sort(_out.blobs, {}, &examined_blob::id);
}

void examiner::report_stale_root(uint32_t number) {
    finding& f =
        report(problem::stale_root, severity::error,
               fmt::format("page {}: first page of blob {:#x}, which according to all masks does not exist: what a "
                           "deletion left; SPDK's recovery would bring it back",
                           number, format::id_of_root_page(number)));
    f.pages = {number};
    f.blobs = {format::id_of_root_page(number)};
    f.repairable = true;
    _out.stale_roots.push_back(number);
}

void examiner::report_bad_root(uint32_t number, std::string_view what) {
    finding& f =
        report(problem::bad_root, severity::error,
               fmt::format("page {}: should be the first page of blob {:#x}, and is {}: the blob is lost unless the "
                           "page can be restored",
                           number, format::id_of_root_page(number), what));
    f.pages = {number};
    f.blobs = {format::id_of_root_page(number)};
    _bad_roots.set(number);
}

void examiner::find_bad_roots(const format::bit_mask* ids) {
    if (ids == nullptr) {  // no mask to believe: a damaged page that says whose first page it is, or was one
        for (const auto& [number, bytes] : _e.pages()) {
            const auto seen = format::look_at(bytes, number);
            if (seen.content != page_content::damaged) continue;
            const bool own = seen.header.id == format::id_of_root_page(number) && seen.header.sequence == 0;
            const bool says_nothing = seen.header.id != 0 && !_g.has_blob_id(seen.header.id);
            const format::bit_mask* old = _e.mask(format::mask_type::used_blobids);
            if (own || (says_nothing && old != nullptr && old->test(number)))
                report_bad_root(number, format::name_of(seen.content));
        }
        const format::bit_mask* old = _e.mask(format::mask_type::used_blobids);
        for (const auto& [number, why] : _e.unreadable_pages())
            if (old != nullptr && old->test(number)) report_bad_root(number, "unreadable");
        return;
    }
    constexpr unsigned told_alone = 100;  // of pages of which nothing is there but a bit of a mask
    unsigned told = 0;
    number_list more;
    for (uint32_t number = 0; (number = ids->next(number)) < ids->size(); ++number) {
        const format::page_bytes* bytes = _e.page(number);
        const auto seen = bytes == nullptr ? format::glimpse{} : format::look_at(*bytes, number);
        if (seen.content == page_content::root) continue;
        const format::bit_mask* pages = _e.mask(format::mask_type::used_pages);
        if (bytes == nullptr && _e.why_unreadable(number) == nullptr && pages != nullptr && !pages->test(number))
            continue;  // the mask is wrong
        const bool unreadable = bytes == nullptr && _e.why_unreadable(number) != nullptr;
        if (bytes == nullptr && !unreadable && ++told > told_alone) {
            _bad_roots.set(number);
            more.add(number, 1);
            continue;
        }
        report_bad_root(number, unreadable ? "unreadable" : format::name_of(seen.content));
    }
    if (more.empty()) return;
    finding& f = report(problem::bad_root, severity::error,
                        fmt::format("pages {}: should be first pages of blobs, too, and are clear", in_words(more)));
    list_pages(f, more);
}

bool has_flags(const format::page_bytes& root) noexcept {
    bool found = false;
    for_each_descriptor(root, [&](format::descriptor_type type, std::size_t, std::size_t length) {
        found = found || (type == format::descriptor_type::flags && length == 3 * sizeof(le64));
    });
    return found;
}

void examiner::break_blob(examined_blob& b, std::string why, uint32_t page) {
    if (b.broken()) return;
    b.wrong = std::move(why);
    b.wrong_page = page;
}

void examiner::read_blob(uint32_t root) {
    examined_blob& b = _out.blobs.emplace_back();
    b.record.id = format::id_of_root_page(root);
    read_chain(b);
    read_extents(b);
    find_owned(b);
    look_at_flags(b);
    if (!b.broken()) return;
    finding& f = report_blob(b.wrong_page == format::no_page ? problem::bad_blob : problem::bad_page, b,
                             fmt::format("blob {:#x}: {}{}", b.id(), b.wrong,
                                         b.unreadable ? "; it is left as it is while it cannot be read" : ""));
    if (b.wrong_page != format::no_page) f.pages = {b.wrong_page};
}

// A page has one sequence, so a chain whose pages are in order cannot come back to one; and the work is bounded by the
// pages there are, since each is in order in the chain of one blob only.
void examiner::read_chain(examined_blob& b) {
    static const format::page_bytes clear{};
    std::vector<format::numbered_page> chain;
    std::string cut;
    for (uint32_t number = format::root_page_of(b.id());;) {
        const format::page_bytes* bytes = _e.page(number);
        chain.push_back({number, bytes == nullptr ? clear : *bytes});
        if (_e.why_unreadable(number) != nullptr) {
            _named_unreadable.insert(number);
            b.unreadable = true;
        }
        if (bytes == nullptr || !format::crc_right(*bytes)) break;
        const format::page_header h = format::header_of(*bytes);
        if (h.id != b.id() || h.sequence != chain.size() - 1 || h.next == format::no_page) break;
        if (!_g.has_md_page(h.next)) {
            cut = fmt::format("page {}: next is {}, the store has {} metadata pages", number, h.next, _g.md.count);
            break;
        }
        number = h.next;
    }
    auto decoded = format::decode_chain_as_far_as_possible(chain, _g);
    const format::blob_id id = b.id();
    b.record = std::move(decoded.record);
    b.record.id = id;
    b.chain_broken = b.owns_more = b.record.pages.size() < chain.size() || !cut.empty();
    if (decoded.wrong) {
        const bool later = b.record.pages.size() < chain.size();
        break_blob(b, cut.empty() ? decoded.wrong->message() : cut,
                   later ? chain[b.record.pages.size()].number : chain.back().number);
    }
}

void examiner::read_extents(examined_blob& b) {
    uint64_t index = 0;
    for (const auto& run : b.record.extent_pages) {  // longer than the blob's size asks for: decode_chain() said so
        if (run.page != 0) {
            extent_page_use& use = b.extents.emplace_back();
            use.index = index;
            use.page = run.page;
            read_extent_page(b, use);
            if (!use.wrong.empty()) break_blob(b, use.wrong, use.page);
        }
        index += run.count;
    }
}

void examiner::read_extent_page(examined_blob& b, extent_page_use& use) {
    const format::page_bytes* bytes = _e.page(use.page);
    if (bytes == nullptr) {
        const std::string* why = _e.why_unreadable(use.page);
        if (why != nullptr) {
            _named_unreadable.insert(use.page);
            b.unreadable = true;
        }
        use.wrong = fmt::format("page {}: {}, should be an extent page", use.page, why == nullptr ? "clear" : *why);
        b.owns_more = true;
        return;
    }
    if (++_extent_uses[use.page] > 2) {  // as many as half-made snapshots need; more cannot be
        _extent_uses[use.page] = 2;
        use.left_out = true;
        use.wrong = fmt::format("page {}: is an extent page of others already", use.page);
        return;
    }
    auto decoded = format::decode_extent_page(*bytes, use.page, _g);
    if (!decoded) use.wrong = decoded.error().message();
    // Cluster numbers outside of the store are left out, so that the other 511 are not lost with one.
    auto salvaged = format::salvage_extent_page(*bytes, use.page, _g);
    const bool in_place = salvaged && salvaged->page.first_cluster == use.index * format::clusters_per_extent_page;
    if (!in_place) {
        b.owns_more = true;
        if (decoded) use.wrong = format::check_place(*decoded, use.page, b.record, use.index).error().message();
        return;
    }
    use.outside = std::move(salvaged->outside);
    use.damaged = !format::crc_right(*bytes);
    b.owns_more = b.owns_more || use.damaged;
    auto placed = format::check_place(salvaged->page, use.page, b.record, use.index);
    if (!placed && use.wrong.empty()) use.wrong = placed.error().message();
    use.clusters = std::move(salvaged->page.clusters);
    const uint32_t wanted = b.record.clusters_in_extent_page(use.index);
    if (use.clusters.size() == wanted) return;
    finding& f =
        report(problem::unfinished_resize, severity::note,
               fmt::format("blob {:#x}: extent page {} has {} clusters, the size of the blob asks for {}: a resize "
                           "that did not end",
                           b.id(), use.page, use.clusters.size(), wanted));
    f.blobs = {b.id()};
    f.pages = {use.page};
}

// Of an extent page that is longer than the size of the blob asks for (SPDK leaves it so when a blob shrinks) the rest
// is not the blob's any more.
void examiner::find_owned(examined_blob& b) {
    std::vector<format::cluster_run> all;
    for (const auto& run : b.record.runs)
        if (run.first != 0) all.push_back(run);
    for (const auto& use : b.extents) {
        const std::size_t mine =
            std::min<std::size_t>(use.clusters.size(), b.record.clusters_in_extent_page(use.index));
        for (std::size_t i = 0; i < mine && !use.damaged; ++i)
            if (use.clusters[i] != 0) append(all, use.clusters[i]);
    }
    std::ranges::sort(all, {}, &format::cluster_run::first);
    auto end_of = [](const format::cluster_run& run) { return run.first + run.count; };  // at most cluster_count
    for (const auto& run : all) {
        b.allocated += run.count;
        if (b.owned.empty() || run.first > end_of(b.owned.back())) {
            b.owned.push_back(run);
            continue;
        }
        auto& last = b.owned.back();
        const uint32_t again = std::min(end_of(last), end_of(run));
        if (run.first < again) {
            if (b.twice.empty() || run.first > end_of(b.twice.back())) b.twice.push_back({run.first, 0});
            auto& t = b.twice.back();
            t.count = std::max(end_of(t), again) - t.first;
        }
        last.count = std::max(end_of(last), end_of(run)) - last.first;
    }
}

void examiner::look_at_flags(examined_blob& b) {
    const auto& r = b.record;
    if (auto f = look_at_aside(r)) _out.findings.push_back(std::move(*f));
    if (r.access() == format::blob_access::none && !b.aside()) {
        finding& f = report(problem::bad_blob, severity::error,
                            fmt::format("blob {:#x}: has features this code does not know (invalid flags {:#x})",
                                        b.id(), r.flags.invalid & ~format::invalid_flag::known));
        f.blobs = {b.id()};
    }
    if (!r.unknown.empty()) {
        finding& f = report(problem::bad_blob, severity::note,
                            fmt::format("blob {:#x}: has {} descriptors of unknown types, the first of type {}: SPDK's "
                                        "recovery would fail on them",
                                        b.id(), r.unknown.size(), r.unknown.front().type));
        f.blobs = {b.id()};
    }
    if (b.too_large()) {  // to SPDK it may be fine
        finding& f = report(problem::bad_blob, severity::error,
                            fmt::format("blob {:#x}: has {} clusters, more than the {} that a load has room for",
                                        b.id(), r.cluster_count, format::clusters_max));
        f.blobs = {b.id()};
    }
    if (b.broken() || (r.flags.invalid & format::invalid_flag::external_snapshot) == 0) return;
    const std::string* parent = r.internal_xattrs.find(format::xattr_external_parent);
    if (parent == nullptr || parent->empty())
        return break_blob(b, "is a clone of an external snapshot, and does not say of which", format::no_page);
    if (r.thin()) return;
    finding& f =
        report(problem::bad_blob, severity::note,
               fmt::format("blob {:#x}: is a clone of an external snapshot, but thick: nothing of that shows", b.id()));
    f.blobs = {b.id()};
}

}  // namespace varve::blob::check
