// Finds everything in a store that does not fit.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "blob/check/evidence.h"
#include "blob/check/finding.h"

namespace varve::blob::check {

// An extent page of a blob, as its table names it.
struct extent_page_use {
    uint64_t index = 0;  // in the table
    uint32_t page = 0;
    std::string wrong;                 // empty: all is well
    std::vector<uint32_t> clusters;    // 0: unallocated, or outside of the store
    std::vector<std::size_t> outside;  // entries that name clusters the store does not have
    bool damaged = false;              // `clusters` is what is left of it: they may not be the blob's
    bool left_out = false;             // a page of two others: it was not read again

    bool stays() const noexcept { return wrong.empty() || !clusters.empty() || left_out; }
};

struct examined_blob {
    format::blob_record record;
    std::string wrong;  // the first thing that was; empty: all is well
    uint32_t wrong_page = format::no_page;
    bool chain_broken = false;  // the chain ends before its end
    bool unreadable = false;    // a page of it could not be read: nothing of it is changed, since that may come back
    std::vector<extent_page_use> extents;
    uint64_t allocated = 0;                         // clusters
    std::vector<format::cluster_run> owned, twice;  // its clusters, sorted; those it names more than once
    bool owns_more = false;                         // pages of it that named others cannot be understood
    std::optional<format::blob_id> parent;
    std::optional<format::blob_id> pending_with;  // the other blob of a half-made or half-removed snapshot

    format::blob_id id() const noexcept { return record.id; }
    bool broken() const noexcept { return !wrong.empty(); }
    bool aside() const noexcept {
        return (record.flags.invalid & format::invalid_flag::set_aside) != 0 ||
               (record.flags.data_read_only & format::data_ro_flag::set_aside) != 0;
    }
    bool too_large() const noexcept { return record.cluster_count > format::clusters_max; }  // for a load
    std::string name() const;  // xattr "name" up to its zero, or empty
};

struct mended_page {  // by the double-write area
    uint32_t page;
    uint32_t image_page;
};

struct examination {
    std::vector<finding> findings;
    std::vector<examined_blob> blobs;  // by id
    std::vector<mended_page> mended;
    // What the masks should say; of no use without a store. Clusters nobody is known to own are in it when a broken
    // blob may own them.
    format::bit_mask used_pages, used_clusters, used_blobids;
    std::vector<uint32_t> stale_roots;
    std::vector<uint32_t> flipped;          // pages of blobs in which one bit was flipped
    std::vector<format::blob_id> restored;  // that were set aside, and the reason is gone
    std::vector<std::pair<format::blob_id, std::string_view>> false_marks;  // of snapshots that are whole
    bool masks_lied = false;         // those of a store that says it was unloaded
    bool can_be_clean = false;       // all of it can be read: after a repair it may count as unloaded
    bool double_write_lost = false;  // others use its pages, or may
    bool copy_lost = false;          // of the super block; the same
    bool copy_due = false;           // it is damaged, or says something else
    bool round_unknown = false;      // whether a change was committed cannot be read: nothing can be repaired
    bool round_given_up = false;     // of one that is damaged: its header is to be cleared
    bool loadable = false;           // the next load will work; blobs with errors may be missing after it

    uint64_t errors() const noexcept;
    const examined_blob* find(format::blob_id id) const noexcept;
};

// Whether the first page of a blob has a flags descriptor: without one the blob cannot be set aside.
bool has_flags(const format::page_bytes& root) noexcept;

struct examine_options {
    // Pages that cannot be read and that no blob names count as clear, and a repair writes them anew: what began there
    // is lost.
    bool give_up_unreadable = false;
};

// Replays the double-write area in the evidence first, when that is due.
examination examine(evidence& e, examine_options how = {});

}  // namespace varve::blob::check
