#include "util/version.h"

#include <gtest/gtest.h>

namespace varve {
namespace {

TEST(version, is_three_numbers) {
    int dots = 0;
    for (char c : version()) {
        EXPECT_TRUE(c == '.' || (c >= '0' && c <= '9')) << version();
        dots += c == '.';
    }
    EXPECT_EQ(dots, 2) << version();
}

}  // namespace
}  // namespace varve
