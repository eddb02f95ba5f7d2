// What a chain of metadata pages says about one blob. A chain begins at the page its blob id names and goes on from
// `next` to `next`; extent pages are not part of it, an extent table in it names them.
//
// Stamps (docs/ondisk-blobstore.md section 7.3): varve writes one non-zero number, new each time, into all pages of a
// chain it writes; SPDK writes 0. A chain of pages with different stamps holds a page that is whole but of another
// time: it is refused.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "blob/format/geometry.h"
#include "blob/format/page.h"

namespace varve::blob::format {

struct xattr {
    std::string name;
    std::string value;
    bool operator==(const xattr&) const = default;
};

// Names and values in the order in which they lie on disk. Names are unique unless a disk said otherwise; then the
// first counts, as in SPDK.
class xattr_map {
  public:
    const std::string* find(std::string_view name) const noexcept;
    void set(std::string_view name, std::string_view value);  // in place, or at the end
    bool erase(std::string_view name);                        // false: there was none
    void append(xattr x) { _all.push_back(std::move(x)); }
    std::size_t size() const noexcept { return _all.size(); }
    auto begin() const noexcept { return _all.begin(); }
    auto end() const noexcept { return _all.end(); }
    bool operator==(const xattr_map&) const = default;

  private:
    std::vector<xattr> _all;
};

struct cluster_run {
    uint32_t first = 0;  // 0: unallocated
    uint32_t count = 0;
    bool operator==(const cluster_run&) const = default;
};
// Appends `count` clusters from `first`, joining them with the last run where they continue it, as SPDK writes runs.
void append(std::vector<cluster_run>& runs, uint32_t first, uint32_t count = 1);

struct extent_page_run {
    uint32_t page = 0;   // 0: no extent page, all its 512 clusters are unallocated
    uint32_t count = 0;  // 1 unless page is 0
    bool operator==(const extent_page_run&) const = default;
};
void append(std::vector<extent_page_run>& runs, uint32_t page);

struct unknown_descriptor {
    uint8_t type = 0;
    std::string bytes;
    bool operator==(const unknown_descriptor&) const = default;
};

struct blob_flags {
    uint64_t invalid = 0, data_read_only = 0, md_read_only = 0;  // invalid_flag, data_ro_flag, md_ro_flag
    bool operator==(const blob_flags&) const = default;
};

enum class blob_access : uint8_t { full, data_only, read_only, none };

struct blob_record {
    blob_id id = 0;
    blob_flags flags;
    xattr_map xattrs;
    xattr_map internal_xattrs;
    bool uses_extent_table = false;
    uint64_t cluster_count = 0;                 // at most 2^32 - 1
    std::vector<cluster_run> runs;              // without extent table: they make cluster_count
    std::vector<extent_page_run> extent_pages;  // with: they make cluster_count / 512, rounded up
    std::vector<unknown_descriptor> unknown;    // kept; SPDK ignores them when clean, refuses the store when not
    std::vector<uint32_t> pages;                // of the chain, the root first
    uint32_t stamp = 0;

    bool thin() const noexcept { return (flags.invalid & invalid_flag::thin) != 0; }
    blob_access access() const noexcept;
    // Every flag is known: what it says may be changed, also when its data is read-only.
    bool may_be_changed() const noexcept;
    // The eight-byte blob id in an internal xattr (SNAP, SNAPTMP, SNAPRM); bad_sequence when it is not eight bytes.
    result<std::optional<blob_id>> id_in(std::string_view internal_xattr) const;
    uint64_t extent_page_count() const noexcept {
        return (cluster_count + clusters_per_extent_page - 1) / clusters_per_extent_page;
    }
    // Clusters which extent page `index` should hold: 512, in the last one perhaps fewer.
    uint32_t clusters_in_extent_page(uint64_t index) const noexcept;
    bool operator==(const blob_record&) const = default;
};

struct numbered_page {
    uint32_t number;
    page_view bytes;
};

// The chain `pages`, root first, must be complete: each one's `next` is the one after it. bad_sequence says what is
// wrong with which page.
result<blob_record> decode_chain(std::span<const numbered_page> pages, const geometry& g);

// The same for fsck: everything that could be understood, and the first thing that was wrong, if any. The record's
// clusters and extent pages are inside the geometry even then.
struct decoded_chain {
    blob_record record;
    std::optional<error> wrong;
};
decoded_chain decode_chain_as_far_as_possible(std::span<const numbered_page> pages, const geometry& g);

// Compares an extent page with its place in the blob's table; the errors are those that make SPDK refuse the blob.
// Fewer or more clusters than the size asks for are none: missing ones are unallocated, surplus ones not the blob's,
// but SPDK would claim them at its next recovery, so rewrite the page before they are used again.
result<> check_place(const extent_page& page, uint32_t page_number, const blob_record& record, uint64_t index);

// How many pages the chain of this record takes. invalid: an xattr does not fit into a page.
result<std::size_t> chain_length(const blob_record& record);

// The pages of the chain, to be written to record.pages, the root last. invalid: record.pages is not chain_length()
// long, or the record cannot be expressed.
result<std::vector<page_bytes>> encode_chain(const blob_record& record);

}  // namespace varve::blob::format
