#include "json/splitter.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace varve::json {
namespace {

// The documents found when `bytes` arrive in pieces of the given size; "!" last when the stream broke.
std::vector<std::string> split(std::string_view bytes, std::size_t piece, std::size_t limit = splitter::default_limit) {
    splitter s(limit);
    std::vector<std::string> out;
    for (; !bytes.empty(); bytes.remove_prefix(std::min(piece, bytes.size()))) {
        std::string_view now = bytes.substr(0, piece);
        for (;;) {
            auto document = s.next(now);
            if (!document) {
                out.emplace_back("!");
                return out;
            }
            if (!*document) break;
            out.emplace_back(**document);
        }
        EXPECT_TRUE(now.empty());
    }
    return out;
}

using documents = std::vector<std::string>;

TEST(splitter, cuts_where_documents_end_however_they_arrive) {
    const std::string text = R"({"a":"}{\"[\\"}[1,[2]] {})"
                             "\n\r\t"
                             R"("s\"x"5 true[]null )";
    const documents expected{R"({"a":"}{\"[\\"})", "[1,[2]]", "{}", R"("s\"x")", "5", "true", "[]", "null"};
    for (std::size_t piece = 1; piece <= text.size(); ++piece) EXPECT_EQ(split(text, piece), expected) << piece;
}

TEST(splitter, half_a_document_waits) {
    splitter s;
    std::string_view bytes = R"({"method": "x)";
    EXPECT_EQ(s.next(bytes)->has_value(), false);
    EXPECT_TRUE(bytes.empty());
    EXPECT_TRUE(s.inside_document());
    EXPECT_EQ(s.kept(), 13u);
    bytes = "\"}  ";
    EXPECT_EQ(s.next(bytes)->value(), R"({"method": "x"})");
    EXPECT_EQ(s.next(bytes)->has_value(), false);
    EXPECT_FALSE(s.inside_document());
    EXPECT_EQ(s.kept(), 0u);
}

TEST(splitter, refuses_garbage_at_once) {
    using std::string_view_literals::operator""sv;
    for (std::string_view bytes :
         {"GET / HTTP/1.1"sv, "\0"sv, "}"sv, "[}"sv, "{]"sv, "{\0"sv, "[\xff"sv, "[\"a\nb\"]"sv, "[\"\0\"]"sv, ","sv}) {
        EXPECT_EQ(split(bytes, 1).back(), "!") << bytes;
        EXPECT_EQ(split(bytes, 100).back(), "!") << bytes;
    }
    EXPECT_EQ(split("{}}", 100), (documents{"{}", "!"}));
}

TEST(splitter, stays_broken) {
    splitter s;
    std::string_view bytes = "}";
    EXPECT_FALSE(s.next(bytes));
    bytes = "{}";
    EXPECT_FALSE(s.next(bytes));
}

TEST(splitter, nesting_and_size_are_limited) {
    splitter s;
    std::string deep(100'000'000, '[');
    std::string_view bytes = deep;
    EXPECT_FALSE(s.next(bytes));
    EXPECT_EQ(s.kept(), 0u);
    EXPECT_EQ(split(R"(["0123"])", 3, 8), (documents{R"(["0123"])"}));
    EXPECT_EQ(split(R"(["01234"])", 3, 8), (documents{"!"}));
}

}  // namespace
}  // namespace varve::json
