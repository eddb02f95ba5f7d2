#include "metrics/histogram.h"

#include <gtest/gtest.h>

namespace varve::metrics {
namespace {

std::size_t bucket_of(histogram& h, uint64_t v) {
    h.clear();
    h.tally(v);
    for (std::size_t i = 0; i < h.counts().size(); ++i) {
        if (h.counts()[i] != 0) return i;
    }
    return SIZE_MAX;
}

TEST(histogram, every_value_lies_in_the_bounds_of_its_bucket) {
    histogram h;
    for (unsigned bit = 0; bit < 64; ++bit) {
        for (uint64_t v :
             {uint64_t{1} << bit, (uint64_t{1} << bit) - 1, (uint64_t{1} << bit) + (uint64_t{1} << bit) / 3}) {
            auto b = h.bounds_of(bucket_of(h, v));
            EXPECT_LE(b.begin, v);
            EXPECT_TRUE(v < b.end || b.end == UINT64_MAX) << v;
        }
    }
}

TEST(histogram, buckets_follow_each_other_without_gaps) {
    histogram h(5);
    for (std::size_t i = 1; i < h.counts().size(); ++i) EXPECT_EQ(h.bounds_of(i - 1).end, h.bounds_of(i).begin) << i;
}

// As SPDK reports them: bdev_enable_histogram with granularity 5, 1 us to 1 ms at 2596100000 ticks a second.
TEST(histogram, ranges_are_those_spdk_reports) {
    histogram h(5, 2596, 2596100);
    EXPECT_EQ(h.min_range(), 7u);
    EXPECT_EQ(h.max_range(), 17u);
    EXPECT_EQ(h.counts().size(), 11u << 5);
}

TEST(histogram, what_is_out_of_range_counts_at_the_ends) {
    histogram h(5, 2596, 2596100);
    EXPECT_EQ(bucket_of(h, 0), 0u);
    EXPECT_EQ(bucket_of(h, UINT64_MAX), h.counts().size() - 1);
}

TEST(histogram, quantiles) {
    histogram h;
    EXPECT_EQ(h.quantile(0.5), 0u);
    for (uint64_t v = 1; v <= 100; ++v) h.tally(v);
    EXPECT_EQ(h.quantile(0.5), 50u);
    EXPECT_EQ(h.quantile(0.99), 99u);
    EXPECT_EQ(h.quantile(1), 100u);
    EXPECT_EQ(h.total(), 100u);
}

TEST(histogram, merges) {
    histogram a, b;
    a.tally(5);
    b.tally(5);
    b.tally(500000);
    a.merge(b);
    EXPECT_EQ(a.total(), 3u);
    EXPECT_EQ(a.counts()[5], 2u);
}

}  // namespace
}  // namespace varve::metrics
