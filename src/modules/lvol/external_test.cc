// Clones of bdevs outside of their store.
#include "modules/lvol/test_lvol.h"

namespace varve::modules::lvol {
namespace {

class lvol_external_test : public thread::in_every_world {};
#define EXTERNAL_TEST(name) LVOL_TEST(lvol_external_test, name)

constexpr const char* golden_uuid = "12345678-9abc-4def-8123-456789abcdef";

task<> plug_golden(life& s, uint64_t bytes = 4 * mib) {
    bdev::properties p = life::disk_properties("golden", bytes);
    p.uuid = *uuid::parse(golden_uuid);
    co_await s.plug(p);
}

task<std::string> clone(life& s, std::string of, std::string name) {
    return s.refusal("bdev_lvol_clone_bdev",
                     R"({"bdev": ")" + of + R"(", "lvs_name": "lvs", "clone_name": ")" + name + R"("})");
}

EXTERNAL_TEST(a_clone_shows_its_bdev_and_waits_for_it) {
    m.live([](life& s) -> task<> {
        co_await s.make_store();
        co_await plug_golden(s);
        co_await s.fill("golden", 0, 8192, 1);
        EXPECT_EQ(co_await clone(s, "golden", "copy"), "done");
        EXPECT_EQ(s.find("lvs/copy")->num_blocks(), 4 * mib / 512);
        EXPECT_EQ(s.specific("lvs/copy")["esnap_clone"], json::value(true));
        EXPECT_EQ(s.specific("lvs/copy")["external_snapshot_name"], json::value(golden_uuid));
        EXPECT_EQ(s.specific("lvs/copy")["clone"], json::value(false));
        EXPECT_FALSE(s.open("golden").has_value());  // nobody may write it now
        co_await s.fill("lvs/copy", 8, 4096, 2);
        co_await s.expect("lvs/copy", 8, bdev::pattern(4096, 2));
        co_await s.expect("golden", 0, bdev::pattern(8192, 1));
        co_await s.call("bdev_lvol_snapshot", R"({"lvol_name": "lvs/copy", "snapshot_name": "snap"})");
    });
    m.live([](life& s) -> task<> {
        co_await s.plug("disk");
        EXPECT_EQ(s.find("lvs/copy"), nullptr);
        json::value told = co_await s.volume("snap");
        EXPECT_EQ(told["is_degraded"], json::value(true));
        EXPECT_EQ(told["is_esnap_clone"], json::value(true));
        EXPECT_FALSE(told["degraded_reason"].is_null());
        // One that is not there can be deleted all the same.
        EXPECT_EQ(co_await s.code("bdev_lvol_delete", R"({"name": "lvs/copy"})"), 0);
        EXPECT_TRUE((co_await s.volume("copy")).is_null());
        co_await plug_golden(s);
        EXPECT_EQ((co_await s.volume("snap"))["is_degraded"], json::value(false));
        EXPECT_EQ(co_await s.code("bdev_lvol_clone", R"({"snapshot_name": "lvs/snap", "clone_name": "copy"})"), 0);
        co_await s.expect("lvs/copy", 8, bdev::pattern(4096, 2));
        co_await s.expect("lvs/snap", 0, [] {
            auto all = bdev::pattern(8192, 1);
            all.resize(4096);
            return all;
        }());
        // Gone while in use: what was written is there, the rest is until it comes back.
        co_await s.unplug("golden");
        EXPECT_EQ((co_await s.volume("copy"))["is_degraded"], json::value(true));
        bdev::descriptor opened = co_await s.open("lvs/copy");
        bdev::channel_ref c = opened.channel();
        std::vector<std::byte> block(512);
        EXPECT_EQ(co_await bdev::answer_to(*c, bdev::op::read, 3 * mib / 512, 1, block), bdev::status::no_device);
        co_await s.expect("lvs/copy", 8, bdev::pattern(4096, 2));
        co_await plug_golden(s);
        EXPECT_EQ(co_await bdev::answer_to(*c, bdev::op::read, 3 * mib / 512, 1, block), bdev::status::ok);
    });
}

EXTERNAL_TEST(what_cannot_be_a_parent_is_refused) {
    m.live([](life& s) -> task<> {
        co_await s.make_store();
        co_await s.make_volume("vol", 2);
        co_await plug_golden(s, 4 * mib + 512);
        EXPECT_TRUE((co_await clone(s, "none", "c")).starts_with("-32602 bdev does not exist"));
        EXPECT_TRUE((co_await clone(s, "lvs/vol", "c")).starts_with("-32602 bdev is an lvol in same lvs as clone"));
        EXPECT_TRUE((co_await clone(s, "golden", "c")).starts_with("-32602 Invalid argument"));
        EXPECT_TRUE((co_await clone(s, "golden", "vol")).starts_with("-32602 File exists"));
        EXPECT_TRUE(
            (co_await s.refusal("bdev_lvol_clone_bdev", R"({"bdev": "golden", "lvs_name": "no", "clone_name": "c"})"))
                .starts_with("-32602 lvs does not exist"));
        EXPECT_TRUE(s.open("golden").has_value());
        EXPECT_EQ((co_await s.call("bdev_lvol_get_lvols")).items()->size(), 1u);
    });
}

// Clients look for the errno's text at the beginning, and know what name they asked for.
EXTERNAL_TEST(what_would_be_degraded_is_not_made_and_the_error_says_why) {
    m.live([](life& s) -> task<> {
        co_await s.make_store();
        co_await plug_golden(s);
        EXPECT_EQ(co_await clone(s, "golden", "copy"), "done");
        co_await s.unplug("golden");
        std::string got =
            co_await s.refusal("bdev_lvol_snapshot", R"({"lvol_name": "lvs/copy", "snapshot_name": "s"})");
        EXPECT_TRUE(got.starts_with("-32602 No such device: the bdev outside")) << got;
        EXPECT_TRUE((co_await s.volume("s")).is_null());
    });
}

EXTERNAL_TEST(a_bdev_can_become_the_parent) {
    m.live([](life& s) -> task<> {
        co_await s.make_store();
        co_await s.make_volume("vol", 4);
        co_await plug_golden(s);
        co_await s.fill("golden", 4 * 2048 - 1, 512, 3);
        auto set = [](life& l, std::string parent) {
            return l.refusal("bdev_lvol_set_parent_bdev",
                             R"({"lvol_name": "lvs/vol", "parent_name": ")" + parent + R"("})");
        };
        EXPECT_TRUE((co_await set(s, "none")).starts_with("-32602 No such device"));
        EXPECT_TRUE((co_await set(s, "lvs/vol")).starts_with("-32602 Invalid argument"));
        EXPECT_EQ(co_await set(s, "golden"), "done");
        co_await s.expect("lvs/vol", 4 * 2048 - 1, bdev::pattern(512, 3));
        EXPECT_TRUE((co_await set(s, "golden")).starts_with("-32602 File exists"));
        EXPECT_EQ(s.specific("lvs/vol")["esnap_clone"], json::value(true));
        EXPECT_EQ(co_await s.code("bdev_lvol_inflate", R"({"name": "lvs/vol"})"), 0);
        EXPECT_EQ(s.specific("lvs/vol")["esnap_clone"], json::value(false));
        co_await s.expect("lvs/vol", 4 * 2048 - 1, bdev::pattern(512, 3));
        EXPECT_TRUE((co_await set(s, "golden")).starts_with("-32602 Invalid argument"));  // it is thick now
    });
}

EXTERNAL_TEST(a_bdev_can_become_the_parent_of_a_snapshot) {
    m.live([](life& s) -> task<> {
        co_await s.make_store();
        co_await s.make_volume("vol", 4);
        co_await plug_golden(s);
        co_await s.fill("golden", 4 * 2048 - 1, 512, 3);
        co_await s.call("bdev_lvol_snapshot", R"({"lvol_name": "lvs/vol", "snapshot_name": "snap"})");
        co_await s.expect("lvs/vol", 4 * 2048 - 1, std::vector<std::byte>(512));
        EXPECT_EQ(co_await s.code("bdev_lvol_set_parent_bdev", R"({"lvol_name": "lvs/snap", "parent_name": "golden"})"),
                  0);
        EXPECT_EQ(s.specific("lvs/snap")["esnap_clone"], json::value(true));
        for (const char* name : {"lvs/snap", "lvs/vol"}) co_await s.expect(name, 4 * 2048 - 1, bdev::pattern(512, 3));
    });
}

INSTANTIATE_TEST_SUITE_P(worlds, lvol_external_test, thread::every_world(), thread::world_name);

}  // namespace
}  // namespace varve::modules::lvol
