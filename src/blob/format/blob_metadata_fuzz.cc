// Fuzzes metadata pages. Of the first byte, bit 0 says whether checksums are to be made right, bit 1 whether ids,
// sequences and links, too, so that a chain's descriptors are reached. What decodes must encode to what decodes the
// same, and nothing decoded may point outside of the store.
#include <algorithm>
#include <cstring>

#include "blob/format/double_write.h"
#include "blob/format/record.h"
#include "util/assert.h"

namespace varve::blob::format {
namespace {

const geometry& store() {
    static const geometry g = *plan_store({.size = {uint64_t{1} << 30}, .block_size = 512}, {});
    return g;
}

std::vector<page_bytes> pages_of(std::span<const std::byte> bytes, uint8_t how) {
    std::vector<page_bytes> out((bytes.size() + page_size - 1) / page_size);
    for (std::size_t i = 0; i < out.size(); ++i) {
        out[i] = {};
        const auto piece = bytes.subspan(i * page_size);
        std::copy_n(piece.begin(), std::min(piece.size(), page_size), out[i].begin());
        md_page_wire w;
        std::memcpy(&w, out[i].data(), sizeof w);
        if ((how & 2) != 0) {
            w.id = id_of_root_page(10);
            w.sequence = static_cast<uint32_t>(i);
            w.stamp = 1;
            w.next = i + 1 < out.size() ? static_cast<uint32_t>(11 + i) : no_page;
        }
        std::memcpy(out[i].data(), &w, sizeof w);
        if ((how & 1) == 0) continue;
        w.crc = crc_of(out[i]);
        std::memcpy(out[i].data(), &w, sizeof w);
    }
    return out;
}

void check_bounds(const blob_record& r) {
    const geometry& g = store();
    for (const auto& run : r.runs)
        VARVE_ASSERT(run.first == 0 ||
                     (g.has_data_cluster(run.first) && g.has_data_cluster(run.first + run.count - 1)));
    for (const auto& run : r.extent_pages) VARVE_ASSERT(run.page == 0 || (g.has_md_page(run.page) && run.count == 1));
    VARVE_ASSERT(r.cluster_count <= UINT32_MAX);
}

void check_chain(const std::vector<page_bytes>& pages) {
    std::vector<numbered_page> chain;
    for (std::size_t i = 0; i < pages.size(); ++i) chain.push_back({static_cast<uint32_t>(10 + i), pages[i]});
    auto read = decode_chain_as_far_as_possible(chain, store());
    check_bounds(read.record);
    (void)read.record.access();
    for (auto name : {xattr_parent, xattr_in_progress, xattr_pending_removal}) (void)read.record.id_in(name);
    auto record = decode_chain(chain, store());
    VARVE_ASSERT(record.has_value() == !read.wrong.has_value());
    if (!record) return;
    record->pages.resize(1);
    for (uint32_t i = 1; i < *chain_length(*record); ++i) record->pages.push_back(10 + i);
    auto again = encode_chain(*record);
    VARVE_ASSERT(again);
    chain.clear();
    for (std::size_t i = 0; i < again->size(); ++i) chain.push_back({record->pages[i], (*again)[i]});
    auto back = decode_chain(chain, store());
    VARVE_ASSERT(back && *back == *record);
}

void check_page(const page_bytes& page) {
    const geometry& g = store();
    (void)look_at(page, 10);
    if (auto rest = salvage_extent_page(page, 10, g)) {
        VARVE_ASSERT(rest->outside.size() <= rest->page.clusters.size());
        for (uint32_t c : rest->page.clusters) VARVE_ASSERT(c == 0 || g.has_data_cluster(c));
        for (std::size_t i : rest->outside) VARVE_ASSERT(rest->page.clusters[i] == 0);
    }
    if (auto mended = without_flipped_bit(page)) VARVE_ASSERT(crc_right(*mended));
    if (auto e = decode_extent_page(page, 10, g)) {
        for (uint32_t cluster : e->clusters) VARVE_ASSERT(cluster == 0 || g.has_data_cluster(cluster));
        auto back = decode_extent_page(encode_extent_page(*e), 10, g);
        VARVE_ASSERT(back && back->clusters == e->clusters && back->first_cluster == e->first_cluster);
    }
    const double_write_area area{.first = 900, .slots = 1, .per_slot = 40};
    page_bytes header = page;
    double_write_header_wire w;
    std::memcpy(&w, header.data(), sizeof w);
    w.inverted_crc = ~crc_of(header);
    std::memcpy(header.data(), &w, sizeof w);
    varve::uuid whose;
    std::copy(std::begin(w.store_uuid), std::end(w.store_uuid), whose.bytes.begin());
    if (auto h = decode_double_write(header, w.own_page, area, whose, g))
        for (const auto& image : h->images) VARVE_ASSERT(g.has_md_page(image.page) && !area.holds(image.page));
}

}  // namespace
}  // namespace varve::blob::format

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
    using namespace varve::blob::format;
    if (size < 2 || size > 1 + 16 * page_size) return 0;
    const auto pages = pages_of(std::as_bytes(std::span(data, size)).subspan(1), data[0]);
    check_chain(pages);
    for (const auto& page : pages) check_page(page);
    return 0;
}
