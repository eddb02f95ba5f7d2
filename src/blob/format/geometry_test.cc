#include "blob/format/geometry.h"

#include <gmock/gmock.h>

namespace varve::blob::format {
namespace {

using testing::HasSubstr;

constexpr uint64_t MiB = 1024 * 1024, GiB = 1024 * MiB;

device_shape device(uint64_t size, uint32_t block = 512) { return {.size = {size}, .block_size = block}; }

TEST(blob_format_geometry, ids_and_pages) {
    EXPECT_EQ(id_of_root_page(0), 0x1'0000'0000u);
    EXPECT_EQ(root_page_of(id_of_root_page(77)), 77u);
    EXPECT_TRUE(is_blob_id(id_of_root_page(UINT32_MAX)));
    EXPECT_FALSE(is_blob_id(77));
    EXPECT_FALSE(is_blob_id(no_blob));
    EXPECT_FALSE(is_blob_id(double_write_magic));
}

TEST(blob_format_geometry, a_new_store_is_laid_out_as_by_spdk) {
    auto g = plan_store(device(100 * MiB), {});
    ASSERT_TRUE(g) << g.error().message();
    EXPECT_EQ(g->cluster_count, 100u);
    EXPECT_EQ(g->page_mask.first, 1u);
    EXPECT_EQ(g->page_mask.count, 1u);
    EXPECT_EQ(g->cluster_mask.first, 2u);
    EXPECT_EQ(g->blobid_mask.first, 3u);
    EXPECT_EQ(g->md.first, 4u);
    EXPECT_EQ(g->md.count, 100u);
    EXPECT_EQ(g->first_data_cluster, 1u);
    EXPECT_EQ(g->io_unit_size, 512u);
    EXPECT_EQ(g->offset_of_md_page(3), 7u * 4096);
}

TEST(blob_format_geometry, many_metadata_pages_leave_the_cluster_mask_room_to_grow) {
    auto g = plan_store(device(GiB, 4096), {.cluster_size = 4 * MiB, .md_page_count = 40'000});
    ASSERT_TRUE(g) << g.error().message();
    EXPECT_EQ(g->page_mask.count, 2u);
    EXPECT_EQ(g->cluster_mask.count, 1u);
    EXPECT_EQ(g->blobid_mask.first, 5u);  // two pages left to the cluster mask
    EXPECT_EQ(g->md.first, 7u);
    EXPECT_EQ(g->first_data_cluster, 40u);
    EXPECT_EQ(g->cluster_count_max(), (2 * 4096 - 5) * 8u);

    auto larger = grown(*g, device(200 * GiB, 4096));
    ASSERT_TRUE(larger) << larger.error().message();
    EXPECT_EQ(larger->cluster_count, 51'200u);
    EXPECT_EQ(larger->cluster_mask.count, 2u);
    EXPECT_EQ(larger->md.first, g->md.first);
    EXPECT_EQ(grown(*g, device(300 * GiB, 4096)).error().code(), errc::no_space);
    EXPECT_EQ(grown(*larger, device(GiB, 4096)).error().code(), errc::invalid);
}

TEST(blob_format_geometry, sizes_of_blocks_that_lay_out_no_pages) {
    for (uint32_t physical : {520u, 6144u, 12288u, 20480u}) {
        auto g = plan_store(device(GiB), {.physical_block_size = physical});
        ASSERT_TRUE(g) << g.error().message();
        EXPECT_EQ(g->md_page_size, 4096u) << physical;
    }
    auto odd_pages = plan_store(device(GiB), {.md_page_size = 6144});
    EXPECT_EQ(odd_pages.error().code(), errc::invalid);
    EXPECT_THAT(odd_pages.error().message(), HasSubstr("md_page_size 6144: must be a multiple of 4096"));
    auto odd_blocks = plan_store(device(GiB, 520), {});
    EXPECT_EQ(odd_blocks.error().code(), errc::invalid);
    EXPECT_THAT(odd_blocks.error().message(), HasSubstr("blocks of 520 bytes"));
}

TEST(blob_format_geometry, large_metadata_pages) {
    auto g = plan_store(device(GiB, 4096), {.physical_block_size = 16384});
    ASSERT_TRUE(g) << g.error().message();
    EXPECT_EQ(g->md_page_size, 16384u);
    EXPECT_EQ(g->offset_of_md_page(0), 4u * 16384);
    EXPECT_EQ(g->first_data_cluster, 17u);  // 1,028 pages, 64 in a cluster
}

TEST(blob_format_geometry, what_cannot_be_planned) {
    EXPECT_EQ(plan_store(device(MiB - 512), {}).error().code(), errc::no_space);
    EXPECT_EQ(plan_store(device(MiB), {})->first_data_cluster, 1u);  // room for metadata only; SPDK makes it, too
    EXPECT_EQ(plan_store(device(2 * MiB), {.md_page_count = 600}).error().code(), errc::no_memory);
    EXPECT_EQ(plan_store(device(2 * MiB), {.cluster_size = 5000}).error().code(), errc::invalid);
    EXPECT_EQ(plan_store(device(2 * MiB), {.cluster_size = 8192, .md_page_size = 16384}).error().code(), errc::invalid);
    EXPECT_EQ(plan_store(device(2 * MiB), {.md_page_count = UINT32_MAX}).error().code(), errc::invalid);
}

TEST(blob_format_geometry, contradictions_are_named) {
    const geometry good = *plan_store(device(100 * MiB), {});
    const struct {
        void (*spoil)(geometry&);
        const char* named;
    } cases[] = {
        {[](geometry& g) { g.md_page_size = 2048; }, "md_page_size is 2048"},
        {[](geometry& g) { g.md_page_size = 4097; }, "md_page_size is 4097"},
        {[](geometry& g) { g.md_page_size = 1 << 30; }, "md_page_size is 1073741824, more than 65536"},
        {[](geometry& g) { g.io_unit_size = 0; }, "io_unit_size is 0"},
        {[](geometry& g) { g.io_unit_size = 1536; }, "io_unit_size is 1536"},
        {[](geometry& g) { g.io_unit_size = 8192; }, "io_unit_size is 8192"},
        {[](geometry& g) { g.cluster_size = 0; }, "cluster_size is 0"},
        {[](geometry& g) { g.cluster_size = 5000; }, "cluster_size is 5000"},
        {[](geometry& g) { g.size.value += 1; }, "size is 104857601"},
        {[](geometry& g) { g.size.value = 4096; }, "size is 4096"},
        {[](geometry& g) { g.md.count = 0; }, "md_len is 0"},
        {[](geometry& g) { g.md.count = UINT32_MAX; }, "used_page_mask_len is 1"},
        {[](geometry& g) { g.md.count = 30'000; }, "md_len is 30000"},
        {[](geometry& g) { g.md.first = 0; }, "md_start is 0"},
        {[](geometry& g) { g.md.first = 3; }, "used_blobid_mask_start is 3"},
        {[](geometry& g) { g.page_mask.first = 0; }, "used_page_mask_start is 0"},
        {[](geometry& g) { g.page_mask.count = 0; }, "used_page_mask_len is 0"},
        {[](geometry& g) { g.cluster_mask.first = 1; }, "used_cluster_mask_start is 1"},
        {[](geometry& g) { g.cluster_mask.count = UINT32_MAX; }, "used_cluster_mask_start is 2"},
        {[](geometry& g) { g.blobid_mask.first = 2; }, "used_blobid_mask_start is 2"},
    };
    for (const auto& c : cases) {
        geometry g = good;
        c.spoil(g);
        auto r = checked(g, device(100 * MiB));
        ASSERT_FALSE(r) << c.named;
        EXPECT_THAT(r.error().message(), HasSubstr(c.named));
    }
    EXPECT_THAT(checked(good, device(100 * MiB, 4096)).error().message(), HasSubstr("block size 4096"));
    geometry old = good;
    old.blobid_mask = {};
    EXPECT_TRUE(checked(old, device(100 * MiB)));
}

TEST(blob_format_geometry, of_a_mask_only_what_holds_its_bits_is_read) {
    geometry g;
    g.md_page_size = 4096;
    const page_range large{1, 12 << 20};  // 48 GiB
    EXPECT_EQ(g.bytes_of_mask(large, 100), 4096u);
    EXPECT_EQ(g.bytes_of_mask(large, (4096 - 5) * 8), 4096u);
    EXPECT_EQ(g.bytes_of_mask(large, (4096 - 5) * 8 + 1), 8192u);
    EXPECT_EQ(g.bytes_of_mask({1, 3}, UINT32_MAX), 3 * 4096u);
}

}  // namespace
}  // namespace varve::blob::format
