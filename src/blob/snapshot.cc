// Snapshots and clones. The commit points are those of SPDK's format: a snapshot under way carries the id of its clone
// in an internal xattr, and whether the clone names the snapshot as its parent says which way a crash went.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "blob/store.h"
#include "thread/awaits.h"

namespace varve::blob {

namespace {
constexpr uint64_t per_page = format::clusters_per_extent_page;
constexpr uint64_t clusters_per_slice = 4096;  // looked at before others have their turn
}  // namespace

std::string text_of(blob_id id) {
    le64 wire = id;
    std::string out(sizeof wire, '\0');
    std::memcpy(out.data(), &wire, sizeof wire);
    return out;
}

// While the origin is frozen: what it has mapped is saved, the draft of the snapshot takes its clusters over, and the
// origin becomes an empty clone of it. Nothing in memory changes before that is committed.
task<blob_id> store::snapshot(blob_ref& ref, std::vector<format::xattr> xattrs) {
    blob_state& origin = ref.state();
    operation mine = co_await begin_on(origin);
    if (origin.record.access() != format::blob_access::full) {
        co_await fail(errc::invalid, fmt::format("blob 0x{:x} is read-only and needs no snapshot", origin.id));
    }
    co_await begin_change();
    co_await settle_parent(origin);
    revision draft(*this);
    auto made = std::make_unique<blob_state>(*this, format::id_of_root_page(co_await take_page(draft)));
    const blob_id id = made->id;
    auto still = co_await freeze(origin);
    auto held = co_await origin.md.lock();
    co_await save_locked(origin);

    revision now = revise(origin);
    draft.record = std::move(now.record);
    draft.extent_pages = std::move(now.extent_pages);
    draft.record.id = id;
    draft.record.xattrs = {};
    for (format::xattr& x : xattrs) draft.record.xattrs.set(x.name, x.value);
    draft.record.internal_xattrs.set(format::xattr_in_progress, text_of(origin.id));
    draft.record.flags.data_read_only |= format::data_ro_flag::read_only;
    revision clone = revise(origin);
    clone.hands_over = true;
    clone.record.flags.invalid |= format::invalid_flag::thin;
    clone.record.flags.invalid &= ~format::invalid_flag::external_snapshot;
    clone.record.internal_xattrs.erase(format::xattr_external_parent);
    clone.record.internal_xattrs.set(format::xattr_parent, text_of(id));
    clone.extent_pages.forget_pages();
    auto empty = co_await layout::make(origin.current->size);
    empty->below = &made->slot;
    if (!clone.record.uses_extent_table) lay_out_runs(clone, *empty);
    co_await commit_both(*made, draft, origin, clone);  // COMMIT POINT

    made->made_here = true;
    made->failures_told = _disk.flushes_failed();
    made->allocated = std::exchange(origin.allocated, 0);
    made->slot.store(origin.current.get(), std::memory_order_release);  // first what `empty` points to
    made->current = origin.replace_layout(std::move(empty));
    made->parent = std::exchange(origin.parent, made.get());
    if (made->parent != nullptr) std::ranges::replace(made->parent->clones, &origin, made.get());
    made->clones.push_back(&origin);
    _blobs.emplace(id, std::move(made));
    still = {};
    held.release();
    // The origin's commit made it so; what is on disk says it twice until this is written, or a load writes it.
    co_await as_result(try_twice(id, &store::unhide));
    co_return id;
}

// In one round if that can be: the pause is as long as this takes. Else the draft comes first, which says of itself
// that it is none yet.
task<> store::commit_both(blob_state& made, revision& draft, blob_state& origin, revision& clone) {
    co_await prepare(draft);
    if (!_commits->is_whole(2)) {
        co_await _commits->commit(std::move(draft.also), draft.since);
        adopt(made, draft);
        result<> outcome = co_await as_result(commit(origin, clone));
        if (!outcome) co_await bury(made.id, {.pages = made.record.pages});  // if it stays, load() drops it
        co_return co_await std::move(outcome);
    }
    co_await prepare(clone);
    std::ranges::move(clone.also, std::back_inserter(draft.also));
    co_await _commits->commit(std::move(draft.also), draft.since);
    adopt(made, draft);
    adopt(origin, clone);
}

// For what is to be tidied up: if it fails for good, it is left to the next load.
task<> store::try_twice(blob_id id, task<> (store::*what)(blob_id)) {
    if (!co_await as_result((this->*what)(id))) co_await (this->*what)(id);
}

task<> store::unhide(blob_id id) {
    blob_state& snapshot = *_blobs.at(id);
    auto held = co_await snapshot.md.lock();
    revision r = revise(snapshot);
    r.record.internal_xattrs.erase(format::xattr_in_progress);
    r.record.internal_xattrs.erase(format::xattr_pending_removal);
    co_await commit(snapshot, r);
}

task<> store::settle_parent(blob_state& b) {
    if (b.parent == nullptr) co_return;
    const format::xattr_map& marks = b.parent->record.internal_xattrs;
    if (marks.find(format::xattr_in_progress) == nullptr && marks.find(format::xattr_pending_removal) == nullptr) {
        co_return;
    }
    co_await begin_change();
    if (!b.unsaved_extents.empty()) co_await save(b);  // what it no longer has, the mark says the snapshot has
    co_await unhide(b.parent->id);
}

task<> store::drain_descendants(blob_id of) {
    std::vector<blob_id> all{of};  // as they are now: who comes later has seen the change
    for (std::size_t i = 0; i < all.size(); ++i) {
        for (const blob_state* clone : _blobs.at(all[i])->clones) all.push_back(clone->id);
    }
    for (blob_id id : all) {
        for (const blob_state* b = find(id); b != nullptr && b->device != nullptr; b = find(id)) {
            if (co_await as_result(_devices.drain(*b->device))) break;
            co_await _device_gone.wait();  // it is being removed, and its requests end before
        }
    }
    co_await fills_ended(all);
}

task<blob_id> store::clone(blob_ref& ref, std::vector<format::xattr> xattrs) {
    blob_state& below = ref.state();
    if (!below.read_only()) {
        co_await fail(errc::invalid, fmt::format("blob 0x{:x} is not read-only and cannot have clones", below.id));
    }
    operation mine = co_await begin_on(below);
    co_await begin_change();
    revision r(*this);
    auto made = std::make_unique<blob_state>(*this, format::id_of_root_page(co_await take_page(r)));
    r.record.id = made->id;
    r.record.uses_extent_table = true;
    r.record.flags.invalid = format::invalid_flag::extent_table | format::invalid_flag::thin;
    r.record.flags.md_read_only = below.record.flags.md_read_only & format::md_ro_flag::clear_method;
    r.record.cluster_count = below.record.cluster_count;
    for (format::xattr& x : xattrs) r.record.xattrs.set(x.name, x.value);
    r.record.internal_xattrs.set(format::xattr_parent, text_of(below.id));
    r.extent_pages.resize(r.record.extent_page_count());
    auto empty = co_await layout::make(r.record.cluster_count);
    empty->below = &below.slot;
    co_await commit(*made, r);
    made->replace_layout(std::move(empty)).reset();
    made->made_here = true;
    made->failures_told = _disk.flushes_failed();
    made->parent = &below;
    below.clones.push_back(made.get());
    const blob_id id = made->id;
    _blobs.emplace(id, std::move(made));
    co_return id;
}

// --- removing a snapshot that has one clone

task<> store::merge_into_clone(blob_state& snapshot, remains* left) {
    blob_state& clone = *snapshot.clones.front();
    operation one = co_await begin_on(snapshot), other = co_await begin_on(clone);
    one.remove();
    co_await settle_parent(snapshot);
    auto alone = co_await snapshot.chores.lock();
    if (clone.record.access() == format::blob_access::data_only) co_await fail(errc::not_permitted);
    uint64_t looked_at = 0;
    for (uint64_t i = 0; (i = next_hidden(*snapshot.current, i)) < clone.current->size; ++i) {
        if (clone.current->at(i) == no_cluster) co_await ensure_cluster(clone, i);
        if (++looked_at % clusters_per_slice == 0) co_await yield();
    }
    auto held = co_await snapshot.md.lock();
    co_await begin_change();
    co_await save_locked(snapshot);  // its extent pages go to the clone as they are
    revision marked = revise(snapshot);
    marked.record.internal_xattrs.set(format::xattr_pending_removal, text_of(clone.id));
    co_await commit(snapshot, marked);
    held.release();
    result<> outcome = co_await as_result(take_over(clone, snapshot, left));
    if (!outcome) {
        co_await as_result(try_twice(snapshot.id, &store::unhide));  // while the clone names it, the mark means nothing
        co_await std::move(outcome);
    }
}

// Extent pages of the clone as `merged` has them: its own where nothing changes, the snapshot's where the clone had
// none, new ones where both have some.
result<> store::merge_extents(revision& r, const blob_state& clone, const blob_state& snapshot, const layout& merged) {
    const layout& theirs = *snapshot.current;  // where it has nothing, nothing changes
    for (uint64_t at = theirs.next(0); at < std::min(merged.size, theirs.size);) {
        const uint64_t i = at / per_page;
        at = theirs.next((i + 1) * per_page);
        auto contents = extents_of(merged, i, merged.size);
        if (contents == extents_of(*clone.current, i, merged.size)) continue;
        const uint32_t its = snapshot.extent_pages[i];
        if (its != extent_table::none && contents == extents_of(*snapshot.current, i, snapshot.current->size)) {
            r.extent_pages.set(i, its);
        } else {
            VARVE_TRY(add_extent_page(r, i, std::move(contents)));
        }
    }
    return {};
}

task<> store::take_over(blob_state& clone, blob_state& snapshot, remains* left) {
    auto still = co_await freeze(clone);
    auto held = co_await clone.md.lock();
    co_await save_locked(clone);
    const layout& mine = *clone.current;
    const layout& its = *snapshot.current;
    for (uint64_t i = 0; (i = next_hidden(its, i)) < mine.size; ++i) {
        if (mine.at(i) == no_cluster) co_await fail(errc::io, "a flush has failed, and clusters of zeroes are lost");
    }
    auto merged = co_await layout::make(mine.size);
    merged->below = its.below;
    merged->external = its.external;
    uint64_t allocated = clone.allocated;
    for (uint64_t i = mine.next(0); i < mine.size; i = mine.next(i + 1)) merged->put(i, mine.at(i));
    for (uint64_t i = its.next(0); i < std::min(mine.size, its.size); i = its.next(i + 1)) {
        if (mine.at(i) != no_cluster) continue;
        merged->put(i, its.at(i));
        ++allocated;
    }
    revision r = revise(clone);
    format::xattr_map& internal = r.record.internal_xattrs;
    internal.erase(format::xattr_parent);
    r.record.xattrs.erase(_tied);
    for (auto name : {format::xattr_parent, format::xattr_external_parent}) {
        if (const std::string* value = snapshot.record.internal_xattrs.find(name)) internal.set(name, *value);
    }
    r.record.flags.invalid |= snapshot.record.flags.invalid & format::invalid_flag::external_snapshot;
    if (r.record.uses_extent_table) {
        co_await merge_extents(r, clone, snapshot, *merged);
    } else {
        lay_out_runs(r, *merged);
    }
    co_await commit(clone, r);  // COMMIT POINT

    stale_root stale = left_of(snapshot, *merged, clone.extent_pages);
    snapshot.leaving.clear();
    snapshot.departed.clear();
    clone.allocated = allocated;
    retire(clone.replace_layout(std::move(merged)));
    clone.parent = snapshot.parent;
    if (clone.parent != nullptr) std::ranges::replace(clone.parent->clones, &snapshot, &clone);
    snapshot.parent = nullptr;
    snapshot.clones.clear();
    snapshot.hidden = true;
    still = {};
    held.release();
    // What the clone has of its own, those above it may still be reading in the snapshot.
    co_await drain_descendants(clone.id);
    const std::vector<uint32_t> nobodys = co_await bury(snapshot.id, std::move(stale));
    auto node = _blobs.extract(snapshot.id);
    part_with(*node.mapped(), nobodys, left);
    retire(std::move(node.mapped()));
}

store::stale_root store::left_of(const blob_state& snapshot, const layout& merged, const extent_table& extent_pages) {
    stale_root left{.pages = snapshot.record.pages, .clusters = snapshot.leaving};
    left.clusters.insert(left.clusters.end(), snapshot.departed.begin(), snapshot.departed.end());
    const extent_table& old = snapshot.extent_pages;
    for (uint64_t i = old.next(0); i < old.size(); i = old.next(i + 1)) {
        if (extent_pages[i] != old[i]) left.pages.push_back(old[i]);
    }
    const layout& its = *snapshot.current;
    for (uint64_t i = its.next(0); i < its.size; i = its.next(i + 1)) {
        if (uint32_t c = its.at(i); merged.at(i) != c) left.clusters.push_back(c);
    }
    return left;
}

// --- what a root page names is nobody else's while it is on the media

task<std::vector<uint32_t>> store::bury(blob_id id, stale_root left) {
    std::vector<uint32_t> nobodys;
    if (co_await as_result(try_twice(id, &store::clear_root))) {
        nobodys = std::exchange(left.clusters, {});
        free_stale_root(left);
    } else {
        _stale_roots.emplace(id, std::move(left));
    }
    co_return nobodys;
}

task<> store::clear_stale_roots() {
    auto one = co_await _burying.lock();
    while (!_stale_roots.empty()) {
        auto first = _stale_roots.begin();
        co_await clear_root(first->first);
        free_stale_root(first->second);
        _stale_roots.erase(first);
    }
}

void store::free_stale_root(const stale_root& of) noexcept {
    for (uint32_t page : of.pages) _space.free_page(page);
    for (uint32_t c : of.clusters) _space.free_cluster(c);
    start_trimming();
}

}  // namespace varve::blob
