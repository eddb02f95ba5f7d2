#include "thread/cpu_set.h"

#include <gtest/gtest.h>

namespace varve::thread {
namespace {

std::vector<unsigned> parsed(std::string_view text) {
    auto set = cpu_set::parse(text);
    EXPECT_TRUE(set) << text;
    return set ? set->list() : std::vector<unsigned>{~0u};
}
using cpus = std::vector<unsigned>;

TEST(cpu_set, takes_spdks_forms) {
    EXPECT_EQ(parsed("0x3"), (cpus{0, 1}));
    EXPECT_EQ(parsed("3"), (cpus{0, 1}));
    EXPECT_EQ(parsed("10"), (cpus{4}));
    EXPECT_EQ(parsed("0XaB"), (cpus{0, 1, 3, 5, 7}));
    EXPECT_EQ(parsed("[0,2-3]"), (cpus{0, 2, 3}));
    EXPECT_EQ(parsed("[ 1 , 4 - 5 ]"), (cpus{1, 4, 5}));
    EXPECT_EQ(parsed("\t [7] "), (cpus{7}));
    EXPECT_EQ(parsed("0-1,3"), (cpus{0, 1, 3}));
    EXPECT_EQ(parsed("[3,3,1]"), (cpus{1, 3}));
    EXPECT_EQ(parsed("0"), cpus{});
    EXPECT_EQ(parsed("0x000"), cpus{});
    EXPECT_EQ(parsed("[1023]"), (cpus{1023}));
    // As the kernel writes masks.
    EXPECT_EQ(parsed("1,00000000"), (cpus{32}));
    EXPECT_EQ(parsed(",,,,,000,,1,0,0,,,,"), (cpus{8}));
    EXPECT_EQ(parsed("0xF0000000000000000000000000000000000000000F0"), (cpus{4, 5, 6, 7, 168, 169, 170, 171}));
    EXPECT_EQ(parsed("1" + std::string(255, '0')), (cpus{1020}));
    EXPECT_EQ(parsed("0x" + std::string(10'000, '0') + "1"), (cpus{0}));
}

TEST(cpu_set, refuses_garbage_and_says_why) {
    const std::string nul("0x\0003", 4);
    for (std::string_view bad : {std::string_view(""),
                                 std::string_view(" "),
                                 std::string_view("["),
                                 std::string_view("]"),
                                 std::string_view("[]"),
                                 std::string_view("[,]"),
                                 std::string_view("[1"),
                                 std::string_view("1]"),
                                 std::string_view("[1]]"),
                                 std::string_view("[[1]"),
                                 std::string_view("[10--11]"),
                                 std::string_view("[11-10]"),
                                 std::string_view("[1-2-3]"),
                                 std::string_view("[10-11,]"),
                                 std::string_view("[,10-11]"),
                                 std::string_view("[-1]"),
                                 std::string_view("-1"),
                                 std::string_view("-"),
                                 std::string_view("[1.5]"),
                                 std::string_view("[0x1]"),
                                 std::string_view("[1024]"),
                                 std::string_view("[9223372036854775809]"),
                                 std::string_view("[184467440737095516150]"),
                                 std::string_view("[1 2]"),
                                 std::string_view("0x"),
                                 std::string_view("0xg"),
                                 std::string_view("0x 3"),
                                 std::string_view("+3"),
                                 std::string_view(","),
                                 std::string_view("\xff\xfe"),
                                 std::string_view(nul)}) {
        auto set = cpu_set::parse(bad);
        ASSERT_FALSE(set) << bad;
        EXPECT_EQ(set.error().code(), errc::invalid) << bad;
        EXPECT_LT(set.error().message().size(), 200u);
        for (char c : set.error().message()) EXPECT_TRUE(c >= ' ' && c <= '~');
    }
    EXPECT_FALSE(cpu_set::parse("1" + std::string(256, '0')));
    EXPECT_FALSE(cpu_set::parse(std::string(1'000'000, 'f')));
    EXPECT_FALSE(cpu_set::parse("[" + std::string(1'000'000, '1') + "]"));
}

TEST(cpu_set, prints_as_spdk_does) {
    for (const char* mask :
         {"0", "1", "3", "51234", "ff", "10000000000000000", "8000000000000000", "f00000000000000000f"}) {
        EXPECT_EQ(cpu_set::parse(mask)->to_mask(), mask);
    }
    EXPECT_EQ(cpu_set::parse("0x00AB")->to_mask(), "ab");
    EXPECT_EQ(cpu_set::parse("[0-1023]")->to_mask(), std::string(256, 'f'));
    EXPECT_TRUE(cpu_set().empty());
    EXPECT_TRUE(cpu_set::parse("0")->empty());
    EXPECT_FALSE(cpu_set::parse("2")->contains(0));
    EXPECT_TRUE(cpu_set::parse("2")->contains(1));
    EXPECT_FALSE(cpu_set::parse("2")->contains(5000));
}

}  // namespace
}  // namespace varve::thread
