#include "blob/check/examine.h"

#include <fmt/format.h>

#include <algorithm>

#include "blob/check/examiner.h"
#include "blob/format/belief.h"

namespace varve::blob::check {

using format::mask_type;

examination examine(evidence& e, examine_options how) {
    if (e.store() == nullptr) {
        examination none;
        none.findings.push_back({.what = problem::bad_super, .text = e.why_no_store()});
        return none;
    }
    return examiner(e, how).run();
}

uint64_t examination::errors() const noexcept {
    return static_cast<uint64_t>(
        std::count_if(findings.begin(), findings.end(), [](auto& f) { return f.how_bad == severity::error; }));
}

const examined_blob* examination::find(format::blob_id id) const noexcept {
    auto found = std::lower_bound(blobs.begin(), blobs.end(), id, [](auto& b, auto wanted) { return b.id() < wanted; });
    return found == blobs.end() || found->id() != id ? nullptr : &*found;
}

std::string examined_blob::name() const {
    const std::string* value = record.xattrs.find("name");
    return value == nullptr ? std::string() : value->substr(0, value->find('\0'));
}

finding& examiner::report(problem what, severity how_bad, std::string text) {
    finding& f = _out.findings.emplace_back();
    f.what = what;
    f.how_bad = how_bad;
    f.text = std::move(text);
    return f;
}

bool examiner::can_be_set_aside(const examined_blob& b) const noexcept {
    const format::page_bytes* root = _e.page(format::root_page_of(b.id()));
    return !b.aside() && !b.unreadable && root != nullptr && has_flags(*root);
}

// What is wrong with a blob that was set aside is known and harms nobody.
finding& examiner::report_blob(problem what, const examined_blob& b, std::string text) {
    finding& f = report(what, b.aside() ? severity::note : severity::error, std::move(text));
    f.blobs.push_back(b.id());
    f.repairable = can_be_set_aside(b);
    return f;
}

examination examiner::run() {
    look_at_super();
    doubt_masks();
    replay_double_write();
    mend_flipped_bits();
    find_blobs();
    link_parents();
    claim();
    judge_unreadable();
    judge_cleanness();
    report_flipped_bits();
    report_shared();
    look_at_volumes();
    find_restored();
    compare_masks();
    _out.loadable = !_out.round_unknown;
    if (_out.round_unknown)
        for (finding& f : _out.findings) f.repairable = false;
    return std::move(_out);
}

void examiner::look_at_super() {
    for (auto type : {mask_type::used_pages, mask_type::used_clusters, mask_type::used_blobids}) {
        if (region_of(type, _g).count == 0 || _e.mask_was_read(type)) continue;
        report(problem::unreadable, severity::error,
               fmt::format("{}: {}", format::name_of(type), _e.why_no_mask(type)));
    }
    if (!_e.rebuilt_from().empty()) {
        std::string_view why = _e.why_no_store();
        constexpr std::string_view prefix = "super block: ";
        if (why.starts_with(prefix)) why.remove_prefix(prefix.size());
        report(problem::lost_super, severity::error,
               fmt::format("super block: it is damaged ({}{}), and known from {}", why,
                           format::is_clear(_e.super_page()) ? "; it is all zeroes, as after a deletion" : "",
                           _e.rebuilt_from()))
            .repairable = true;
    }
    if (_super.flipped)
        report(problem::flipped_bit, severity::error, "super block: one bit of it is flipped; it is known which")
            .repairable = true;
    if (_super.origin == format::super_origin::torn || _super.origin == format::super_origin::clean_flag_torn)
        report(problem::torn_super, severity::error,
               _super.origin == format::super_origin::torn
                   ? "super block: a write of it was torn; its first sector is whole and counts"
                   : "super block: a write of its clean flag was torn; everything else in it is known")
            .repairable = true;
}

// What they deny was written before they were, if they are of the last unload.
void examiner::doubt_masks() {
    const format::bit_mask *pages = _e.mask(mask_type::used_pages), *ids = _e.mask(mask_type::used_blobids);
    if (!clean() || pages == nullptr || ids == nullptr || !format::are_doubtful(_super, *pages, *ids)) return;
    std::vector<uint32_t> against;
    for (const auto& [number, bytes] : _e.pages())
        if (format::speaks_against_masks(_super, *ids, bytes, number)) against.push_back(number);
    if (against.empty()) return;
    finding& f = report(problem::bad_mask, severity::error,
                        fmt::format("super block: says that the store was unloaded, but its masks do not know of {} "
                                    "(first pages {}): they are older, and the store was not unloaded since",
                                    ids->count() == 0 ? "any blob" : "its super blob", in_words(against)));
    f.pages = std::move(against);
    f.repairable = true;
    _out.masks_lied = true;
    _e.doubt_clean();
}

void examiner::judge_cleanness() {
    bool masks = _g.blobid_mask.count != 0;
    for (auto type : {mask_type::used_pages, mask_type::used_clusters, mask_type::used_blobids})
        masks = masks && _e.mask_was_read(type);
    const bool all_read = std::ranges::all_of(_e.unreadable_pages(), [&](auto& p) { return in_no_chain(p.first); });
    _out.can_be_clean = masks && (_super.clean || all_read);
    if (!_super.clean)
        report(problem::not_unloaded, severity::note,
               "the store was not unloaded; the next load makes its masks anew from the metadata")
            .repairable = _out.can_be_clean;
}

// ---- what cannot be read

// Of the double-write area, or the copy of the super block, and nobody else's.
bool examiner::in_no_chain(uint32_t page) const noexcept {
    const auto& extension = _super.extension;
    if (!extension) return false;
    if (_super.origin != format::super_origin::whole && _super.origin != format::super_origin::torn) return false;
    if (!_out.copy_lost && extension->copy_page != 0 && extension->copy_page == page) return true;
    return extension->double_write.exists() && !_out.double_write_lost && extension->double_write.holds(page);
}

// Pages that blobs name are those blobs' matter, and can be written anew when these are removed.
void examiner::judge_unreadable() {
    auto tell = [this](uint32_t page, std::string_view why, std::string_view more) -> finding& {
        finding& f = report(problem::unreadable, severity::error, fmt::format("page {}: {}{}", page, why, more));
        f.pages = {page};
        return f;
    };
    for (const auto& [page, why] : std::map(_e.unreadable_pages())) {
        const bool known = _named_unreadable.contains(page) || _page_owner.get(page) != 0 || _bad_roots.test(page);
        if (known) {
            tell(page, why, "");
        } else if (_how.give_up_unreadable) {
            _e.give_up(page);
        } else if (in_no_chain(page)) {
            if (!_out.round_unknown) tell(page, why, "; it is of no blob, and varve writes it anew by and by");
        } else {
            tell(page, why, "; no blob names it. --rewrite-unreadable gives it up: a blob that begins there is lost");
            const format::bit_mask* used = clean() ? _e.mask(mask_type::used_pages) : nullptr;
            if (used == nullptr || used->test(page)) _unseen.push_back(page);
        }
    }
    auto mended = [this](uint32_t page) {
        return std::ranges::find(_out.mended, page, &mended_page::page) != _out.mended.end();
    };
    for (const auto& [page, why] : _e.given_up())
        if (mended(page)) {
            finding& f = tell(page, why, "; what it should be is known, and the next load writes it anew");
            f.how_bad = severity::note;
            f.repairable = true;
        } else {
            tell(page, why, "; it is given up and written anew").repairable = true;
        }
}

// ---- flipped bits ----

// Put right where it makes a page what it has to be at this place; whether anybody names the page is seen later.
void examiner::mend_flipped_bits() {
    for (const auto& [number, bytes] : _e.pages())
        if (format::look_at(bytes, number).content == format::page_content::damaged) _flipped.push_back(number);
    std::erase_if(_flipped, [this](uint32_t number) {
        const auto mended = format::without_flipped_bit(*_e.page(number));
        if (!mended) return true;
        const auto seen = format::look_at(*mended, number);
        if (seen.content == format::page_content::elsewhere || !_g.has_blob_id(seen.header.id)) return true;
        _e.replace_page(number, *mended);
        return false;
    });
}

void examiner::report_flipped_bits() {
    for (uint32_t number : _flipped) {
        if (_page_owner.get(number) == 0) continue;
        _out.flipped.push_back(number);
        const examined_blob& b = _out.blobs[_page_owner.get(number) - 1];
        finding& f =
            report(problem::flipped_bit, b.aside() ? severity::note : severity::error,
                   fmt::format("page {}: one bit of it was flipped, which its checksum tells; it is of blob {:#x}",
                               number, b.id()));
        f.pages = {number};
        f.blobs = {b.id()};
        f.repairable = true;
    }
}

// ---- double write ----

bool examiner::read_round(format::double_write_header& header, std::vector<format::page_bytes>& images) {
    using state = format::found_header::state;
    using fate = format::judged_round::fate;
    const auto& area = _super.extension->double_write;
    const uint32_t first = area.header_page(0);
    if (_e.why_unreadable(first) != nullptr) {
        report_unknown_round(first);
        return false;
    }
    const format::page_bytes* page = _e.page(first);
    if (page == nullptr) return false;
    auto found = format::find_double_write(*page, first, area, _super.extension->store, _g);
    if (found.what == state::none) return false;
    if (found.what == state::damaged) {
        report_unknown_round(first);
        return false;
    }
    auto as_seen = [this](uint32_t number) -> std::optional<format::page_bytes> {
        if (_e.why_unreadable(number) != nullptr) return std::nullopt;
        const format::page_bytes* there = _e.page(number);
        return there == nullptr ? format::page_bytes{} : *there;
    };
    std::vector<format::image_seen> seen;
    for (uint32_t i = 0; i < found.header.images.size(); ++i)
        seen.push_back({as_seen(first + 1 + i), as_seen(found.header.images[i].page)});
    auto round = format::judge_round(found, seen);
    if (round.became == fate::unknown)
        report_unknown_round(found.what == state::torn ? first : first + 1 + static_cast<uint32_t>(round.which));
    header = std::move(found.header);
    images = std::move(round.images);
    return round.became == fate::committed;
}

// With `give_up_unreadable` what cannot be known of a change is given up, and the others are not kept from a repair.
void examiner::report_unknown_round(uint32_t page) {
    const bool unreadable = _e.why_unreadable(page) != nullptr;
    if (_how.give_up_unreadable && !unreadable) {
        _out.round_given_up = true;
        finding& f = report(problem::bad_page, severity::error,
                            fmt::format("page {}: may hold the last change before the store died, and is damaged: that "
                                        "change is given up",
                                        page));
        f.pages = {page};
        f.repairable = true;
        return;
    }
    _out.round_unknown = true;
    finding& f = report(unreadable ? problem::unreadable : problem::bad_page, severity::error,
                        fmt::format("page {}: may hold the last change before the store died, and {}: no "
                                    "load opens the store, and nothing can be repaired before --rewrite-unreadable "
                                    "gives that change up",
                                    page, unreadable ? "cannot be read" : "is damaged"));
    f.pages = {page};
}

// Of a store that died only this part of its masks is known.
void examiner::report_bad_mask_of_area() {
    const auto& area = _super.extension->double_write;
    const format::bit_mask* used = _e.mask(mask_type::used_pages);
    if (used == nullptr) {
        const bool written =
            std::ranges::any_of(_e.mask_bytes(mask_type::used_pages), [](auto b) { return b != std::byte{0}; });
        if (written)
            report(problem::bad_mask, severity::error, _e.why_no_mask(mask_type::used_pages)).repairable = true;
        return;
    }
    std::vector<uint32_t> missing;
    for (uint32_t page = area.first; page < area.first + area.page_count(); ++page)
        if (!used->test(page)) missing.push_back(page);
    if (missing.empty()) return;
    finding& f = report(problem::unmarked, severity::error,
                        fmt::format("{}: pages {}, of those where varve keeps images of pages it rewrites, are marked "
                                    "as free",
                                    format::name_of(mask_type::used_pages), in_words(missing)));
    f.pages = missing;
    f.repairable = true;
}

void examiner::replay_double_write() {
    if (!_super.extension || !_super.extension->double_write.exists()) return;
    const auto& area = _super.extension->double_write;
    const format::bit_mask* used = _e.mask(mask_type::used_pages);
    if (used != nullptr && !format::has_area(*used, area)) {
        _out.double_write_lost = true;
        report(
            problem::lost_double_write, severity::note,
            fmt::format("pages {}-{}, where varve keeps images of pages it rewrites, are marked as free: the store was "
                        "recovered by SPDK; the next load takes other pages",
                        area.first, area.first + area.page_count() - 1));
        return;
    }
    if (!format::double_write_trusted(_super, used)) return;
    report_bad_mask_of_area();
    for (uint32_t page = area.first; _how.give_up_unreadable && page < area.first + area.page_count(); ++page)
        _e.give_up(page);
    format::double_write_header header;
    std::vector<format::page_bytes> images;
    if (!read_round(header, images)) return;
    for (std::size_t i = 0; i < images.size(); ++i) {
        const uint32_t target = header.images[i].page;
        const format::page_bytes* now = _e.page(target);
        const format::page_bytes in_place = now == nullptr ? format::page_bytes{} : *now;
        const bool unreadable = _e.why_unreadable(target) != nullptr;
        if (!unreadable && !format::must_replay(header, i, images[i], in_place)) continue;
        _e.give_up(target);  // if it is unreadable: what it should be is known
        _e.replace_page(target, images[i]);
        const uint32_t image_page = area.header_page(0) + 1 + static_cast<uint32_t>(i);
        _out.mended.push_back({target, image_page});
        finding& f = report(
            problem::torn_write, severity::note,
            fmt::format("page {}: a write of it did not end; page {} holds what it should be", target, image_page));
        f.pages = {target};
        f.repairable = true;
    }
}

// Pages of blobs, or what may be such, tell nothing.
bool examiner::owners_unknown() const {
    return !_unseen.empty() || _bad_roots.count() != 0 || std::ranges::any_of(_out.blobs, &examined_blob::owns_more);
}

// Read only for what it had in common with others, and these are gone: not while one that nobody can understand, or of
// which an earlier repair kept what it could, may be among them. What was damaged stays damaged.
void examiner::find_restored() {
    auto was_damaged = [](const examined_blob& b) {
        return (b.record.flags.invalid & format::invalid_flag::set_aside) != 0;
    };
    if (owners_unknown() || std::ranges::any_of(_out.blobs, was_damaged)) return;
    for (uint32_t i = 0; i < _out.blobs.size(); ++i) {
        const examined_blob& b = _out.blobs[i];
        const auto& flags = b.record.flags;
        if ((flags.data_read_only & format::data_ro_flag::set_aside) == 0) continue;
        if (b.broken() || b.record.access() == format::blob_access::none || _sharers.contains(i)) continue;
        finding& f =
            report(problem::set_aside, severity::note,
                   fmt::format("blob {:#x}: what it was set aside for is gone; it may be written again", b.id()));
        f.blobs = {b.id()};
        f.repairable = true;
        _out.restored.push_back(b.id());
    }
}

// ---- masks ----

// A load would set some blob aside: what is marked as used and has no owner may be its.
void examiner::keep_what_a_broken_blob_may_own(mask_type type, format::bit_mask& ours) {
    const format::bit_mask* theirs = _e.mask(type);
    if (theirs == nullptr) return;
    number_list kept;
    if (clean()) kept = only_in(*theirs, ours);
    for (std::size_t i = 0; i < ours.words().size(); ++i) ours.words()[i] |= theirs->words()[i];
    if (kept.empty()) return;
    const bool clusters = type == mask_type::used_clusters;
    finding& f = report(problem::owners_unknown, severity::note,
                        fmt::format("{}: {} {} are marked as used, but nobody's: blobs that are set aside may have "
                                    "them; they are kept until these are removed",
                                    format::name_of(type), clusters ? "clusters" : "pages", in_words(kept)));
    if (clusters)
        list_clusters(f, std::move(kept));
    else
        list_pages(f, kept);
}

// The masks are of the last time the store was unloaded; a damaged blob may have got anything since. So nothing that
// has no known owner is given to others, but pages that hold nothing.
void examiner::keep_all() {
    const uint64_t known = _out.used_clusters.count();
    _out.used_clusters.set(0, _out.used_clusters.size());
    for (const auto& [number, bytes] : _e.pages()) _out.used_pages.set(number);
    for (const auto& [number, why] : _e.unreadable_pages()) _out.used_pages.set(number);
    if (known == _out.used_clusters.count()) return;
    report(problem::owners_unknown, severity::note,
           fmt::format("{} clusters without a known owner may be those of damaged blobs: they are kept until these "
                       "are removed",
                       _out.used_clusters.count() - known));
}

void examiner::compare_mask(mask_type type, const format::bit_mask& ours) {
    const format::bit_mask* theirs = _e.mask(type);
    if (theirs == nullptr) {
        if (_e.mask_was_read(type)) report(problem::bad_mask, severity::error, _e.why_no_mask(type)).repairable = true;
        return;
    }
    const number_list missing = only_in(ours, *theirs), surplus = only_in(*theirs, ours);
    const std::string_view things = type == mask_type::used_clusters ? "clusters" : "pages";
    auto tell = [&](problem what, const number_list& which, std::string_view words) {
        if (which.empty()) return;
        finding& f = report(what, severity::error,
                            fmt::format("{}: {} {} {}", format::name_of(type), things, in_words(which), words));
        f.repairable = true;
        if (type == mask_type::used_clusters)
            list_clusters(f, which);
        else
            list_pages(f, which);
    };
    if (type == mask_type::used_blobids) {
        tell(problem::unmarked, missing, "begin blobs, but are not marked");
        tell(problem::leaked, surplus, "are marked as first pages of blobs, and are not");
        return;
    }
    tell(problem::unmarked, missing, "are in use, but marked as free");
    tell(problem::leaked, surplus, "are marked as used, but nobody's");
}

// By a load: for what is wrong with itself, for what it shares, or since it reads from what is not there.
bool examiner::any_set_aside() const {
    auto aside = [this](const examined_blob& b) {
        const bool restored = std::ranges::binary_search(_out.restored, b.id());
        return b.broken() || (b.aside() && !restored) || b.record.access() == format::blob_access::none ||
               b.too_large();
    };
    return _parents_missing || !_sharers.empty() || std::ranges::any_of(_out.blobs, aside);
}

void examiner::compare_masks() {
    const bool something_unknown = !_unseen.empty() || _bad_roots.count() != 0 || any_set_aside();
    const bool masks_tell =
        clean() && _e.mask(mask_type::used_pages) != nullptr && _e.mask(mask_type::used_clusters) != nullptr;
    if (owners_unknown() && !masks_tell) keep_all();
    if (something_unknown) {
        keep_what_a_broken_blob_may_own(mask_type::used_pages, _out.used_pages);
        keep_what_a_broken_blob_may_own(mask_type::used_clusters, _out.used_clusters);
    }
    if (!clean()) return;
    compare_mask(mask_type::used_pages, _out.used_pages);
    compare_mask(mask_type::used_clusters, _out.used_clusters);
    compare_mask(mask_type::used_blobids, _out.used_blobids);
}

}  // namespace varve::blob::check
