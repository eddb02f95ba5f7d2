#include <gtest/gtest.h>

#include <fstream>
#include <iterator>

#include "app/known_methods.h"
#include "rpc/reference.h"

namespace varve::app {
namespace {

TEST(reference, committed_page_is_current) {
    std::ifstream file(VARVE_SOURCE_DIR "/docs/rpc.md");
    const std::string committed{std::istreambuf_iterator<char>(file), {}};
    known_methods known;
    ASSERT_NE(known.get(), nullptr);
    EXPECT_TRUE(committed == rpc::reference_page(*known.get()))
        << "methods have changed; run: build/release/varve rpc --reference > docs/rpc.md";
}

TEST(reference, every_method_and_parameter_says_what_it_is) {
    known_methods known;
    ASSERT_NE(known.get(), nullptr);
    for (const auto& m : known.get()->methods()) {
        EXPECT_FALSE(m->description.empty() || m->description.ends_with('.')) << m->name;
        for (const rpc::field_schema& f : m->params) {
            EXPECT_FALSE(f.description.empty() || f.description.ends_with('.')) << m->name << " " << f.name;
        }
    }
}

}  // namespace
}  // namespace varve::app
