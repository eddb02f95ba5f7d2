// One blob as its store holds it. Store's thread, except for what is marked; users have a blob_ref (store.h).
#pragma once

#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "bdev/registry.h"
#include "blob/cluster_map.h"
#include "blob/extent_table.h"
#include "blob/format/record.h"
#include "thread/frame_pool.h"
#include "thread/sync.h"
#include "util/list.h"

namespace varve::blob {

class store;
struct errand;

// A cluster that a blob does not have yet, and who waits for it.
struct wish {
    explicit wish(uint64_t of) noexcept : index(of) {}
    const uint64_t index;           // of the blob's clusters
    uint32_t cluster = no_cluster;  // found for it and filled, and not yet in the blob's metadata
    uint64_t since = 0;             // it was filled when so many flushes had failed
    queue<work> requests;           // errands
    // An operation, which has no request.
    struct listener : list_node<> {
        event over;
        result<> outcome;
    };
    list<listener> operations;
};

// A mapping that requests find already, and the media does not have.
struct unsaved_mapping {
    uint64_t index = 0;
    uint32_t cluster = no_cluster;
};

struct blob_state {
    blob_state(store& s, blob::format::blob_id i) : owner(s), id(i) {}

    store& owner;
    const format::blob_id id;
    // --- any thread
    layout_slot slot{nullptr};
    std::atomic<bool> unsaved{false};  // clusters are mapped in memory and not yet on the media

    // --- as on disk, or as the next commit makes it
    format::blob_record record;  // extent_pages and runs are made from what follows when it is written
    extent_table extent_pages;
    std::unique_ptr<layout> current;  // what slot points to
    uint64_t allocated = 0;           // clusters of its own
    blob_state* parent = nullptr;     // the snapshot below
    std::vector<blob_state*> clones;
    std::string damage;           // not empty: set aside, and why
    bool parent_unknown = false;  // set aside, and what would name its parent cannot be read
    bool made_here = false;       // since the store was loaded

    unsigned opens = 0;
    bool busy = false;               // a long operation works on it; others get errc::busy
    bool going = false;              // ... which removes it: nobody opens it
    bool hidden = false;             // a draft of a snapshot
    mutex md;                        // held from reading the record to having changed it
    bdev::device* device = nullptr;  // what serves it, for freezing

    // --- first writes
    std::unordered_map<uint64_t, wish, std::hash<uint64_t>, std::equal_to<>,
                       thread::frame_allocator<std::pair<const uint64_t, wish>>>
        wanted;                 // by cluster index
    std::vector<wish*> to_map;  // of them, those that have a cluster to be committed
    bool mapping_runs = false;
    std::set<uint64_t> unsaved_extents;             // indices of extent pages that differ from the media
    std::vector<unsaved_mapping> unsaved_mappings;  // no flush has failed since something was written to these
    // Free metadata pages that nobody else gets, for so many extent pages (or runs) that the media does not have yet,
    // and the chain that will name them.
    uint32_t pages_promised = 0;
    uint64_t promised_for = 0;
    bool save_failed = false;    // and that was logged
    uint64_t failures_told = 0;  // failed flushes of the device that whoever flushes the blob knows of
    unsigned losing = 0;         // requests are awaited that may have written to clusters it lost

    // --- clusters it has given up (discard.cc)
    std::vector<uint32_t> leaving;   // the media may still name them
    std::vector<uint32_t> departed;  // requests may still be under way to them
    bool releasing = false;          // somebody sees to those
    mutex chores;                    // held by whoever does something for the store in the background

    bool set_aside() const noexcept { return !damage.empty(); }
    bool thin() const noexcept { return record.thin(); }
    bool is_external_clone() const noexcept {
        return (record.flags.invalid & format::invalid_flag::external_snapshot) != 0;
    }
    bool read_only() const noexcept {
        return record.access() == format::blob_access::read_only || record.access() == format::blob_access::none;
    }
    // Gives the old one, which other threads may still be reading: store::retire.
    [[nodiscard]] std::unique_ptr<layout> replace_layout(std::unique_ptr<layout> l) noexcept {
        slot.store(l.get(), std::memory_order_release);
        current.swap(l);
        return l;
    }
};

// As internal xattrs have it.
std::string text_of(format::blob_id id);

}  // namespace varve::blob
