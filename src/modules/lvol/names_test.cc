#include "modules/lvol/names.h"

#include <gtest/gtest.h>

namespace varve::modules::lvol {
namespace {

using blob::format::xattr;
using blob::format::xattr_map;

const uuid id = *uuid::parse("12345678-9abc-4def-8123-456789abcdef");

xattr_map map_of(const std::vector<xattr>& all) {
    xattr_map out;
    for (const xattr& x : all) out.append(x);
    return out;
}

TEST(lvol_names, are_spdks_up_to_its_limit) {
    EXPECT_EQ(name_xattrs("vol", id, false), (std::vector<xattr>{{"name", std::string("vol\0", 4)}}));
    EXPECT_EQ(name_xattrs("vol", id, true), (std::vector<xattr>{{"name", "vol" + std::string(61, '\0')}}));
    const std::string longest(63, 'n');
    EXPECT_EQ(name_xattrs(longest, id, true), (std::vector<xattr>{{"name", longest + '\0'}}));
    EXPECT_EQ(uuid_xattr(id).value.size(), 37u);
    EXPECT_EQ(uuid_in(map_of({uuid_xattr(id)})), id);
}

TEST(lvol_names, of_more_bytes_are_shortened_for_spdk) {
    for (std::size_t size : {64u, 100u, 255u}) {
        const std::string name(size, 'n');
        auto written = name_xattrs(name, id, true);
        ASSERT_EQ(written.size(), 2u);
        EXPECT_EQ(written[0].value, std::string(54, 'n') + "~12345678" + '\0') << size;
        EXPECT_EQ(name_in(map_of(written)), name);
        // SPDK renames it: what we kept of the old name is void.
        written[0].value = std::string("renamed\0", 8);
        EXPECT_EQ(name_in(map_of(written)), "renamed");
    }
    std::string umlauts = "n";
    while (umlauts.size() < 99) umlauts += "ä";
    EXPECT_EQ(name_xattrs(umlauts, id, false)[0].value.substr(51), "ä~12345678" + std::string(1, '\0'));
}

TEST(lvol_names, that_nobody_can_have_are_refused) {
    EXPECT_TRUE(check_name("name", std::string(255, 'n')).has_value());
    EXPECT_EQ(check_name("name", std::string(256, 'n')).error().code(), errc::invalid);
    EXPECT_EQ(check_name("name", "").error().code(), errc::invalid);
    EXPECT_EQ(check_name("name", std::string_view("a\0b", 3)).error().code(), errc::invalid);
}

TEST(lvol_names, survive_what_a_disk_may_hold) {
    EXPECT_EQ(name_in({}), "");
    EXPECT_EQ(name_in(map_of({{"name", "no zero"}})), "no zero");
    EXPECT_EQ(name_in(map_of({{"name", std::string(4000, 'x')}})).size(), 255u);
    EXPECT_EQ(name_in(map_of({{"name", "a"}, {"varve.name", "a"}})), "a");
    EXPECT_EQ(name_in(map_of({{"name", "a"}, {"varve.name", std::string("a\0", 2)}})), "a");
    EXPECT_EQ(name_in(map_of({{"name", "a"}, {"varve.name", std::string("a\0b\0c", 5)}})), "a");
    EXPECT_TRUE(uuid_in({}).is_nil());
    EXPECT_TRUE(uuid_in(map_of({{"uuid", id.to_string()}})).is_nil());
    EXPECT_TRUE(uuid_in(map_of({{"uuid", std::string(36, 'z') + '\0'}})).is_nil());
}

}  // namespace
}  // namespace varve::modules::lvol
