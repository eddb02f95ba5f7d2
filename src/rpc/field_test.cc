#include "rpc/field.h"

#include <gtest/gtest.h>

#include "json/parse.h"
#include "json/write.h"

namespace varve::rpc {

enum class mode { failover, multipath };
constexpr auto names_of(mode) {
    return std::to_array<named<mode>>({{"failover", mode::failover}, {"multipath", mode::multipath}});
}

namespace {

struct address {
    std::string trtype, traddr;
    static constexpr auto fields = std::tuple{required(&address::trtype, "trtype", "Transport"),
                                              optional(&address::traddr, "traddr", "Address", max_length<8>)};
};

struct params {
    std::string name;
    uint64_t num_blocks = 0;
    uint32_t block_size = 512;
    int32_t numa_id = -1;
    bool flag = false;
    double ratio = 0.5;
    mode how = mode::failover;
    std::optional<uuid> id;
    std::optional<uint8_t> small;
    std::vector<std::string> names;
    std::optional<address> where;
    std::vector<address> all;
    static constexpr auto fields =
        std::tuple{required(&params::name, "name", "Name of the new bdev", not_empty),
                   required(&params::num_blocks, "num_blocks", "Size in blocks", positive),
                   optional(&params::block_size, "block_size", "Bytes per block", one_of<512u, 4096u>),
                   optional(&params::numa_id, "numa_id", "Memory node", range<-1, 7>),
                   optional(&params::flag, "flag", "A flag"),
                   optional(&params::ratio, "ratio", "A ratio"),
                   optional(&params::how, "how", "A mode"),
                   optional(&params::id, "uuid", "Identity"),
                   optional(&params::small, "small", "A small number", range<1, 100>),
                   optional(&params::names, "names", "Names", alias("old_names"), max_length<2>),
                   optional(&params::where, "where", "One address"),
                   optional(&params::all, "all", "All addresses")};
};

std::string complaint(std::string_view text) {
    auto p = decode<params>(*json::parse(text));
    if (p) return "";
    EXPECT_EQ(p.error().code(), errc::rpc_invalid_params);
    return p.error().message();
}

TEST(rpc_field, decodes_and_encodes) {
    const char* text =
        R"({"name":"a","num_blocks":8,"block_size":4096,"numa_id":-1,"flag":true,"ratio":0.25,"how":"multipath",)"
        R"("uuid":"6ba7b810-9dad-11d1-80b4-00c04fd430c8","small":7,"names":["x","y"],)"
        R"("where":{"trtype":"TCP","traddr":"1"},"all":[{"trtype":"RDMA","traddr":""}]})";
    auto p = decode<params>(*json::parse(text));
    ASSERT_TRUE(p) << p.error().message();
    EXPECT_EQ(p->num_blocks, 8u);
    EXPECT_EQ(p->how, mode::multipath);
    EXPECT_EQ(p->where->traddr, "1");
    EXPECT_EQ(json::write(encode(*p)), text);
}

TEST(rpc_field, defaults_are_the_members_own) {
    auto p = decode<params>(*json::parse(R"({"name":"a","num_blocks":1e3})"));
    ASSERT_TRUE(p) << p.error().message();
    EXPECT_EQ(p->num_blocks, 1000u);
    EXPECT_EQ(p->block_size, 512u);
    EXPECT_EQ(json::write(encode(*p)), R"({"name":"a","num_blocks":1000,"block_size":512,"numa_id":-1,"flag":false,)"
                                       R"("ratio":0.5,"how":"failover","names":[],"all":[]})");
}

TEST(rpc_field, complaints_name_parameter_expectation_and_what_came) {
    auto with = [](const char* more) { return complaint(std::string(R"({"name":"a","num_blocks":1,)") + more + "}"); };
    EXPECT_EQ(complaint("{}"), "Invalid parameters: name is missing");
    EXPECT_EQ(complaint("null"), "Invalid parameters: name is missing");
    EXPECT_EQ(complaint("[1]"), "Invalid parameters: must be given by name, in an object, got an array");
    EXPECT_EQ(complaint(R"({"name":""})"), R"(Invalid parameters: name must be not empty, got "")");
    EXPECT_EQ(complaint(R"({"name":5})"), "Invalid parameters: name must be a string, got 5");
    EXPECT_EQ(complaint(R"({"name":"a\u0000b"})"),
              R"(Invalid parameters: name must be a string without NUL characters, got the string "a\u0000b")");
    EXPECT_EQ(complaint(R"({"name":"a","num_blocks":0})"),
              "Invalid parameters: num_blocks must be greater than 0, got 0");
    EXPECT_EQ(complaint(R"({"name":"a","num_blocks":-1})"),
              "Invalid parameters: num_blocks must be an integer from 0 to 18446744073709551615, got -1");
    EXPECT_EQ(with(R"("block_size":513)"), "Invalid parameters: block_size must be one of 512, 4096, got 513");
    EXPECT_EQ(with(R"("block_size":"512")"),
              R"(Invalid parameters: block_size must be an integer from 0 to 4294967295, got the string "512")");
    EXPECT_EQ(with(R"("block_size":4294967808)"),
              "Invalid parameters: block_size must be an integer from 0 to 4294967295, got 4294967808");
    EXPECT_EQ(with(R"("numa_id":8)"), "Invalid parameters: numa_id must be between -1 and 7, got 8");
    EXPECT_EQ(with(R"("flag":1)"), "Invalid parameters: flag must be true or false, got 1");
    EXPECT_EQ(with(R"("how":"x")"),
              R"(Invalid parameters: how must be one of failover, multipath, got the string "x")");
    EXPECT_EQ(
        with(R"("uuid":"x")"),
        R"(Invalid parameters: uuid must be a UUID like 6ba7b810-9dad-11d1-80b4-00c04fd430c8, got the string "x")");
    EXPECT_EQ(with(R"("small":101)"), "Invalid parameters: small must be between 1 and 100, got 101");
    EXPECT_EQ(with(R"("small":null)"), "Invalid parameters: small must be an integer from 0 to 255, got null");
    EXPECT_EQ(with(R"("names":["a",{}])"), "Invalid parameters: names[1] must be a string, got an object");
    EXPECT_EQ(with(R"("names":["a","b","c"])"),
              R"(Invalid parameters: names must be at most 2 long, got ["a","b","c"])");
    EXPECT_EQ(with(R"("where":{"trtype":"TCP","traddr":5})"),
              "Invalid parameters: where.traddr must be a string, got 5");
    EXPECT_EQ(with(R"("all":[{}])"), "Invalid parameters: all[0].trtype is missing");
    EXPECT_EQ(with(R"("all":[5])"), "Invalid parameters: all[0] must be an object, got 5");
    EXPECT_EQ(with(R"("blok_size":512)"),
              R"(Invalid parameters: unknown parameter "blok_size" (did you mean "block_size"?))");
    EXPECT_EQ(with(R"("where":{"quite_else":1})"),
              R"(Invalid parameters: unknown parameter where."quite_else" (known: trtype, traddr))");
    EXPECT_EQ(with(R"("flag":true,"flag":true)"), "Invalid parameters: flag is given twice");
    EXPECT_EQ(with(R"("names":[],"old_names":[])"), "Invalid parameters: old_names is given twice");
}

TEST(rpc_field, describes) {
    auto schema = describe<params>();
    ASSERT_EQ(schema.size(), 12u);
    EXPECT_EQ(schema[1].type, "uint64");
    EXPECT_TRUE(schema[1].required);
    EXPECT_EQ(schema[1].limits, std::vector<std::string>{"greater than 0"});
    EXPECT_EQ(schema[2].default_value, json::value(512));
    EXPECT_EQ(schema[2].choices, (std::vector<std::string>{"512", "4096"}));
    EXPECT_EQ(schema[6].choices, (std::vector<std::string>{"failover", "multipath"}));
    EXPECT_TRUE(schema[7].default_value.is_null());
    EXPECT_EQ(schema[9].type, "array");
    EXPECT_EQ(schema[9].items, "string");
    EXPECT_EQ(schema[9].old_names, std::vector<std::string>{"old_names"});
    EXPECT_EQ(schema[11].items, "object");
    EXPECT_EQ(schema[11].fields.at(0).name, "trtype");
}

}  // namespace
}  // namespace varve::rpc
