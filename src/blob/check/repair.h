// What to change in a store so that it is consistent: bytes, with the bytes they replace. Planning writes nothing.
//
// The rules:
// - Data clusters are never written. A blob keeps every cluster and page it is known to own.
// - A blob that is damaged, or contradicts itself, is set aside: it is not opened any more (invalid flag), and what of
//   it SPDK's recovery would fail on is taken out of its chain. Blobs that claim the same clusters are set aside both.
//   Why is kept in an internal xattr where there is room; who shared with one that is gone is set free.
// - A page in which one bit flipped is put right; its checksum tells which.
// - A page that cannot be read and that no blob names is written anew only when the examination gave it up.
// - Masks are made anew from what blobs own, or may own; the store is marked as unloaded if all of it could be read.
#pragma once

#include <string>
#include <vector>

#include "blob/check/examine.h"

namespace varve::blob::check {

struct change {
    uint64_t offset = 0;  // on the device
    std::vector<std::byte> before;
    std::vector<std::byte> after;
    std::string why;
    bool lost = false;  // what was there could not be read: `before` is zeroes, and cannot be brought back
    // Not to be written: kept for an undo, which must find it as it is.
    bool is_witness() const noexcept { return !lost && before == after; }
};

struct repair_plan {
    std::vector<change> changes;  // in the order in which they are to be written; flush between them and after
    bool empty() const noexcept { return changes.empty(); }
};

// Empty when there is nothing to repair. A store that was not unloaded is brought in order, too.
repair_plan plan_repair(const evidence& e, const examination& found);

}  // namespace varve::blob::check
