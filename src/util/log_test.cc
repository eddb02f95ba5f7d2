#include "util/log.h"

#include <gtest/gtest.h>

#include <vector>

namespace varve {
namespace {

TEST(log, lines_pass_two_thresholds) {
    std::vector<std::string> seen;
    log l([&](const log::line& line) {
        seen.push_back(std::string(line.component) + ":" + std::string(line.text) + (line.print ? " p" : "") +
                       (line.record ? " r" : ""));
    });
    auto& c = l.component("nvmf");
    EXPECT_EQ(&c, &l.component("nvmf"));
    c.error("a");
    c.info("b");
    c.debug("not flagged");
    c.set_flag(true);
    EXPECT_FALSE(c.debugging());
    c.debug("below the level");
    l.set_print_level(log_level::debug);
    EXPECT_TRUE(c.debugging());
    c.debug("c");
    l.set_print_level(log_level::disabled);
    l.set_record_level(log_level::disabled);
    c.error("silent");
    EXPECT_EQ(seen, (std::vector<std::string>{"nvmf:a p r", "nvmf:b p", "nvmf:c p"}));
}

TEST(log, flags_by_name) {
    log l([](const log::line&) {});
    l.component("a");
    l.component("b");
    EXPECT_TRUE(l.set_flag("b", true));
    EXPECT_FALSE(l.set_flag("c", true));
    EXPECT_FALSE(l.component("a").flag());
    EXPECT_TRUE(l.component("b").flag());
    EXPECT_TRUE(l.set_flag("all", true));
    EXPECT_TRUE(l.component("a").flag());
}

TEST(log, level_names) {
    EXPECT_EQ(log_level_from("WARNING"), log_level::warning);
    EXPECT_EQ(log_level_from("warning"), std::nullopt);
    EXPECT_EQ(name_of(log_level::debug), "DEBUG");
}

}  // namespace
}  // namespace varve
