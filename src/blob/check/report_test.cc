// What is said of a store, in proportion to what is in it.
#include "blob/check/report.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include "blob/check/test_repair.h"
#include "json/write.h"

namespace varve::blob::check {
namespace {

using testing::HasSubstr;
using store = test_store;

// Eight bytes each, as many as a page holds: extent pages nobody has.
TEST(blob_report, an_extent_table_that_names_more_than_there_can_be) {
    store s;
    constexpr std::size_t space_begin = 16;
    format::page_bytes page = s.get(store::thick);
    std::size_t at = space_begin;
    auto put = [&](auto value) {
        std::memcpy(page.data() + at, &value, sizeof value);
        at += sizeof value;
    };
    std::fill(page.begin() + space_begin, page.end() - 8, std::byte{});
    put(format::descriptor_header_wire{.type = static_cast<uint8_t>(format::descriptor_type::flags), .length = 24});
    put(le64(format::invalid_flag::thin | format::invalid_flag::extent_table));
    put(le64(0));
    put(le64(0));
    constexpr uint32_t runs = 400;
    put(format::descriptor_header_wire{.type = static_cast<uint8_t>(format::descriptor_type::extent_table),
                                       .length = 8 + runs * 8});
    put(le64(1000));
    for (uint32_t i = 0; i + 1 < runs; ++i) put(format::extent_run_wire{.cluster = 0, .count = UINT32_MAX});
    put(format::extent_run_wire{.cluster = 2, .count = 1});
    s.put(store::thick, page);
    s.poke(store::thick, space_begin + 5, s.get(store::thick)[space_begin + 5]);  // its checksum

    evidence e = *inspect(s);
    const auto found = examine(e);
    const auto* blob = found.find(format::id_of_root_page(store::thick));
    ASSERT_NE(blob, nullptr);
    ASSERT_EQ(blob->extents.size(), 1u);
    EXPECT_GT(blob->extents[0].index, blob->record.extent_page_count());
    EXPECT_LT(dump_in_words(e, found).size(), 10000u);
    EXPECT_THAT(dump_in_words(e, found), HasSubstr("none x 1000\n"));
    EXPECT_LT(json::write(dump_as_json(e, found)).size(), 20000u);
}

TEST(blob_report, words_end_where_nobody_reads_on) {
    store s;
    std::vector<uint32_t> sparse(2500);
    for (std::size_t i = 0; i < sparse.size(); i += 2) sparse[i] = 20 + i % 40;
    s.add(20, "sparse", sparse, {21, 22, 23, 24, 25}, true);
    evidence e = *inspect(s);
    const auto found = examine(e);
    EXPECT_THAT(dump_in_words(e, found), HasSubstr(" and 1500 more\n"));
}

TEST(blob_report, what_came_of_a_repair) {
    store s;
    s.clusters_used.set(60);
    s.write_masks();
    s.damage(store::old);
    evidence e = *inspect(s);
    const auto found = examine(e);
    const auto plan = plan_repair(e, found);
    const auto before = json::write(as_json(e, found, plan));
    EXPECT_THAT(before, HasSubstr(R"("repaired":false,"changes_written":0,"journal":null,"left":[{"kind":)"));
    const examination none;
    const auto after =
        json::write(as_json(e, found, plan, {.repaired = true, .changes_written = 3, .journal = "j", .after = &none}));
    EXPECT_THAT(after, HasSubstr(R"("repaired":true,"changes_written":3,"journal":"j","left":[])"));
}

// A store of which there is nothing but a super block and masks, which may say anything of each of 2^31 clusters.
struct nothing_but_masks : storage {
    nothing_but_masks(uint32_t clusters, uint32_t pages, format::mask_type all, uint32_t step)
        : g(*format::plan_store({.size = {uint64_t{clusters} * 4096}},
                                {.cluster_size = 4096, .md_page_count = pages})) {
        auto super = format::new_super(g, "");
        super.clean = true;
        const auto page = format::encode_super(super);
        parts.emplace_back(0, std::vector<std::byte>(page.begin(), page.end()));
        for (auto type :
             {format::mask_type::used_pages, format::mask_type::used_clusters, format::mask_type::used_blobids}) {
            format::bit_mask bits(bits_of(type, g));
            const bool clusters_too = type == format::mask_type::used_clusters;
            for (uint32_t i = 0; i < bits.size(); i += step)
                if (clusters_too == (all == format::mask_type::used_clusters)) bits.set(i);
            if (clusters_too) bits.set(0, g.first_data_cluster);
            std::vector<std::byte> bytes(g.bytes_of(region_of(type, g)));
            format::encode_mask(bits, type, bytes);
            parts.emplace_back(g.offset_of(region_of(type, g)), std::move(bytes));
        }
    }
    format::device_shape shape() const noexcept override { return {.size = g.size, .block_size = 512}; }
    void read(std::span<piece> pieces) override {
        for (piece& p : pieces) {
            std::ranges::fill(p.bytes, std::byte{});
            for (const auto& [offset, what] : parts)
                if (p.offset == offset)
                    std::copy_n(what.begin(), std::min(what.size(), p.bytes.size()), p.bytes.begin());
        }
    }
    const format::geometry g;
    std::vector<std::pair<uint64_t, std::vector<std::byte>>> parts;
};

TEST(blob_report, not_all_numbers_of_a_mask_are_listed) {
    constexpr uint32_t clusters = 400'000;
    nothing_but_masks s(clusters, 64, format::mask_type::used_clusters, 2);
    evidence e = *inspect(s);
    const auto found = examine(e);
    ASSERT_EQ(found.findings.size(), 1u) << all_text(found);
    const finding& leaked = found.findings[0];
    EXPECT_EQ(leaked.what, problem::leaked);
    EXPECT_LT(leaked.clusters.size(), 100'000u);
    const uint64_t all = (clusters - s.g.first_data_cluster) / 2;
    uint64_t listed = 0;
    for (const auto& run : leaked.clusters) listed += run.count;
    EXPECT_THAT(leaked.text, HasSubstr(fmt::format(" and {} more are marked as used, but nobody's", all - 8)));
    EXPECT_THAT(json::write(as_json(e, found, {})), HasSubstr(fmt::format("\"not_listed\":{},", all - listed)));
    EXPECT_EQ(plan_repair(e, found).changes.front().why, "used_cluster_mask");
}

TEST(blob_report, not_every_bit_of_a_mask_is_a_finding) {
    constexpr uint32_t pages = 100'000;
    nothing_but_masks s(400'000, pages, format::mask_type::used_blobids, 1);
    evidence e = *inspect(s);
    const auto found = examine(e);
    EXPECT_LT(found.findings.size(), 1000u);
    EXPECT_THAT(found.findings[0].text,
                HasSubstr("page 0: should be the first page of blob 0x100000000, and is clear"));
    std::size_t told = 0;
    for (const finding& f : found.findings)
        if (f.what == problem::bad_root) told += f.pages.size() + f.not_listed;
    EXPECT_EQ(told, pages);
    EXPECT_EQ(found.used_blobids.count(), pages) << "they stay marked";
}

}  // namespace
}  // namespace varve::blob::check
