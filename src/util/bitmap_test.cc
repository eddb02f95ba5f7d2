#include "util/bitmap.h"

#include <gtest/gtest.h>

namespace varve {
namespace {

TEST(bitmap, counts_what_is_set) {
    bitmap b(130);
    EXPECT_EQ(b.count(), 0u);
    EXPECT_TRUE(b.set(0));
    EXPECT_TRUE(b.set(129));
    EXPECT_FALSE(b.set(129));
    EXPECT_EQ(b.count(), 2u);
    EXPECT_TRUE(b.clear(0));
    EXPECT_FALSE(b.clear(0));
    EXPECT_EQ(b.count(), 1u);
    EXPECT_TRUE(b.test(129));
}

TEST(bitmap, finds_the_next_bit_of_either_kind) {
    bitmap b(130);
    for (uint64_t i : {3u, 64u, 128u}) b.set(i);
    EXPECT_EQ(b.next_set(0), 3u);
    EXPECT_EQ(b.next_set(4), 64u);
    EXPECT_EQ(b.next_set(65), 128u);
    EXPECT_EQ(b.next_set(129), bitmap::none);
    EXPECT_EQ(b.next_set(500), bitmap::none);
    EXPECT_EQ(b.next_clear(3), 4u);
    EXPECT_EQ(b.next_clear(128), 129u);
    b.set(129);
    EXPECT_EQ(b.next_clear(128), bitmap::none);  // not the unused bits of the last word
}

TEST(bitmap, keeps_its_bits_when_it_grows_and_forgets_those_it_loses) {
    bitmap b(70);
    b.set(1);
    b.set(69);
    b.resize(65);
    EXPECT_EQ(b.count(), 1u);
    b.resize(200);
    EXPECT_FALSE(b.test(69));
    EXPECT_TRUE(b.test(1));
    EXPECT_EQ(bitmap().next_set(0), bitmap::none);
}

}  // namespace
}  // namespace varve
