#include "rpc/method.h"

#include <gtest/gtest.h>

#include "json/parse.h"
#include "json/write.h"
#include "rpc/registry.h"

namespace varve::rpc {
namespace {

struct named_thing {
    std::string name;
    static constexpr auto fields = std::tuple{required(&named_thing::name, "name", "Name")};
};

struct shelf {
    std::vector<std::string> names;
};

task<std::string> put(shelf& s, named_thing t) {
    if (t.name == "bad") co_return fail(errc::exists, "bad is taken");
    s.names.push_back(t.name);
    co_return t.name;
}
result<> drop(shelf& s, named_thing t) {
    if (std::erase(s.names, t.name) == 0) return fail(errc::no_device, t.name);
    return {};
}

std::string reply(const registry& r, std::string_view name, std::string_view params, states now = states::runtime) {
    std::string out = "no reply";
    start_detached(
        r.call(name, params.empty() ? json::value() : *json::parse(params), now), [&](result<json::value> v) {
            out = v ? json::write(*v) : std::to_string(rpc_code(v.error().code())) + " " + v.error().message();
        });
    return out;
}

TEST(rpc_method, functions_of_every_shape) {
    shelf s;
    registry r;
    r.add(make_method("put", "", put).bind(s));
    r.add(make_method("drop", "", drop).bind(s));
    r.add(make_method("list", "", [](shelf& of) { return of.names; }).bind(s));
    r.add(make_method("echo", "", [](named_thing t) { return t; }));
    r.add(make_method("seven", "", [] { return 7; }, states::any));
    r.add(make_method("nothing", "", [] {}, states::startup));
    r.add(make_method("any", "", []() -> task<json::value> { co_return json::object{{"a", 1}}; }));
    r.add(make_method("quiet", "", [](shelf&) -> task<> { co_return; }).bind(s));
    r.add_alias("old_put", "put");

    EXPECT_EQ(reply(r, "put", R"({"name":"a"})"), "\"a\"");
    EXPECT_EQ(reply(r, "old_put", R"({"name":"b"})"), "\"b\"");
    EXPECT_EQ(reply(r, "list", ""), R"(["a","b"])");
    EXPECT_EQ(reply(r, "put", R"({"name":"bad"})"), "-17 File exists: bad is taken");
    EXPECT_EQ(reply(r, "drop", R"({"name":"a"})"), "true");
    EXPECT_EQ(reply(r, "drop", R"({"name":"a"})"), "-19 No such device: a");
    EXPECT_EQ(reply(r, "echo", R"({"name":"x"})"), R"({"name":"x"})");
    EXPECT_EQ(reply(r, "seven", "{}"), "7");
    EXPECT_EQ(reply(r, "any", ""), R"({"a":1})");
    EXPECT_EQ(reply(r, "quiet", ""), "true");
    EXPECT_EQ(reply(r, "put", "{}"), "-32602 Invalid parameters: name is missing");
    EXPECT_EQ(reply(r, "seven", R"({"a":1})"), "-32602 Invalid parameters: this method takes no parameters");
    EXPECT_EQ(reply(r, "none", ""), "-32601 Method not found");
}

TEST(rpc_method, states) {
    registry r;
    r.add(make_method("early", "", [] {}, states::startup));
    r.add(make_method("late", "", [] {}, states::runtime));
    r.add(make_method("always", "", [] {}, states::any));
    EXPECT_EQ(reply(r, "early", "", states::startup), "true");
    EXPECT_EQ(reply(r, "always", "", states::startup), "true");
    EXPECT_EQ(reply(r, "always", "", states::runtime), "true");
    EXPECT_TRUE(reply(r, "early", "").starts_with("-1 Method may only be called before framework is initialized. Use"));
    EXPECT_TRUE(reply(r, "late", "", states::startup).starts_with("-1 Method may only be called after framework"));
}

}  // namespace
}  // namespace varve::rpc
