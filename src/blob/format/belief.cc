#include "blob/format/belief.h"

namespace varve::blob::format {

namespace {

bool misses_super_blob(const super_block& super, const bit_mask& pages, const bit_mask& ids) noexcept {
    if (!super.layout.has_blob_id(super.super_blob)) return false;
    const uint32_t root = root_page_of(super.super_blob);
    return !ids.test(root) && !pages.test(root);
}

}  // namespace

bool are_doubtful(const super_block& super, const bit_mask& pages, const bit_mask& ids) noexcept {
    return ids.count() == 0 || misses_super_blob(super, pages, ids);
}

bool speaks_against_masks(const super_block& super, const bit_mask& ids, page_view page, uint32_t number) noexcept {
    if (look_at(page, number).content != page_content::root) return false;
    return id_of_root_page(number) == super.super_blob || ids.count() == 0;
}

bool is_later(uint32_t stamp, const super_block& super) noexcept {
    if (stamp == 0 || !super.extension) return false;
    return super.extension->next_stamp == 0 || static_cast<int32_t>(stamp - super.extension->next_stamp) > 0;
}

}  // namespace varve::blob::format
