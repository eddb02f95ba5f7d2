#include "server/notifications.h"

#include <gtest/gtest.h>

namespace varve::server {
namespace {

TEST(notifications, keep_the_last_ones_in_order) {
    notifications n;
    EXPECT_TRUE(n.since(0, 10).empty());
    constexpr uint64_t count = 2 * notifications::kept + 5;
    for (uint64_t i = 0; i < count; ++i) {
        n.add("added", std::to_string(i));
        auto last = n.since(i, 10);
        ASSERT_EQ(last.size(), 1u);
        ASSERT_EQ(last[0].about, std::to_string(i));
    }
    auto all = n.since(0, UINT64_MAX);
    ASSERT_EQ(all.size(), notifications::kept);
    for (std::size_t i = 0; i < all.size(); ++i) {
        EXPECT_EQ(all[i].id, count - notifications::kept + i);
        EXPECT_EQ(all[i].about, std::to_string(all[i].id));
    }
    EXPECT_EQ(n.since(count - 3, 2).size(), 2u);
    EXPECT_EQ(n.since(count - 3, 2)[1].id, count - 2);
    EXPECT_TRUE(n.since(count, 10).empty());
    EXPECT_TRUE(n.since(UINT64_MAX, 10).empty());
}

}  // namespace
}  // namespace varve::server
