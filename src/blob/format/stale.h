// What a deletion left, told from a blob in a store that died: by masks that are older than any blob they lack
// (docs/ondisk-blobstore.md section 7.3).
#pragma once

#include "blob/format/double_write.h"

namespace varve::blob::format {

class last_masks {
  public:
    // As on disk; null: cannot be had. They must outlive this. `first_of_area`: what the first page of the double-write
    // area holds; null: nothing, or it is not known.
    last_masks(const super_block& super, const bit_mask* used_pages, const bit_mask* used_ids,
               const page_bytes* first_of_area) noexcept;
    // Not of a store that was unloaded, nor when nobody knows how old they are, or SPDK was here since.
    bool tell() const noexcept { return _stamp != 0; }
    // Of a page that begins a blob, and is whole.
    bool call_deleted(uint32_t page, const page_header& root) const noexcept;

  private:
    const bit_mask* _pages = nullptr;
    const bit_mask* _ids = nullptr;
    double_write_area _area;
    uint32_t _stamp = 0;  // the latest there was; 0: they tell nothing
};

}  // namespace varve::blob::format
