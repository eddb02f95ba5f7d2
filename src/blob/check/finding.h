// Inconsistencies of a store, as data and in words.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "blob/format/mask.h"
#include "blob/format/record.h"

namespace varve::blob::check {

enum class problem : uint8_t {
    bad_super,           // not a store, or one whose numbers contradict each other: nothing else can be said
    torn_super,          // what it says is known all the same
    lost_super,          // what it said was found elsewhere
    bad_copy,            // of the super block: damaged, or saying something else
    lost_copy,           // its page is marked as free, or another's: SPDK recovered the store since
    not_unloaded,        // died in use: the masks are to be rebuilt
    bad_mask,            // a mask that cannot be read, in a store that was unloaded
    unmarked,            // used, but a mask has it as free: the next allocation would give it to another
    leaked,              // marked as used, but nobody's
    unreadable,          // the device failed to read it
    bad_page,            // a page of a chain, or an extent page, that is not what it should be
    flipped_bit,         // in a page; the checksum tells which
    bad_root,            // marked as the first page of a blob, which it is not
    stale_root,          // first page of a blob that a mask says was deleted
    bad_blob,            // understood, but contradicts itself
    shared_clusters,     // claimed by two blobs
    shared_page,         // claimed by two blobs
    missing_parent,      // the snapshot it reads from is not there, or it reads from itself
    half_made_snapshot,  // a crash while a snapshot was made or removed; the next load ends it
    unfinished_resize,   // of SPDK's: an extent page does not fit the size
    torn_write,          // in the double-write area is what a torn page should be
    lost_double_write,   // the area's pages are marked as free: SPDK recovered the store since
    bad_volume,          // name or uuid of a logical volume, or of the store
    set_aside,           // by an earlier repair
    owners_unknown,      // what a damaged blob has cannot be known: nothing without an owner is free
};
std::string_view name_of(problem p) noexcept;  // "shared_clusters"

enum class severity : uint8_t { note, error };

struct finding {
    problem what = problem::bad_super;
    severity how_bad = severity::error;
    bool repairable = false;  // plan_repair() does something about it
    std::vector<format::blob_id> blobs;
    std::vector<uint32_t> pages;
    std::vector<format::cluster_run> clusters;
    uint64_t not_listed = 0;  // more pages or clusters than there is room for
    std::string text;
};

// Numbers in ascending order. A mask may have any of 2^31, so memory is bounded whatever it says.
struct number_list {
    void add(uint32_t first, uint32_t count);
    bool empty() const noexcept { return runs.empty(); }
    std::vector<format::cluster_run> runs;  // the first of them
    uint64_t left_out = 0;                  // numbers
};
// What `a` has and `b`, of the same size, has not.
number_list only_in(const format::bit_mask& a, const format::bit_mask& b);
void list_pages(finding& f, const number_list& pages);
void list_clusters(finding& f, number_list clusters);

// Of a blob that an earlier repair set aside: that is known and harms nobody. Nothing for another one.
std::optional<finding> look_at_aside(const format::blob_record& r);

// "1, 3-5, 9 and 312 more"
std::string in_words(std::span<const uint32_t> sorted_numbers);
std::string in_words(std::span<const format::cluster_run> runs, uint64_t more = 0);
std::string in_words(const number_list& numbers);
std::vector<format::cluster_run> as_runs(std::span<const uint32_t> sorted_numbers);

}  // namespace varve::blob::check
