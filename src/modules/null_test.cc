#include "modules/null.h"

#include "bdev/awaits.h"
#include "bdev/test_module.h"

namespace varve::modules {
namespace {

using namespace bdev;

class null_test : public thread::in_every_world {};
#define NULL_TEST(name) MODULE_TEST(TEST_P, null_test, name, make_null())

NULL_TEST(takes_everything_and_keeps_nothing) {
    json::value made = co_await s.call("bdev_null_create", R"({"name": "n", "num_blocks": 8, "block_size": 4096})");
    EXPECT_EQ(made, json::value("n"));
    descriptor opened = co_await s.open("n");
    channel_ref c = opened.channel();
    auto out = pattern(4096, 1);
    co_await write(*c, 7, out);
    std::vector<std::byte> in(4096, std::byte{5});
    co_await read(*c, 7, in);
    EXPECT_EQ(in, std::vector<std::byte>(4096)) << "nothing was stored, and what memory held may be anybody's";
    EXPECT_EQ(co_await answer_to(*c, op::read, 8, 1, in), status::out_of_range);
    co_await write_zeroes(*c, 0, 8);
    co_await flush(*c);
    c = {};
    opened.close();
    co_await s.call("bdev_null_resize", R"({"name": "n", "new_size": 1})");
    EXPECT_EQ(s.find("n")->num_blocks(), 256u) << "MiB, as SPDK counts here";
    EXPECT_EQ(co_await s.code("bdev_null_resize", R"({"name": "n", "new_size": 0})"), -22) << "never smaller";
    co_await s.call("bdev_null_delete", R"({"name": "n"})");
    EXPECT_EQ(s.find("n"), nullptr);
    co_await s.bdevs.add({.num_blocks = 8});
    EXPECT_EQ(co_await s.code("bdev_null_delete", R"({"name": "ram"})"), -19) << "another module's";
}

// Unless the reader says that the memory is his own.
NULL_TEST(leaves_memory_when_told) {
    co_await s.call("bdev_null_create", R"({"name": "n", "num_blocks": 8, "block_size": 512})");
    EXPECT_TRUE(s.find("n")->props().leaves_memory);
    descriptor opened = co_await s.open("n");
    channel_ref c = opened.channel();
    auto memory = pattern(4096, 1);
    pending r(op::read, 0, 8);
    r.data(memory);
    r.flags = io::leave_memory;
    r.go(*c);
    co_await r.over.wait();
    EXPECT_EQ(r.status, status::ok);
    EXPECT_EQ(memory, pattern(4096, 1));
}

NULL_TEST(refuses) {
    for (const char* params :
         {R"({"name": "n", "num_blocks": 0, "block_size": 512})", R"({"name": "n", "num_blocks": 8, "block_size": 0})",
          R"({"name": "n", "num_blocks": 8, "block_size": 513})",
          R"({"name": "n", "num_blocks": 18446744073709551615, "block_size": 4096})",
          R"({"name": "n", "num_blocks": 8, "block_size": 512, "dif_type": 1})"}) {
        EXPECT_EQ(co_await s.code("bdev_null_create", params), -22) << params;
    }
    EXPECT_EQ(co_await s.code("bdev_null_create", R"({"name": "n", "num_blocks": 8})"), -32602);
    EXPECT_EQ(co_await s.code("bdev_null_create", R"({"name": "n", "num_blocks": -8, "block_size": 512})"), -32602);
    EXPECT_EQ(co_await s.code("bdev_null_create", R"({"name": "n", "num_blocks": 8, "block_size": 512})"), 0);
    EXPECT_EQ(co_await s.code("bdev_null_create", R"({"name": "n", "num_blocks": 8, "block_size": 512})"), -17);
    EXPECT_EQ(co_await s.code("bdev_null_delete", R"({"name": "m"})"), -19);
}

NULL_TEST(what_is_saved_makes_the_same_again) {
    co_await s.call("bdev_null_create", R"({"name": "n", "num_blocks": 8, "block_size": 512, "md_size": 8})");
    std::string lines = s.saved();
    co_await s.call("bdev_null_delete", R"({"name": "n"})");
    co_await s.load(lines);
    EXPECT_EQ(s.saved(), lines);
    EXPECT_EQ(s.find("n")->block_size(), 520u);
}

INSTANTIATE_TEST_SUITE_P(worlds, null_test, thread::every_world(), thread::world_name);

}  // namespace
}  // namespace varve::modules
