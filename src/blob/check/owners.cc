// Blobs against each other: parents, and who owns which page and cluster.
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "blob/check/examiner.h"
#include "blob/format/super_copy.h"

namespace varve::blob::check {

void examiner::link_parents() {
    for (examined_blob& b : _out.blobs) {
        // SPDK leaves a SNAP behind when it removes a snapshot that was a clone of an external one: it means nothing.
        // Nor does one of a thick blob.
        if (!b.record.thin() || (b.record.flags.invalid & format::invalid_flag::external_snapshot) != 0) continue;
        auto parent = b.record.id_in(format::xattr_parent);
        if (!parent) {
            break_blob(b, parent.error().message(), format::no_page);
            report_blob(problem::bad_blob, b, b.wrong);
            continue;
        }
        if (*parent) b.parent = **parent;
    }
    std::set<format::blob_id> parents;
    for (const examined_blob& b : _out.blobs)
        if (b.parent) parents.insert(*b.parent);
    for (examined_blob& b : _out.blobs)
        for (std::string_view mark : {format::xattr_in_progress, format::xattr_pending_removal})
            find_half_made(b, mark, parents.contains(b.id()));
    find_ancestors();
}

// Each blob is looked at once, however long the ways up are.
void examiner::find_ancestors() {
    struct end {
        std::optional<format::blob_id> missing;
        bool circle = false;
    };
    enum : uint8_t { unknown, on_the_way, known };
    std::vector<uint8_t> state(_out.blobs.size(), unknown);
    std::vector<end> ends(_out.blobs.size());
    for (std::size_t i = 0; i < _out.blobs.size(); ++i) {
        std::vector<std::size_t> path;
        end last;
        for (std::size_t at = i;;) {
            if (state[at] != unknown) {
                last = state[at] == known ? ends[at] : end{.circle = true};
                break;
            }
            state[at] = on_the_way;
            path.push_back(at);
            const auto& parent = _out.blobs[at].parent;
            const examined_blob* above = parent ? _out.find(*parent) : nullptr;
            if (above == nullptr) {
                last.missing = parent;
                break;
            }
            at = static_cast<std::size_t>(above - _out.blobs.data());
        }
        for (std::size_t at : path) {
            ends[at] = last;
            state[at] = known;
        }
    }
    for (std::size_t i = 0; i < _out.blobs.size(); ++i) {
        const examined_blob& b = _out.blobs[i];
        _parents_missing = _parents_missing || ends[i].circle || ends[i].missing;
        if (ends[i].circle)
            report_blob(problem::missing_parent, b, fmt::format("blob {:#x}: its parents go in a circle", b.id()))
                .repairable = false;
        if (ends[i].missing)
            report_blob(problem::missing_parent, b,
                        fmt::format("blob {:#x}: reads from snapshot {:#x}, which is not there{}", b.id(),
                                    *ends[i].missing, b.parent != ends[i].missing ? " (over its parents)" : ""))
                .repairable = false;
    }
}

void examiner::find_half_made(examined_blob& b, std::string_view mark, bool has_clones) {
    auto other = b.record.id_in(mark);
    if (!other) {
        break_blob(b, other.error().message(), format::no_page);
        report_blob(problem::bad_blob, b, b.wrong);
        return;
    }
    if (!*other) return;
    const examined_blob* named = _out.find(**other);
    if (**other == b.id() || (has_clones && (named == nullptr || named->parent != b.id()))) {
        finding& f = report(problem::half_made_snapshot, b.aside() ? severity::note : severity::error,
                            fmt::format("blob {:#x}: says that a crash left it half made or half removed, with blob "
                                        "{:#x}, which is not its clone{}: no crash leaves that, and a load ignores it",
                                        b.id(), **other, has_clones ? ", while others are" : ""));
        f.blobs = {b.id()};
        f.repairable = !b.broken() && !b.aside() && !b.unreadable;
        if (f.repairable) _out.false_marks.emplace_back(b.id(), mark);
        return;
    }
    b.pending_with = **other;
    finding& f =
        report(problem::half_made_snapshot, severity::note,
               fmt::format("blob {:#x}: a crash while it was {} blob {:#x}; the next load ends this", b.id(),
                           mark == format::xattr_in_progress ? "made a snapshot of" : "being merged into", **other));
    f.blobs = {b.id(), **other};
}

bool examiner::may_share(const examined_blob& a, const examined_blob& b) const noexcept {
    return a.pending_with == b.id() || b.pending_with == a.id();
}

// `others` have something that `me` has, too. One who must not makes `me` a sharer; each of them has to be found out.
template <class Share>
void examiner::hold_against(uint32_t me, std::span<const uint32_t> others, Share share) {
    bool found = false;
    for (uint32_t other : others) {
        if (may_share(_out.blobs[other], _out.blobs[me]) || (found && _shares[other])) continue;
        share(std::minmax(me, other), other);
        found = _shares[me] = _shares[other] = true;
    }
}

// Of a page the first owners are kept: a half-made snapshot may share with its blob, and neither with a third.
void examiner::claim_page(const examined_blob& b, uint32_t page) {
    constexpr std::size_t kept = 4;
    const uint32_t me = static_cast<uint32_t>(&b - _out.blobs.data());
    _out.used_pages.set(page);
    if (_page_owner[page] == 0) {
        _page_owner[page] = me + 1;
        return;
    }
    auto& owners = _page_owners.try_emplace(page, 1, _page_owner[page] - 1).first->second;
    if (std::ranges::find(owners, me) != owners.end()) {
        _shared_pages[{me, me}].push_back(page);
        return;
    }
    hold_against(me, owners, [&](pair_of_blobs pair, uint32_t) { _shared_pages[pair].push_back(page); });
    if (owners.size() < kept) owners.push_back(me);
}

// Each run is held against those before it that reach furthest, and against all that nobody has found out yet: these
// are three at most, since each may share with the others. So whoever shares anything is found, and the work is in
// proportion to the runs, however long they are.
void examiner::find_shared_clusters() {
    struct claimed {
        format::cluster_run run;
        uint32_t blob;
        uint32_t end() const noexcept { return run.first + run.count; }
    };
    std::vector<claimed> all;
    for (uint32_t i = 0; i < _out.blobs.size(); ++i) {
        const examined_blob& b = _out.blobs[i];
        for (const auto& run : b.owned) {
            all.push_back({run, i});
            _out.used_clusters.set(run.first, run.count);
        }
        if (!b.twice.empty()) _shared_clusters[{i, i}] = b.twice;
    }
    std::ranges::sort(all, {}, [](const claimed& c) { return std::pair(c.run.first, c.blob); });
    constexpr std::size_t furthest = 8;             // to find one who is not a half-made snapshot of the same blob
    std::set<std::pair<uint32_t, uint32_t>> reach;  // end and blob of runs that are not over
    std::vector<uint32_t> end_of(_out.blobs.size()), unknown, others;
    for (const claimed& c : all) {
        while (!reach.empty() && reach.begin()->first <= c.run.first) reach.erase(reach.begin());
        std::erase_if(unknown, [&](uint32_t blob) { return _shares[blob] || end_of[blob] <= c.run.first; });
        others.clear();
        for (auto at = reach.rbegin(); at != reach.rend() && others.size() < furthest; ++at)
            others.push_back(at->second);
        others.insert(others.end(), unknown.begin(), unknown.end());
        hold_against(c.blob, others, [&](pair_of_blobs pair, uint32_t other) {
            _shared_clusters[pair].push_back({c.run.first, std::min(c.end(), end_of[other]) - c.run.first});
        });
        end_of[c.blob] = c.end();
        reach.emplace(c.end(), c.blob);
        if (!_shares[c.blob]) unknown.push_back(c.blob);
    }
}

// What is left of a damaged page may be wrong: it makes nobody a sharer, but what it names and nobody has is kept.
void examiner::keep_what_damaged_pages_name() {
    for (examined_blob& b : _out.blobs)
        for (extent_page_use& use : b.extents) {
            if (!use.damaged) continue;
            const uint32_t mine = b.record.clusters_in_extent_page(use.index);
            for (std::size_t i = 0; i < use.clusters.size(); ++i) {
                uint32_t& c = use.clusters[i];
                if (c == 0) continue;
                if (i >= mine || _out.used_clusters.test(c)) {
                    use.outside.push_back(i);
                    c = 0;
                    continue;
                }
                _out.used_clusters.set(c);
                ++b.allocated;
            }
        }
}

void examiner::claim() {
    _out.used_pages = _out.used_blobids = _bad_roots;  // stay marked: what they were may be restored
    _out.used_clusters = format::bit_mask(_g.cluster_count);
    _out.used_clusters.set(0, _g.first_data_cluster);
    _page_owner = sparse<uint32_t>(_g.md.count);
    _shares.resize(_out.blobs.size());
    for (const examined_blob& b : _out.blobs) {
        _out.used_blobids.set(format::root_page_of(b.id()));
        for (uint32_t page : b.record.pages) claim_page(b, page);
        for (const auto& use : b.extents) {
            if (use.stays())
                claim_page(b, use.page);
            else
                _out.used_pages.set(use.page);  // perhaps somebody else's; a repair takes it out of the table
        }
    }
    find_shared_clusters();
    keep_what_damaged_pages_name();
    claim_double_write();
    claim_copy();
}

// Who has pages of it is asked also where no mask tells whose it is: then nobody but they does.
void examiner::claim_double_write() {
    const format::bit_mask* used = _e.mask(format::mask_type::used_pages);
    if (!_super.extension || !_super.extension->double_write.exists() || _out.double_write_lost) return;
    const auto& area = _super.extension->double_write;
    std::vector<uint32_t> taken;
    for (uint32_t page = area.first; page < area.first + area.page_count(); ++page)
        if (_page_owner.get(page) != 0) taken.push_back(page);
    if (taken.empty()) {
        const bool ours =
            used != nullptr ? format::has_area(*used, area) : format::double_write_trusted(_super, nullptr);
        if (ours) _out.used_pages.set(area.first, area.page_count());
        return;
    }
    _out.double_write_lost = true;
    finding& f =
        report(problem::lost_double_write, severity::note,
               fmt::format("pages {}, where varve kept images of pages it rewrites, are used by blobs by now; the "
                           "next load takes other pages",
                           in_words(taken)));
    f.pages = taken;
}

// What lies there speaks for itself, unless a mask or a blob speaks against it.
void examiner::claim_copy() {
    const uint32_t page = _super.extension ? _super.extension->copy_page : 0;
    if (page == 0) return;
    const format::bit_mask* used = _e.mask(format::mask_type::used_pages);
    const format::page_bytes* now = _e.page(page);
    const bool readable = _e.why_unreadable(page) == nullptr;
    const bool copy = now != nullptr && format::is_copy_of(*now, _super.extension->store, page);
    const bool taken = now != nullptr && !format::has_copy_magic(*now);
    _out.copy_lost = _page_owner.get(page) != 0 || taken || (used == nullptr ? !copy : !used->test(page));
    if (_out.copy_lost) {
        report(problem::lost_copy, severity::note,
               fmt::format("page {}, where varve kept a copy of the super block, is others' by now, or may be; the "
                           "next load takes another page",
                           page))
            .pages = {page};
        return;
    }
    _out.used_pages.set(page);
    if (!readable || (now != nullptr && format::says_the_same(*now, _super))) return;
    _out.copy_due = true;
    // One that is whole is behind when SPDK was the last to change the super block.
    finding& f = report(problem::bad_copy, clean() && !copy ? severity::error : severity::note,
                        fmt::format("page {}: the copy of the super block {}", page,
                                    copy ? "says something else than the super block" : "is damaged"));
    f.pages = {page};
    f.repairable = true;
}

void examiner::report_shared() {
    auto tell = [&](const pair_of_blobs& pair, bool clusters, const std::string& which) -> finding& {
        const examined_blob& a = _out.blobs[pair.first];
        const examined_blob& b = _out.blobs[pair.second];
        _sharers.insert({pair.first, pair.second});
        std::string hint;
        if (a.record.stamp != 0 && b.record.stamp != 0 && a.record.stamp != b.record.stamp) {
            const bool a_later = static_cast<int32_t>(a.record.stamp - b.record.stamp) > 0;
            hint = fmt::format("; {:#x} was written later", (a_later ? a : b).id());
        }
        const bool harmless = a.aside() && b.aside();
        finding& f = report(
            clusters ? problem::shared_clusters : problem::shared_page, harmless ? severity::note : severity::error,
            &a == &b ? fmt::format("blob {:#x}: has {} {} twice", a.id(), clusters ? "clusters" : "pages", which)
                     : fmt::format("{} {} belong to both blob {:#x} and blob {:#x}{}", clusters ? "clusters" : "pages",
                                   which, a.id(), b.id(), hint));
        f.repairable = !harmless && (a.aside() || can_be_set_aside(a)) && (b.aside() || can_be_set_aside(b));
        f.blobs = {a.id()};
        if (&a != &b) f.blobs.push_back(b.id());
        return f;
    };
    for (auto& [pair, what] : _shared_clusters) tell(pair, true, in_words(what)).clusters = what;
    for (auto& [pair, what] : _shared_pages) {
        std::ranges::sort(what);
        what.erase(std::unique(what.begin(), what.end()), what.end());
        tell(pair, false, in_words(what)).pages = what;
    }
}

}  // namespace varve::blob::check
