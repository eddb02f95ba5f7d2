#include "modules/passthru.h"

#include "bdev/awaits.h"
#include "bdev/test_module.h"

namespace varve::modules {
namespace {

using namespace bdev;

class passthru_test : public thread::in_every_world {};
#define PASSTHRU_TEST(name) MODULE_TEST(TEST_IN_WORLDS, passthru_test, name, make_passthru())

task<> make_disk(module_system& s) { co_await s.bdevs.add({.name = "disk", .num_blocks = 64}); }

PASSTHRU_TEST(hands_everything_on) {
    co_await make_disk(s);
    co_await s.call("bdev_passthru_create", R"({"name": "p", "base_bdev_name": "disk"})");
    EXPECT_EQ(s.bdevs.devices.open("disk", open_mode::read_write, {}).error().code(), errc::not_permitted);
    descriptor opened = co_await s.open("p"), below = co_await s.bdevs.devices.open("disk", open_mode::read_only, {});
    channel_ref c = opened.channel(), base = below.channel();
    auto out = pattern(1024, 1);
    std::vector<std::byte> in(1024);
    co_await write(*c, 5, out);
    co_await read(*base, 5, in);
    EXPECT_EQ(in, out);
    co_await reset(*c);
    EXPECT_EQ(co_await s.code("bdev_passthru_create", R"({"name": "p", "base_bdev_name": "other"})"), -17);
    EXPECT_EQ(co_await s.code("bdev_passthru_create", R"({"name": "disk", "base_bdev_name": "other"})"), -17);
    EXPECT_EQ(co_await s.code("bdev_passthru_create", R"({"name": "q", "base_bdev_name": "disk"})"), -1);
    EXPECT_EQ(co_await s.code("bdev_passthru_delete", R"({"name": "disk"})"), -19);
}

// Who reads it has to know whether the device below leaves memory as it is.
PASSTHRU_TEST(says_what_its_base_says) {
    for (bool leaves : {false, true}) {
        std::string base = leaves ? "leaves" : "fills";
        co_await s.bdevs.add({.name = base, .num_blocks = 64, .leaves_memory = leaves});
        co_await s.call("bdev_passthru_create",
                        R"({"name": "on_)" + base + R"(", "base_bdev_name": ")" + base + R"("})");
        EXPECT_EQ(s.find("on_" + base)->props().leaves_memory, leaves);
    }
}

// What was asked for before its base is there, and whose base goes and comes again.
PASSTHRU_TEST(waits_for_its_base) {
    co_await s.call("bdev_passthru_create", R"({"name": "p", "base_bdev_name": "disk"})");
    co_await s.call("bdev_passthru_create", R"({"name": "q", "base_bdev_name": "p"})");
    EXPECT_TRUE(s.bdevs.devices.devices().empty());
    std::string lines = s.saved();
    for (int round = 0; round < 2; ++round) {
        co_await make_disk(s);
        co_await s.bdevs.devices.wait_for_examine();
        descriptor opened = co_await s.open("q");
        auto out = pattern(512, 1);
        co_await write(*opened.channel(), 1, out);
        opened.close();
        co_await s.bdevs.devices.remove("disk");
        EXPECT_TRUE(s.bdevs.devices.devices().empty());
    }
    for (const char* name : {"p", "q"}) {
        co_await s.call("bdev_passthru_delete", R"({"name": ")" + std::string(name) + R"("})");
    }
    EXPECT_EQ(s.saved(), "");
    co_await make_disk(s);
    co_await s.load(lines);
    EXPECT_NE(s.find("q"), nullptr);
}

INSTANTIATE_TEST_SUITE_P(worlds, passthru_test, thread::every_world(), thread::world_name);

}  // namespace
}  // namespace varve::modules
