// Looking for what a lost super block said: reads a device from the front on for copies of it and whatever else tells
// where the metadata lies (docs/ondisk-blobstore.md section 7.6). Time is bounded by the size of the metadata as far as
// anything tells it, memory by constants, whatever the device holds.
#pragma once

#include <optional>
#include <vector>

#include "blob/check/inspect.h"
#include "blob/format/super_copy.h"

namespace varve::blob::check {

// The first page of a blob. Where the metadata begins depends on how far apart its pages are.
struct root_seen {
    uint64_t offset = 0;
    format::blob_id id = 0;
    bool own_of_store = false;  // has what the super blob of a store of volumes has: name, uuid, no clusters

    uint32_t page() const noexcept { return format::root_page_of(id); }
};

struct mask_header_seen {
    uint64_t offset = 0;
    format::mask_type type{};
    uint32_t length = 0;
    uint32_t leading_ones = 0;  // at most as many as the first 4,096 bytes have
};

struct slot_seen {  // a header of the double-write area
    uint64_t offset = 0;
    uint32_t own_page = 0;
    uuid store;
};

struct clusters_seen {  // named by one page
    uint64_t offset = 0;
    uint32_t least = UINT32_MAX, most = 0;
};

// All in the order of their offsets, the first of each kind. What lies in data may be anybody's invention.
struct search_result {
    std::vector<root_seen> roots;
    std::vector<mask_header_seen> masks;  // in front of the first root
    std::vector<slot_seen> slots;
    std::vector<clusters_seen> named;
    std::optional<format::super_copy> copy;  // the one that counts
    uint64_t searched = 0;                   // bytes, from the front on

    // The length of the metadata that two headers of masks agree in, when its pages are so far apart; else 0.
    uint32_t md_length(uint32_t md_page_size) const noexcept;
    const mask_header_seen* mask_at(uint64_t offset) const noexcept;
};

search_result search(storage& from);

// Whether it is worth a search that nobody asked for: something in the first pages is what only a store has.
bool has_trace(storage& from, format::page_view super_page);

// Bits in which they differ.
unsigned distance(std::span<const std::byte> a, std::span<const std::byte> b) noexcept;
// The damaged super block is one: most of its signature is there.
bool is_mostly_super(format::page_view page) noexcept;

}  // namespace varve::blob::check
