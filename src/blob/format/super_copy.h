// A copy of the super block in a metadata page of its own (docs/ondisk-blobstore.md section 7.5): with it a super block
// can be made anew of which nothing is left. It has what rarely changes; whether the store was unloaded it does not
// know.
#pragma once

#include <optional>

#include "blob/format/mask.h"
#include "blob/format/super.h"

namespace varve::blob::format {

struct super_copy {
    uint32_t own_page = 0;
    uint64_t sequence = 0;  // of the super block it was made of; the larger is the later
    super_block super;      // not clean; its extension names the copy
};

// `s` has an extension, and it names the copy's page.
page_bytes encode_super_copy(const super_block& s);

// bad_sequence: not a copy, or damaged, or of a store that this device cannot hold. That it lies in its place is for
// the caller to see.
result<super_copy> decode_super_copy(page_view page, const device_shape& device);

// Whether `page` is a copy that says of its store what `s` does, though it may have been written before `s` was.
bool says_the_same(page_view page, const super_block& s) noexcept;
// Whether `page` is a copy for that place in that store, whatever it says.
bool is_copy_of(page_view page, const uuid& store, uint32_t own_page) noexcept;
bool has_copy_magic(page_view page) noexcept;  // it was one, though it may be damaged

// The last free page: where a new copy goes. None: the store goes without, as it does when it has few pages.
std::optional<uint32_t> place_super_copy(const bit_mask& used_pages) noexcept;
constexpr uint32_t pages_least_for_copy = 24;

}  // namespace varve::blob::format
