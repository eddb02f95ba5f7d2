#include "util/base64.h"

#include <gtest/gtest.h>

#include <string_view>

namespace varve {
namespace {

std::string encoded(std::string_view text) { return base64(std::as_bytes(std::span(text))); }

// The examples of RFC 4648, section 10.
TEST(base64, as_the_standard_says) {
    EXPECT_EQ(encoded(""), "");
    EXPECT_EQ(encoded("f"), "Zg==");
    EXPECT_EQ(encoded("fo"), "Zm8=");
    EXPECT_EQ(encoded("foo"), "Zm9v");
    EXPECT_EQ(encoded("foob"), "Zm9vYg==");
    EXPECT_EQ(encoded("foobar"), "Zm9vYmFy");
    EXPECT_EQ(encoded("\xff\xfe\xfd"), "//79");
}

}  // namespace
}  // namespace varve
