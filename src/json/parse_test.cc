#include "json/parse.h"

#include <gtest/gtest.h>

#include "json/write.h"

namespace varve::json {
namespace {

std::string round_trip(std::string_view text) {
    auto v = parse(text);
    return v ? write(*v) : v.error().message();
}

TEST(json, writes_what_it_read) {
    for (const char* text :
         {"null", "true", "-1", "0", "18446744073709551615", "-9223372036854775808", "1.5", "\"\"", "[]", "{}",
          R"({"b":1,"a":[1,{"c":null}],"b2":"x\ny"})", R"("\u0000\u001F")", "\"\xc3\xa9\""}) {
        EXPECT_EQ(round_trip(text), text);
    }
    EXPECT_EQ(round_trip(" [ 1 ,\n2 ] \n"), "[1,2]");
    EXPECT_EQ(round_trip(R"("\ud83d\ude00")"), "\"\xf0\x9f\x98\x80\"");
}

TEST(json, numbers_compare_by_value) {
    EXPECT_EQ(value(5), value(5u));
    EXPECT_EQ(*parse("5"), value(int8_t{5}));
    EXPECT_EQ(parse("5.0")->integer(), 5);
    EXPECT_EQ(parse("1e3")->unsigned_integer(), 1000u);
    EXPECT_EQ(parse("-1")->unsigned_integer(), std::nullopt);
    EXPECT_EQ(parse("18446744073709551615")->integer(), std::nullopt);
    EXPECT_EQ(parse("18446744073709551616")->unsigned_integer(), std::nullopt);
    EXPECT_EQ(parse("1.5")->integer(), std::nullopt);
}

TEST(json, refuses_what_is_not_json) {
    using std::string_view_literals::operator""sv;
    for (std::string_view text : {""sv,
                                  " "sv,
                                  "{"sv,
                                  "[1,]"sv,
                                  "{\"a\"}"sv,
                                  "{\"a\":1,}"sv,
                                  "{a:1}"sv,
                                  "nul"sv,
                                  "01"sv,
                                  "1."sv,
                                  "+1"sv,
                                  "NaN"sv,
                                  "'a'"sv,
                                  "\"\xff\""sv,
                                  "\"\xc0\x80\""sv,
                                  "\"\xed\xa0\x80\""sv,
                                  "\"a\nb\""sv,
                                  "\"\\x\""sv,
                                  R"("\ud800")"sv,
                                  R"("\udc00")"sv,
                                  R"({"\udc00":1})"sv,
                                  "1e400"sv,
                                  "{}{}"sv,
                                  "{}x"sv,
                                  "{}\0"sv,
                                  "{\0}"sv,
                                  "\"a\0b\""sv,
                                  "// c\n{}"sv}) {
        auto v = parse(text);
        EXPECT_FALSE(v) << text;
        if (!v) EXPECT_EQ(v.error().code(), errc::rpc_parse_error);
    }
}

TEST(json, tells_line_and_offset) {
    auto v = parse("{\n  \"a\": 1\n  \"b\": 2\n}");
    ASSERT_FALSE(v);
    EXPECT_EQ(v.error().message(), "Parse error: line 3, offset 13: Missing a comma or '}' after an object member.");
}

TEST(json, what_is_not_utf8_is_replaced) {
    const std::pair<std::string_view, std::string_view> cases[] = {
        {"plain", "plain"},
        {"\xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80", "\xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80"},
        {"a\xff"
         "b",
         "a\xef\xbf\xbd"
         "b"},
        {"\x80", "\xef\xbf\xbd"},
        {"end \xe2\x82", "end \xef\xbf\xbd\xef\xbf\xbd"},
        {"\xc0\x80", "\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {std::string_view("\0\xe2", 2), "\\u0000\xef\xbf\xbd"},
    };
    for (auto [text, written] : cases) {
        const std::string quoted = '"' + std::string(written) + '"';
        EXPECT_EQ(write(value(std::string(text))), quoted);
        EXPECT_EQ(write(object{{std::string(text), 1}}), '{' + quoted + ":1}");
        EXPECT_TRUE(parse(quoted)) << quoted;
    }
}

TEST(json, comments_where_allowed) { EXPECT_EQ(write(*parse("/* a */ {} // b\n", comments::allowed)), "{}"); }

TEST(json, depth_is_limited_without_recursion) {
    std::string deep(100'000'000, '[');
    EXPECT_FALSE(parse(deep));
    EXPECT_TRUE(parse(std::string(max_depth, '[') + std::string(max_depth, ']')));
    EXPECT_FALSE(parse(std::string(max_depth + 1, '[') + std::string(max_depth + 1, ']')));
}

TEST(json, number_of_values_is_limited) {
    std::string text = "[0";
    for (std::size_t i = 2; i < max_values; ++i) text += ",0";
    EXPECT_TRUE(parse(text + "]"));
    EXPECT_FALSE(parse(text + ",0]"));
}

TEST(json, objects_find_set_and_keep_order) {
    object o{{"z", 1}, {"a", "x"}};
    o.set("z", 2);
    o.set("m", array{1, nullptr});
    value v = o;
    EXPECT_EQ(write(v), R"({"z":2,"a":"x","m":[1,null]})");
    EXPECT_EQ(v["m"][0], value(1));
    EXPECT_TRUE(v["m"][7]["nothing"].is_null());
    EXPECT_EQ(v.find("q"), nullptr);
    EXPECT_EQ(write(v, 1), "{\n \"z\": 2,\n \"a\": \"x\",\n \"m\": [\n  1,\n  null\n ]\n}");
}

TEST(json, excerpt_does_not_cut_a_character) {
    EXPECT_EQ(excerpt(value("\xc3\xa9\xc3\xa9\xc3\xa9"), 4), "\"\xc3\xa9...");
    EXPECT_EQ(excerpt(value("ab"), 4), "\"ab\"");
}

}  // namespace
}  // namespace varve::json
