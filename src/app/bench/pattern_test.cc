#include "app/bench/pattern.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

namespace varve::app::bench {
namespace {

TEST(bench_pattern, tells_apart_what_can_be_wrong) {
    std::vector<std::byte> a(4096), b(4096);
    fill(a, 8192, 3, 7);
    EXPECT_FALSE(check(a, 8192, 3, 7));
    EXPECT_NE(check(a, 0, 3, 7)->find("misplaced"), std::string::npos);
    EXPECT_NE(check(a, 8192, 4, 7)->find("stale"), std::string::npos);
    EXPECT_NE(check(a, 8192, 2, 7)->find("future"), std::string::npos);
    EXPECT_NE(check(a, 8192, 3, 8)->find("foreign"), std::string::npos);
    EXPECT_NE(check(b, 8192, 3, 7)->find("zeroes"), std::string::npos);
    fill(b, 8192, 2, 7);
    std::memcpy(a.data() + 1024 + 256, b.data() + 1024 + 256, 256);  // half a sector of the write before
    EXPECT_NE(check(a, 8192, 3, 7)->find("torn"), std::string::npos);
}

}  // namespace
}  // namespace varve::app::bench
