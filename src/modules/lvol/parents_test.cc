// Volumes that get another parent, or none.
#include "modules/lvol/test_lvol.h"

namespace varve::modules::lvol {
namespace {

class lvol_parents_test : public thread::in_every_world {};
#define PARENTS_TEST(name) LVOL_TEST(lvol_parents_test, name)

PARENTS_TEST(inflated_and_decoupled_volumes_need_no_parent) {
    m.live([](life& s) -> task<> {
        co_await s.make_store();
        co_await s.make_volume("vol", 4);
        co_await s.fill("lvs/vol", 0, 4096, 1);
        co_await s.call("bdev_lvol_snapshot", R"({"lvol_name": "lvs/vol", "snapshot_name": "snap"})");
        co_await s.call("bdev_lvol_clone", R"({"snapshot_name": "lvs/snap", "clone_name": "copy"})");
        co_await s.call("bdev_lvol_inflate", R"({"name": "lvs/vol"})");
        EXPECT_EQ(s.specific("lvs/vol")["thin_provision"], json::value(false));
        EXPECT_EQ(s.specific("lvs/vol")["num_allocated_clusters"], json::value(4));
        co_await s.call("bdev_lvol_decouple_parent", R"({"name": "lvs/copy"})");
        EXPECT_EQ(s.specific("lvs/copy")["thin_provision"], json::value(true));
        EXPECT_EQ(s.specific("lvs/copy")["num_allocated_clusters"], json::value(1));
        EXPECT_EQ(s.specific("lvs/copy")["clone"], json::value(false));
        EXPECT_TRUE(s.specific("lvs/snap")["clones"].is_null());
        EXPECT_EQ(s.specific("lvs/snap")["snapshot"], json::value(true));
        EXPECT_EQ(co_await s.code("bdev_lvol_delete", R"({"name": "lvs/snap"})"), 0);
        co_await s.expect("lvs/vol", 0, bdev::pattern(4096, 1));
        co_await s.expect("lvs/copy", 0, bdev::pattern(4096, 1));
        EXPECT_TRUE((co_await s.refusal("bdev_lvol_decouple_parent", R"({"name": "lvs/copy"})"))
                        .starts_with("-32602 Invalid argument"));
        EXPECT_EQ(co_await s.code("bdev_lvol_inflate", R"({"name": "lvs/snap"})"), -19);
    });
}

PARENTS_TEST(parents_can_be_changed) {
    m.live([](life& s) -> task<> {
        co_await s.make_store();
        for (std::string name : {"a", "b"}) co_await s.make_volume(name, 2);
        co_await s.fill("lvs/a", 0, 512, 1);
        co_await s.call("bdev_lvol_snapshot", R"({"lvol_name": "lvs/a", "snapshot_name": "snap"})");
        auto set = [](life& l, std::string parent) {
            return l.refusal("bdev_lvol_set_parent", R"({"lvol_name": "lvs/b", "parent_name": ")" + parent + R"("})");
        };
        EXPECT_EQ(co_await set(s, "lvs/snap"), "done");
        co_await s.expect("lvs/b", 0, bdev::pattern(512, 1));
        EXPECT_EQ(s.specific("lvs/b")["base_snapshot"], json::value("snap"));
        EXPECT_TRUE((co_await set(s, "lvs/snap")).starts_with("-32602 File exists"));
        EXPECT_TRUE((co_await set(s, "lvs/a")).starts_with("-32602 Invalid argument"));
        EXPECT_EQ(co_await set(s, "lvs/b"), "-32602 Invalid argument: a blob cannot be its own parent");
        // A snapshot's can be changed, too: replicas are rebuilt so.
        co_await s.call("bdev_lvol_snapshot", R"({"lvol_name": "lvs/b", "snapshot_name": "of_b"})");
        co_await s.call("bdev_lvol_detach_parent", R"({"name": "lvs/of_b"})");
        co_await s.expect("lvs/b", 0, std::vector<std::byte>(512));
        EXPECT_EQ(co_await s.refusal("bdev_lvol_set_parent", R"({"lvol_name": "lvs/of_b", "parent_name": "lvs/snap"})"),
                  "done");
        co_await s.expect("lvs/b", 0, bdev::pattern(512, 1));
        EXPECT_EQ(s.specific("lvs/of_b")["base_snapshot"], json::value("snap"));
        EXPECT_TRUE((co_await set(s, "disk")).starts_with("-19 No such device"));
    });
}

PARENTS_TEST(a_snapshot_gets_another_parent) {
    m.live([](life& s) -> task<> {
        co_await s.make_store();
        for (std::string name : {"a", "b"}) {
            co_await s.make_volume(name, 2);
            co_await s.call("bdev_lvol_snapshot",
                            R"({"lvol_name": "lvs/)" + name + R"(", "snapshot_name": "low_)" + name + R"("})");
        }
        co_await s.fill("lvs/b", 0, 512, 1);
        co_await s.call("bdev_lvol_snapshot", R"({"lvol_name": "lvs/b", "snapshot_name": "high"})");
        co_await s.fill("lvs/a", mib / 512, 512, 2);
        co_await s.call("bdev_lvol_snapshot", R"({"lvol_name": "lvs/a", "snapshot_name": "other"})");
        co_await s.expect("lvs/b", mib / 512, std::vector<std::byte>(512));
        EXPECT_EQ(co_await s.code("bdev_lvol_set_parent", R"({"lvol_name": "lvs/high", "parent_name": "lvs/other"})"),
                  0);
        EXPECT_TRUE(
            (co_await s.refusal("bdev_lvol_set_parent", R"({"lvol_name": "lvs/other", "parent_name": "lvs/high"})"))
                .starts_with("-32602 Invalid argument"));  // it would be its own ancestor
        EXPECT_EQ(s.specific("lvs/high")["snapshot"], json::value(true));
        EXPECT_EQ(s.specific("lvs/high")["base_snapshot"], json::value("other"));
    });
    m.live([](life& s) -> task<> {
        co_await s.plug("disk");
        EXPECT_EQ(s.specific("lvs/high")["base_snapshot"], json::value("other"));
        for (const char* name : {"lvs/high", "lvs/b"}) {
            co_await s.expect(name, 0, bdev::pattern(512, 1));
            co_await s.expect(name, mib / 512, bdev::pattern(512, 2));
        }
    });
}

INSTANTIATE_TEST_SUITE_P(worlds, lvol_parents_test, thread::every_world(), thread::world_name);

}  // namespace
}  // namespace varve::modules::lvol
