#include "net/address.h"

#include <gtest/gtest.h>

namespace varve::net {
namespace {

using family = env::address::family;

TEST(parse_address, reads_what_people_write) {
    auto parsed = [](std::string_view text) { return parse_address(text, 4420).value(); };
    EXPECT_EQ(parsed("127.0.0.1:80"), (env::address{family::ipv4, "127.0.0.1", 80}));
    EXPECT_EQ(parsed("127.0.0.1"), (env::address{family::ipv4, "127.0.0.1", 4420}));
    EXPECT_EQ(parsed("storage.example:0"), (env::address{family::ipv4, "storage.example", 0}));
    EXPECT_EQ(parsed("[::1]:80"), (env::address{family::ipv6, "::1", 80}));
    EXPECT_EQ(parsed("[::1]"), (env::address{family::ipv6, "::1", 4420}));
    EXPECT_EQ(parsed("fe80::1%eth0"), (env::address{family::ipv6, "fe80::1%eth0", 4420}));
    EXPECT_EQ(parsed("/var/tmp/spdk.sock"), (env::address{family::unix_path, "/var/tmp/spdk.sock", 0}));
}

TEST(parse_address, reads_back_what_is_written) {
    for (const env::address& each : {env::address{family::ipv4, "10.0.0.1", 1}, env::address{family::ipv6, "::", 65535},
                                     env::address{family::unix_path, "/a:b", 0}}) {
        EXPECT_EQ(parse_address(each.to_string(), 7).value(), each);
    }
}

TEST(parse_address, refuses_the_rest_and_says_what_it_wants) {
    for (const char* text :
         {"", ":80", "host:", "host:port", "host:65536", "host:-1", "host:80x", "[::1", "[::1]80", "[::1]:", "[]:80"}) {
        auto parsed = parse_address(text, 4420);
        ASSERT_FALSE(parsed) << text;
        EXPECT_EQ(parsed.error().code(), errc::invalid);
        EXPECT_NE(parsed.error().message().find("host:port"), std::string::npos);
    }
}

}  // namespace
}  // namespace varve::net
