#include "targets/nvmf/methods/params.h"

#include <gtest/gtest.h>

namespace varve::targets::nvmf {
namespace {

TEST(nvmf_nqn, accepts_what_hosts_use) {
    for (std::string_view good : {
             "nqn.2014-08.org.nvmexpress.discovery",
             "nqn.2016-06.io.spdk:cnode1",
             "nqn.2016-13.io.spdk:a",  // the date is not looked at closely
             "nqn.2014-08.org.nvmexpress:uuid:11111111-2222-3333-4444-555555555555",
             "nqn.2014-08.org.nvmexpress:uuid:AAAAAAAA-bbbb-3333-4444-555555555555",
             "nqn.2016-06.a:b",
             "nqn.2016-06.io-x.s9:with:colons and spaces",
             "nqn.2016-06.io.spdk:\xc3\xa9",
         })
        EXPECT_TRUE(check_nqn(good)) << good;
    EXPECT_TRUE(check_nqn("nqn.2016-06.io.spdk:" + std::string(203, 'a')));
}

TEST(nvmf_nqn, says_what_is_wrong) {
    struct {
        std::string name;
        std::string_view why;
    } const bad[] = {
        {"", "less than 11"},
        {"foo", "less than 11"},
        {"nqn.2016-06.io.spdk:" + std::string(204, 'a'), "more than 223"},
        {"nqn.2016-06.io.spdk", "must follow a ':'"},
        {"nqn.2016-06.io.spdk:", "must follow a ':'"},
        {"nqn.2016-6.io.spdk:a", "nqn.YYYY-MM."},
        {"nqn.2016-06:io.spdk", "nqn.YYYY-MM."},
        {"nqn.2o16-06.io.spdk:a", "nqn.YYYY-MM."},
        {"iqn.2016-06.io.spdk:a", "nqn.YYYY-MM."},
        {"nqn.2014-08.org.nvmexpress:uuid:XYZ", "UUID"},
        {"nqn.2014-08.org.nvmexpress:uuid:99999999-2222-3333-4444-555555555555x", "UUID"},
        {"nqn.2016-06.-io:a", "\"-io\""},
        {"nqn.2016-06.io-:a", "\"io-\""},
        {"nqn.2016-06.9io:a", "\"9io\""},
        {"nqn.2016-06.io..spdk:a", "\"\""},
        {"nqn.2016-06.io.:a", "\"\""},
        {"nqn.2016-06.io.sp_dk:a", "\"sp_dk\""},
        {"nqn.2016-06." + std::string(64, 'a') + ":a", "reversed domain"},
        {std::string("nqn.2016-06.io.spdk:a\0b", 23), "NUL"},
    };
    for (auto& [name, why] : bad) {
        auto outcome = check_nqn(name);
        ASSERT_FALSE(outcome) << name;
        EXPECT_NE(outcome.error().message().find(why), std::string::npos) << outcome.error().message();
    }
}

TEST(nvmf_addresses, are_numbers_with_a_port) {
    auto good = to_address({.trtype = "tcp", .traddr = "127.0.0.1", .adrfam = "ipv4", .trsvcid = "4420"});
    ASSERT_TRUE(good);
    EXPECT_EQ(*good, (env::address{env::address::family::ipv4, "127.0.0.1", 4420}));
    EXPECT_EQ(to_address({.trtype = "TCP", .traddr = "::1", .trsvcid = "1"})->kind, env::address::family::ipv6);
    listen_address const bad[] = {
        {.trtype = "RDMA", .traddr = "127.0.0.1", .trsvcid = "4420"},
        {.trtype = "TCP", .traddr = "hello", .trsvcid = "4420"},
        {.trtype = "TCP", .traddr = "", .trsvcid = "4420"},
        {.trtype = "TCP", .traddr = "127.0.0.1", .adrfam = "IPvX", .trsvcid = "4420"},
        {.trtype = "TCP", .traddr = "127.0.0.1", .adrfam = "IPv6", .trsvcid = "4420"},
        {.trtype = "TCP", .traddr = "127.0.0.1"},
        {.trtype = "TCP", .traddr = "127.0.0.1", .trsvcid = "0"},
        {.trtype = "TCP", .traddr = "127.0.0.1", .trsvcid = "99999"},
        {.trtype = "TCP", .traddr = "127.0.0.1", .trsvcid = "44 20"},
        {.trtype = "TCP", .traddr = "127.0.0.1", .trsvcid = ""},
    };
    for (auto& a : bad) {
        auto outcome = to_address(a);
        ASSERT_FALSE(outcome) << a.traddr;
        EXPECT_EQ(outcome.error().code(), errc::rpc_invalid_params);
        EXPECT_TRUE(outcome.error().message().starts_with("Invalid parameters: ")) << outcome.error().message();
    }
}

TEST(nvmf_hex, goes_both_ways) {
    std::array<uint8_t, 4> bytes{};
    EXPECT_TRUE(from_hex("0aF9ff00", bytes));
    EXPECT_EQ(bytes, (std::array<uint8_t, 4>{0x0a, 0xf9, 0xff, 0x00}));
    EXPECT_EQ(to_hex(bytes), "0AF9FF00");
    for (std::string_view bad : {"0aF9ff0", "0aF9ff000", "", "0aF9ffg0", " aF9ff00", "-1F9ff00", "+1F9ff00"})
        EXPECT_FALSE(from_hex(bad, bytes)) << bad;
}

}  // namespace
}  // namespace varve::targets::nvmf
