// Blob after blob: its chain, its extent pages, its flags.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "blob/check/descriptors.h"
#include "blob/check/examiner.h"

namespace varve::blob::check {

using format::page_content;

void examiner::find_blobs() {
    const format::bit_mask* ids = clean() ? _e.mask(format::mask_type::used_blobids) : nullptr;
    for (const auto& [number, why] : _e.unreadable_pages())
        report(problem::unreadable, severity::error, fmt::format("page {}: {}", number, why)).pages = {number};
    for (const auto& [number, bytes] : _e.pages()) {
        if (format::look_at(bytes, number).content != page_content::root) continue;
        if (ids != nullptr && !ids->test(number))
            report_stale_root(number);
        else
            read_blob(number);
    }
    find_bad_roots(ids);
}

void examiner::report_stale_root(uint32_t number) {
    finding& f =
        report(problem::stale_root, severity::error,
               fmt::format("page {}: first page of blob {:#x}, which according to the used_blobid_mask does not "
                           "exist: what a deletion left; SPDK's recovery would bring it back",
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
    _bad_roots.push_back(number);
}

void examiner::find_bad_roots(const format::bit_mask* ids) {
    if (ids == nullptr) {  // no mask to believe: a damaged page that still says whose first page it is
        for (const auto& [number, bytes] : _e.pages()) {
            const auto seen = format::look_at(bytes, number);
            if (seen.content == page_content::damaged && seen.header.id == format::id_of_root_page(number) &&
                seen.header.sequence == 0)
                report_bad_root(number, format::name_of(seen.content));
        }
        return;
    }
    for (uint32_t number = 0; number < ids->size(); ++number) {
        if (!ids->test(number)) continue;
        const format::page_bytes* bytes = _e.page(number);
        const auto seen = bytes == nullptr ? format::glimpse{} : format::look_at(*bytes, number);
        if (seen.content == page_content::root) continue;
        const format::bit_mask* pages = _e.mask(format::mask_type::used_pages);
        if (bytes == nullptr && _e.why_unreadable(number) == nullptr && pages != nullptr && !pages->test(number))
            continue;  // the mask is wrong
        const bool unreadable = bytes == nullptr && _e.why_unreadable(number) != nullptr;
        report_bad_root(number, unreadable ? "unreadable" : format::name_of(seen.content));
    }
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
    for (const auto& run : b.record.runs)
        if (run.first != 0) b.allocated += run.count;
    for (const auto& use : b.extents)
        b.allocated += static_cast<uint64_t>(use.clusters.size()) -
                       static_cast<uint64_t>(std::count(use.clusters.begin(), use.clusters.end(), 0u));
    look_at_flags(b);
    if (!b.broken()) return;
    finding& f = report_blob(b.wrong_page == format::no_page ? problem::bad_blob : problem::bad_page, b,
                             fmt::format("blob {:#x}: {}", b.id(), b.wrong));
    if (b.wrong_page != format::no_page) f.pages = {b.wrong_page};
}

void examiner::read_chain(examined_blob& b) {
    static const format::page_bytes clear{};
    std::vector<format::numbered_page> chain;
    std::vector<uint32_t> seen;
    std::string cut;
    for (uint32_t number = format::root_page_of(b.id());;) {
        const format::page_bytes* bytes = _e.page(number);
        chain.push_back({number, bytes == nullptr ? clear : *bytes});
        seen.push_back(number);
        const bool whole = bytes != nullptr && format::crc_right(*bytes);
        const uint32_t next = whole ? format::header_of(*bytes).next : format::no_page;
        if (next == format::no_page) break;
        if (!_g.has_md_page(next)) {
            cut = fmt::format("page {}: next is {}, the store has {} metadata pages", number, next, _g.md.count);
            break;
        }
        if (std::find(seen.begin(), seen.end(), next) != seen.end()) {
            cut = fmt::format("page {}: next is {}, which is in the chain already", number, next);
            break;
        }
        number = next;
    }
    auto decoded = format::decode_chain_as_far_as_possible(chain, _g);
    const format::blob_id id = b.id();
    b.record = std::move(decoded.record);
    b.record.id = id;
    b.chain_broken = b.record.pages.size() < chain.size() || !cut.empty();
    if (decoded.wrong) {
        const bool later = b.record.pages.size() < chain.size();
        break_blob(b, cut.empty() ? decoded.wrong->message() : cut,
                   later ? chain[b.record.pages.size()].number : chain.back().number);
    }
}

void examiner::read_extents(examined_blob& b) {
    uint64_t index = 0;
    for (const auto& run : b.record.extent_pages) {
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
        use.wrong = fmt::format("page {}: {}, should be an extent page", use.page, why == nullptr ? "clear" : *why);
        return;
    }
    // Cluster numbers outside of the store are looked for first, so that the other 511 are not lost with one.
    format::page_bytes copy = *bytes;
    format::extent_page_wire head;
    constexpr std::size_t at = offsetof(format::md_page_wire, descriptors);
    std::memcpy(&head, copy.data() + at, sizeof head);
    const std::size_t room = (format::descriptor_space - sizeof head) / sizeof(le32);
    if (format::look_at(copy, use.page).content == page_content::extents && head.header.length >= sizeof(le32))
        for (std::size_t i = 0; i < std::min<std::size_t>(room, head.header.length / sizeof(le32) - 1); ++i) {
            le32 cluster;
            std::byte* where = copy.data() + at + sizeof head + i * sizeof cluster;
            std::memcpy(&cluster, where, sizeof cluster);
            if (cluster == 0 || _g.has_data_cluster(cluster)) continue;
            use.outside.push_back(i);
            std::memset(where, 0, sizeof cluster);
        }
    if (!use.outside.empty()) {
        const le32 crc = format::crc_of(copy);
        std::memcpy(copy.data() + offsetof(format::md_page_wire, crc), &crc, sizeof crc);
    }
    auto decoded = format::decode_extent_page(copy, use.page, _g);
    auto placed = decoded ? format::check_place(*decoded, use.page, b.record, use.index) : result<>();
    if (!use.outside.empty()) {
        auto original = format::decode_extent_page(*bytes, use.page, _g);
        use.wrong = original ? std::string("clusters outside of the store") : original.error().message();
    }
    if (!decoded || (!placed && decoded->first_cluster != use.index * format::clusters_per_extent_page)) {
        use.outside.clear();
        use.wrong = (decoded ? placed.error() : decoded.error()).message();
        return;
    }
    if (!placed && use.wrong.empty()) use.wrong = placed.error().message();
    use.clusters = std::move(decoded->clusters);
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

void examiner::look_at_flags(examined_blob& b) {
    const auto& r = b.record;
    if (b.aside()) {
        const std::string* why = r.internal_xattrs.find(format::xattr_set_aside);
        finding& f = report(problem::set_aside, severity::note,
                            fmt::format("blob {:#x} {}: was set aside{}{}", b.id(),
                                        r.access() == format::blob_access::none ? "(not opened)" : "(read only)",
                                        why == nullptr ? "" : ": ", why == nullptr ? "" : *why));
        f.blobs = {b.id()};
    }
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
    if (b.broken()) return;
    const bool external = (r.flags.invalid & format::invalid_flag::external_snapshot) != 0;
    if (external && r.internal_xattrs.find(format::xattr_external_parent) == nullptr)
        break_blob(b, "is a clone of an external snapshot, and does not say of which", format::no_page);
    if (external && !r.thin()) break_blob(b, "is a clone of an external snapshot, but not thin", format::no_page);
}

}  // namespace varve::blob::check
