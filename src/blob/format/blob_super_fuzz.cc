// Fuzzes what is at the front of a store: super block, its copy, and masks. The first byte says how large the device
// is, and whether the checksums are to be made right; a decoded super block must encode to one that decodes the same,
// with a geometry whose numbers can be used unchecked.
#include <algorithm>
#include <cstring>

#include "accel/crc32c.h"
#include "blob/format/mask.h"
#include "blob/format/page.h"
#include "blob/format/super_copy.h"
#include "util/assert.h"

namespace varve::blob::format {
namespace {

void check_geometry(const geometry& g, const device_shape& device) {
    VARVE_ASSERT(g.size.value <= device.size.value && g.first_data_cluster <= g.cluster_count);
    VARVE_ASSERT(g.offset_of_md_page(g.md.count) <= g.offset_of_cluster(g.first_data_cluster));
    VARVE_ASSERT(g.offset_of_cluster(g.cluster_count) <= device.size.value);
    for (page_range r : {g.page_mask, g.cluster_mask, g.blobid_mask})
        VARVE_ASSERT(r.count == 0 || r.first + r.count <= g.md.first);
    VARVE_ASSERT(g.cluster_count_max() >= g.cluster_count);
    if (auto larger = grown(g, {{device.size.value * 2}, device.block_size}))
        check_geometry(*larger, {larger->size, 512});
}

void check_super(page_view page, const device_shape& device) {
    auto s = decode_super(page, device);
    if (!s) return;
    check_geometry(s->layout, device);
    const page_bytes again = encode_super(*s);
    auto back = decode_super(again, device);
    VARVE_ASSERT(back && back->origin == super_origin::whole);
    VARVE_ASSERT(back->clean == s->clean && back->super_blob == s->super_blob && back->type == s->type);
    VARVE_ASSERT(back->layout.md.first == s->layout.md.first &&
                 back->extension.has_value() == s->extension.has_value());
    VARVE_ASSERT(encode_super(*back) == again);
}

// Of a super block that decodes a copy can be made, and of the copy a super block that says the same.
void check_copy(page_view page, const device_shape& device) {
    if (auto copy = decode_super_copy(page, device)) {
        check_geometry(copy->super.layout, device);
        VARVE_ASSERT(copy->super.extension->copy_page == copy->own_page);
    }
    auto s = decode_super(page, device);
    if (!s) return;
    if (!s->extension) s->extension.emplace();
    if (s->layout.md.count < 2) return;
    if (s->extension->copy_page == 0) s->extension->copy_page = s->extension->double_write.holds(1) ? 0 : 1;
    if (s->extension->copy_page == 0) return;
    const page_bytes made = encode_super_copy(*s);
    VARVE_ASSERT(says_the_same(made, *s) && look_at(made, 1).content == page_content::super_copy);
    auto copy = decode_super_copy(made, device);
    VARVE_ASSERT(copy && !copy->super.clean && copy->super.super_blob == s->super_blob && copy->super.type == s->type);
    VARVE_ASSERT(copy->super.layout.md.first == s->layout.md.first && encode_super_copy(copy->super) == made);
    auto back = decode_super(encode_super(copy->super), device);
    VARVE_ASSERT(back && back->origin == super_origin::whole && says_the_same(made, *back));
}

void check_mask(std::span<const std::byte> bytes, uint32_t bits) {
    for (auto type : {mask_type::used_pages, mask_type::used_clusters, mask_type::used_blobids}) {
        auto mask = decode_mask(bytes, type, bits, true);
        if (!mask) continue;
        VARVE_ASSERT(mask->size() == bits);
        std::vector<std::byte> out(bytes.size());
        encode_mask(*mask, type, out);
        VARVE_ASSERT(*decode_mask(out, type, bits) == *mask);
    }
}

}  // namespace
}  // namespace varve::blob::format

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
    using namespace varve::blob::format;
    if (size == 0) return 0;
    const auto bytes = std::as_bytes(std::span(data, size)).subspan(1);
    const device_shape device{{uint64_t{1} << (20 + (data[0] & 15))}, (data[0] & 16) != 0 ? 4096u : 512u};
    page_bytes page{};
    std::copy_n(bytes.begin(), std::min(bytes.size(), page_size), page.begin());
    if ((data[0] & 32) != 0) {
        const varve::le32 crc = varve::accel::crc32c(std::span(page).first(508));
        std::memcpy(page.data() + 508, &crc, sizeof crc);
    }
    if ((data[0] & 128) != 0) {  // as a copy of a super block ends
        const varve::le32 crc = ~varve::accel::crc32c(std::span(page).first(4092));
        std::memcpy(page.data() + 4092, &crc, sizeof crc);
    } else if ((data[0] & 64) != 0) {
        const varve::le32 crc = varve::accel::crc32c(std::span(page).first(4092));
        std::memcpy(page.data() + 4092, &crc, sizeof crc);
    }
    check_super(page, device);
    check_copy(page, device);
    check_mask(bytes, data[0] * 5u);
    return 0;
}
