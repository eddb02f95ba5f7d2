// What is said of a store, in proportion to what is in it.
#include "blob/check/report.h"

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

}  // namespace
}  // namespace varve::blob::check
