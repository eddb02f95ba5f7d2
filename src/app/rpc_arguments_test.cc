#include "app/rpc_arguments.h"

#include <gtest/gtest.h>

#include "json/write.h"
#include "rpc/method.h"

namespace varve::app {
namespace {

enum class kind { red, green };
constexpr auto names_of(kind) { return std::to_array<rpc::named<kind>>({{"red", kind::red}, {"green", kind::green}}); }

struct address {
    std::string traddr;
    static constexpr auto fields = std::tuple{rpc::required(&address::traddr, "traddr", "Address")};
};

struct params {
    std::string name;
    uint64_t num_blocks = 0;
    int32_t numa_id = -1;
    bool flag = false, other_flag = true;
    kind color = kind::red;
    std::vector<std::string> names;
    std::vector<uint32_t> sizes;
    address where;
    static constexpr auto fields = std::tuple{
        rpc::required(&params::name, "name", "Name"),          rpc::optional(&params::num_blocks, "num_blocks", "Size"),
        rpc::optional(&params::numa_id, "numa_id", "Node"),    rpc::optional(&params::flag, "flag", "A flag"),
        rpc::optional(&params::other_flag, "other_flag", "A"), rpc::optional(&params::color, "color", "Color"),
        rpc::optional(&params::names, "names", "Names"),       rpc::optional(&params::sizes, "sizes", "Sizes"),
        rpc::optional(&params::where, "where", "Where")};
};

std::string parsed(arguments call, rpc_options how = {}) {
    auto m = rpc::make_method("paint", "Paints", [](params) {});
    call.insert(call.begin(), "paint");
    int status = -1;
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    auto out = parse_rpc_arguments(call, m, how, status);
    EXPECT_EQ((testing::internal::GetCapturedStdout() + testing::internal::GetCapturedStderr()).empty(),
              out.has_value());
    return out ? json::write(json::value(*out)) + (how.socket == "/x" ? " /x" : "") : std::to_string(status);
}

std::string raw(arguments call) {
    call.insert(call.begin(), "paint");
    int status = -1;
    rpc_options how;
    testing::internal::CaptureStderr();
    auto out = parse_raw_arguments(call, how, status);
    EXPECT_EQ(testing::internal::GetCapturedStderr().empty(), out.has_value());
    return out ? json::write(json::value(*out)) : std::to_string(status);
}

TEST(rpc_arguments, become_parameters_by_type) {
    EXPECT_EQ(parsed({"--name", "5"}), R"({"name":"5"})");
    EXPECT_EQ(parsed({"--name=a", "--num_blocks", "0x10", "--numa_id", "-1"}),
              R"({"name":"a","num_blocks":16,"numa_id":-1})");
    EXPECT_EQ(parsed({"--name", "a", "--num-blocks=18446744073709551615"}),
              R"({"name":"a","num_blocks":18446744073709551615})");
    EXPECT_EQ(parsed({"--name", "a", "--flag", "--other-flag", "false"}),
              R"({"name":"a","flag":true,"other_flag":false})");
    EXPECT_EQ(parsed({"--flag", "--name", "a"}), R"({"name":"a","flag":true})");
    EXPECT_EQ(parsed({"--name", "a", "--color", "green"}), R"({"name":"a","color":"green"})");
    EXPECT_EQ(parsed({"--name", "a", "--names", "x", "--names", "y"}), R"({"name":"a","names":["x","y"]})");
    EXPECT_EQ(parsed({"--name", "a", "--names", R"(["x","y"])", "--sizes", "1", "--sizes", "2"}),
              R"({"name":"a","names":["x","y"],"sizes":[1,2]})");
    EXPECT_EQ(parsed({"--name", "a", "--where", R"({"traddr": "1"})"}), R"({"name":"a","where":{"traddr":"1"}})");
    EXPECT_EQ(parsed({"--name", "a", "-s", "/x"}), R"({"name":"a"} /x)");
}

TEST(rpc_arguments, what_does_not_fit_is_left_to_the_server) {
    EXPECT_EQ(parsed({"--name", "a", "--num_blocks", "many"}), R"({"name":"a","num_blocks":"many"})");
    EXPECT_EQ(parsed({"--name", "a", "--flag", "perhaps"}), R"({"name":"a","flag":"perhaps"})");
    EXPECT_EQ(parsed({"--name", "a", "--numa_id", "99999999999999999999"}),
              R"({"name":"a","numa_id":"99999999999999999999"})");
}

TEST(rpc_arguments, mistakes) {
    EXPECT_EQ(parsed({}), "2");
    EXPECT_EQ(parsed({"--name"}), "2");
    EXPECT_EQ(parsed({"--name", "a", "--colour", "red"}), "2");
    EXPECT_EQ(parsed({"--name", "a", "stray"}), "2");
    EXPECT_EQ(parsed({"--help"}), "0");
}

TEST(rpc_arguments, of_an_unknown_method_are_sent_as_given) {
    EXPECT_EQ(raw({"--a", "5", "--b=text", "--c", "--d", R"({"x":[1]})", "--e", "true"}),
              R"({"a":5,"b":"text","c":true,"d":{"x":[1]},"e":true})");
    EXPECT_EQ(raw({"stray"}), "2");
}

}  // namespace
}  // namespace varve::app
