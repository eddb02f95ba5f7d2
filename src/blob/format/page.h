// One metadata page by itself: is it whole, what is it, and for extent pages what it holds.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "blob/format/geometry.h"

namespace varve::blob::format {

struct page_header {
    blob_id id = 0;
    uint32_t sequence = 0;
    uint32_t stamp = 0;
    uint32_t next = no_page;
};

enum class page_content : uint8_t {
    clear,         // all zeros: free
    damaged,       // its checksum is wrong: torn, or never metadata
    root,          // first page of the blob this page number stands for
    continuation,  // a later page of some chain
    extents,       // an extent page: belongs to whoever's extent table names it
    double_write,  // header of a double-write slot
    super_copy,    // a copy of the super block
    elsewhere,     // whole, but a first page with another page's id: an image in a double-write slot, or misplaced
};
std::string_view name_of(page_content content) noexcept;

struct glimpse {
    page_content content = page_content::clear;
    page_header header;  // of the last six: as read
};

// What metadata page `number` is. Says nothing about whether it is in use.
glimpse look_at(page_view page, uint32_t number) noexcept;

page_header header_of(page_view page) noexcept;
uint32_t crc_of(page_view page) noexcept;  // what SPDK wants in the last four bytes
bool crc_right(page_view page) noexcept;
bool is_clear(page_view page) noexcept;

// An extent page: where up to 512 clusters of a blob are.
struct extent_page {
    blob_id id = 0;  // who wrote it; after SPDK made a snapshot the page may serve another blob
    uint32_t stamp = 0;
    uint32_t first_cluster = 0;      // of the blob; a multiple of 512
    std::vector<uint32_t> clusters;  // 0: unallocated. May be shorter than what the blob's size asks for, or longer:
                                     // a resize that SPDK did not finish. Empty is possible, too.
};

// Checks checksum, place in the chain (none), shape, and each cluster number against the geometry.
result<extent_page> decode_extent_page(page_view page, uint32_t number, const geometry& g);

// When the checksum is wrong because one bit of the page flipped, it tells which: the page as it was. It can be
// deceived only by damage to three bits or more, of which it takes one in 100,000 for a flipped bit.
std::optional<page_bytes> without_flipped_bit(page_view page) noexcept;

// An extent page as far as it can be read when its checksum is wrong or it names clusters that the store does not have
// (they count as unallocated here). bad_sequence: not the shape of an extent page.
struct salvaged_extent_page {
    extent_page page;
    std::vector<std::size_t> outside;  // entries that name clusters the store does not have
};
result<salvaged_extent_page> salvage_extent_page(page_view page, uint32_t number, const geometry& g);

// At most 512 clusters.
page_bytes encode_extent_page(const extent_page& page);

}  // namespace varve::blob::format
