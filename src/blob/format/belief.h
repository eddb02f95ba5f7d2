// Whether the masks of a store that says it was unloaded are those of that time (docs/ondisk-blobstore.md section 3):
// the word that says so is one of 32 bits, and the masks have no checksum. Pure.
#pragma once

#include "blob/format/mask.h"
#include "blob/format/page.h"
#include "blob/format/super.h"

namespace varve::blob::format {

// The masks know of no blob at all, or not of the super blob: as of a store that died before it was ever unloaded. True
// only if no blob is there either.
bool are_doubtful(const super_block& super, const bit_mask& pages, const bit_mask& ids) noexcept;

// Metadata page `number` shows that masks which are doubtful are not those of the metadata.
bool speaks_against_masks(const super_block& super, const bit_mask& ids, page_view page, uint32_t number) noexcept;

// A page with this stamp was written by varve after this super block, so not before the store was unloaded.
bool is_later(uint32_t stamp, const super_block& super) noexcept;

}  // namespace varve::blob::format
