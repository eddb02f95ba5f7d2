// Loading, step 3: blobs among each other. Whose parent is whose, and which way what a crash left half done goes. In
// proportion to the metadata: what is asked of each blob is found out for all of them at once.
#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <unordered_map>

#include "blob/load/loader.h"

namespace varve::blob {

namespace {
constexpr uint64_t per_page = format::clusters_per_extent_page;
}

// Also of who is set aside: what is its parent must stay, whatever becomes of it.
void loader::link_parents() {
    for (auto& [id, b] : _s._blobs) {
        if (!b->thin() || b->is_external_clone()) continue;
        auto above = b->record.id_in(format::xattr_parent);
        if (!above) {
            set_aside(*b, above.error().message());
            b->parent_unknown = true;
            continue;
        }
        if (!*above) continue;
        auto found = _s._blobs.find(**above);
        if (found == _s._blobs.end() || found->second.get() == b.get()) {
            set_aside(*b, fmt::format("its parent 0x{:x} is not there", **above));
            continue;
        }
        b->parent = found->second.get();
    }
}

// Which clusters and extent pages more than one blob names.
struct loader::census {
    explicit census(loader& l)
        : _cluster_of(l._g.cluster_count),
          _page_of(l._g.md.count),
          _clusters(l._g.cluster_count),
          _pages(l._g.md.count) {
        for (const auto& [id, b] : l._s._blobs) {
            visit(
                *b, [&](uint32_t c) { note(_cluster_of, _clusters, c, *b); },
                [&](uint32_t p) { note(_page_of, _pages, p, *b); });
            l.step(1 + b->extent_pages.pages() + b->allocated);
        }
    }
    bool others_have_of(const blob_state& b) const {
        bool found = false;
        visit(
            b, [&](uint32_t c) { found = found || _clusters.test(c); },
            [&](uint32_t p) { found = found || _pages.test(p); });
        return found;
    }

  private:
    template <class Cluster, class Page>
    static void visit(const blob_state& b, Cluster cluster, Page page) {
        for (uint32_t p : b.extent_pages) page(p);
        const layout& l = *b.current;
        for (uint64_t i = l.next(0); i < l.size; i = l.next(i + 1)) cluster(l.at(i));
    }
    static void note(sparse<const blob_state*>& first, format::bit_mask& shared, uint32_t at, const blob_state& b) {
        const blob_state*& owner = first[at];
        if (owner == nullptr) owner = &b;
        if (owner != &b) shared.set(at);
    }
    sparse<const blob_state*> _cluster_of, _page_of;  // the first who names it
    format::bit_mask _clusters, _pages;               // others do, too
};

// Snapshots that were being made or removed when the store died. Which way they go, the clone's metadata says, since
// writing it was the commit point.
void loader::settle_drafts() {
    std::set<blob_id> dropped;
    std::optional<census> named;
    std::set<const blob_state*> parents;
    for (const auto& [id, b] : _s._blobs) parents.insert(b->parent);
    for (auto& [id, b] : _s._blobs) {
        if (b->set_aside()) continue;
        for (auto mark : {format::xattr_in_progress, format::xattr_pending_removal}) {
            auto clone_id = b->record.id_in(mark);
            if (!clone_id) {
                set_aside(*b, clone_id.error().message());
                break;
            }
            if (!*clone_id) continue;
            auto clone = _s._blobs.find(**clone_id);
            const bool is_its = clone != _s._blobs.end() && clone->second->parent == b.get();
            if (**clone_id == id || (parents.contains(b.get()) && !is_its)) {  // no crash left it: others read from it
                unmark(*b, mark);
                continue;
            }
            if (clone != _s._blobs.end() && clone->second->set_aside()) {  // nobody knows which way it went
                set_aside(*b,
                          fmt::format("it was being made or removed, and its clone 0x{:x} is set aside", **clone_id));
                break;
            }
            const bool is_there = clone != _s._blobs.end();
            if (!is_there && !named) named.emplace(*this);
            const bool clone_is_lost = !is_there && !named->others_have_of(*b);
            if (!clone_is_lost && !is_its) {
                dropped.insert(id);
                break;
            }
            unmark(*b, mark);
            if (mark == format::xattr_in_progress || clone_is_lost) continue;
            // SPDK adds the snapshot's clusters to the clone's own while it removes the snapshot: they are still its.
            blob_state& c = *clone->second;
            for (uint64_t i = c.current->next(0); i < c.current->size; i = c.current->next(i + 1)) {
                if (c.current->at(i) != b->current->at(i)) continue;
                c.current->put(i, no_cluster);
                --c.allocated;
                c.unsaved_extents.insert(i / per_page);
                c.unsaved.store(true, std::memory_order_release);
            }
        }
    }
    drop(dropped);
}

// It is a snapshot like any other.
void loader::unmark(blob_state& b, std::string_view mark) {
    _to_rewrite.try_emplace(b.id, b.record.internal_xattrs);
    b.record.internal_xattrs.erase(mark);
    b.record.flags.data_read_only |= format::data_ro_flag::read_only;
}

// Nobody reads from them.
void loader::drop(const std::set<blob_id>& dropped) {
    if (dropped.empty()) return;
    std::erase_if(_to_rewrite, [&](const auto& entry) { return dropped.contains(entry.first); });
    for (blob_id id : dropped) {
        const auto found = _s._blobs.find(id);
        const blob_state& b = *found->second;
        _to_clear.push_back(format::root_page_of(id));
        for (uint32_t p : b.record.pages) _dropped_pages.push_back(p);
        for (uint32_t p : b.extent_pages) _dropped_pages.push_back(p);
        _s._blobs.erase(found);
    }
}

// Each blob is looked at once: who reads through one that is set aside, or through himself, cannot be served. The
// reason is that of who began it.
void loader::judge_lineage() {
    std::unordered_map<const blob_state*, const blob_state*> cause;  // an ancestor; null: all is well
    for (auto& [id, b] : _s._blobs) {
        std::vector<blob_state*> path;
        blob_state* up = b.get();
        for (; up != nullptr && !up->set_aside() && cause.try_emplace(up, nullptr).second; up = up->parent) {
            path.push_back(up);
            step();
        }
        if (up == nullptr) continue;
        const auto circle = std::ranges::find(path, up);
        for (auto at = circle; at != path.end(); ++at) set_aside(**at, "it is its own ancestor");
        path.erase(circle, path.end());
        if (!up->set_aside()) continue;
        const auto known = cause.find(up);
        const blob_state* why = known == cause.end() || known->second == nullptr ? up : known->second;
        for (blob_state* each : path) {
            set_aside(*each, fmt::format("its ancestor 0x{:x} is set aside: {}", why->id, why->damage));
            cause[each] = why;
        }
    }
}

// Whether any blob is set aside.
bool loader::set_aside_clones_of_the_damaged() {
    judge_lineage();
    bool any_damaged = false;
    for (auto& [id, b] : _s._blobs) {
        any_damaged = any_damaged || b->set_aside();
        if (b->parent == nullptr) continue;
        b->parent->clones.push_back(b.get());
        b->current->below = &b->parent->slot;
    }
    return any_damaged;
}

}  // namespace varve::blob
