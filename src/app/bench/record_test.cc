#include "app/bench/record.h"

#include <gtest/gtest.h>

#include "app/bench/pattern.h"

namespace varve::app::bench {
namespace {

TEST(bench_record, is_found_again) {
    record r(5);
    r.issued = {0, 7, 0, 9, 1};
    r.flushed({{1, 6}, {3, 9}, {1, 5}});
    auto again = record::from_text(r.to_text(4096), 5, 4096);
    ASSERT_TRUE(again);
    EXPECT_EQ(again->issued, r.issued);
    EXPECT_EQ(again->safe, (std::vector<uint64_t>{0, 6, 0, 9, 0}));
}

TEST(bench_record, of_another_disk_or_damaged) {
    std::string text = record(5).to_text(4096);
    EXPECT_FALSE(record::from_text(text, 6, 4096));
    EXPECT_FALSE(record::from_text(text, 5, 512));
    for (const char* bad : {"", "x", "5", "5 4096\n5 1 1\n", "5 4096\n1 1 2\n", "5 4096\n1\n", "5 4096\n\n"}) {
        EXPECT_FALSE(record::from_text(bad, 5, 4096)) << bad;
    }
}

TEST(bench_record, a_sector_holds_a_write_that_may_be_there) {
    std::vector<std::byte> data(1024);
    auto of = [&](uint64_t first, uint64_t second) {
        fill({data.data(), 512}, 4096, first, 1);
        fill({data.data() + 512, 512}, 4608, second, 1);
    };
    of(4, 5);
    EXPECT_FALSE(check(data, 4096, {4, 5}, 1));
    EXPECT_TRUE(check(data, 4096, {5, 6}, 1));
    EXPECT_TRUE(check(data, 4096, {3, 4}, 1));
    data[700] ^= std::byte{1};
    EXPECT_TRUE(check(data, 4096, {4, 5}, 1));
    data.assign(1024, std::byte{0});
    EXPECT_FALSE(check(data, 4096, {0, 5}, 1));
    EXPECT_TRUE(check(data, 4096, {1, 5}, 1));
}

}  // namespace
}  // namespace varve::app::bench
