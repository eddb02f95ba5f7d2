#include "util/escape.h"

#include <gtest/gtest.h>

#include "util/log.h"

namespace varve {
namespace {

TEST(escape, writes_out_what_would_steer_a_terminal) {
    EXPECT_EQ(escaped("a\n\x1b[2Jb\x7f"), R"(a\x0a\x1b[2Jb\x7f)");
    EXPECT_EQ(escaped("\xc2\x9b"
                      "1m"),
              R"(\xc2\x9b1m)");
    EXPECT_EQ(escaped(std::string_view("\0", 1)), R"(\x00)");
}

TEST(escape, leaves_everything_else) {
    for (std::string_view text : {"", "plain", "gr\xc3\xbc\xc3\x9f", "\xc2\xa0", "\xff", "\xc2"}) {
        EXPECT_FALSE(has_controls(text));
        EXPECT_EQ(escaped(text), text);
    }
}

TEST(escape, no_line_of_the_log_makes_two) {
    std::string seen;
    log l([&](const log::line& line) { seen += std::string(line.text) + '|'; });
    l.component("lvol").error("volume a\nclean is degraded");
    EXPECT_EQ(seen, R"(volume a\x0aclean is degraded|)");
}

}  // namespace
}  // namespace varve
