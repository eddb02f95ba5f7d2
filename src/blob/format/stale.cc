#include "blob/format/stale.h"

namespace varve::blob::format {

namespace {

// What SPDK writes: then the area is not ours, though the mask has all of its pages.
bool is_of_a_chain(const page_bytes& page, uint32_t number) noexcept {
    const page_content content = look_at(page, number).content;
    return content != page_content::double_write && content != page_content::damaged && content != page_content::clear;
}

}  // namespace

last_masks::last_masks(const super_block& super, const bit_mask* used_pages, const bit_mask* used_ids,
                       const page_bytes* first_of_area) noexcept
    : _pages(used_pages), _ids(used_ids) {
    if (_pages == nullptr || _ids == nullptr || !double_write_trusted(super, _pages)) return;
    _area = super.extension->double_write;
    if (first_of_area != nullptr && is_of_a_chain(*first_of_area, _area.first)) return;
    _stamp = super.extension->masks_stamp;
}

// Two bits, and the stamp: no blob is lost for a bit that flipped.
bool last_masks::call_deleted(uint32_t page, const page_header& root) const noexcept {
    if (_stamp == 0 || _ids->test(page) || (_pages->test(page) && !_area.holds(page))) return false;
    return root.stamp == 0 || static_cast<int32_t>(root.stamp - _stamp) <= 0;
}

}  // namespace varve::blob::format
