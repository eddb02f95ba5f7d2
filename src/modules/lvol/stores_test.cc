// Stores: made, found again, refused, gone.
#include "modules/lvol/test_lvol.h"

namespace varve::modules::lvol {
namespace {

class lvol_stores_test : public thread::in_every_world {};
#define STORE_TEST(name) LVOL_TEST(lvol_stores_test, name)

STORE_TEST(makes_a_store_and_finds_it_again) {
    m.live([](life& s) -> task<> {
        std::string id = co_await s.make_store();
        json::value told = co_await s.store("lvs");
        EXPECT_EQ(told["uuid"], json::value(id));
        EXPECT_EQ(told["base_bdev"], json::value("disk"));
        EXPECT_EQ(told["cluster_size"], json::value(mib));
        EXPECT_EQ(told["block_size"], json::value(512));
        EXPECT_EQ(told["total_data_clusters"], told["free_clusters"]);
        EXPECT_EQ(told["total_data_clusters"], json::value(31));
        EXPECT_EQ(co_await s.make_volume("thin", 8), *(co_await s.volume("thin"))["uuid"].string());
        co_await s.make_volume("thick", 3, false);
        EXPECT_EQ((co_await s.store("lvs"))["free_clusters"], json::value(28));
        co_await s.fill("lvs/thin", 2048, 4096, 7);
    });
    m.live([](life& s) -> task<> {
        co_await s.plug("disk");
        EXPECT_EQ((co_await s.store("lvs"))["free_clusters"], json::value(27));
        co_await s.expect("lvs/thin", 2048, bdev::pattern(4096, 7));
        co_await s.expect("lvs/thin", 4096, std::vector<std::byte>(4096));
        EXPECT_EQ(s.find("lvs/thick")->num_blocks(), 3 * mib / 512);
        EXPECT_EQ(co_await s.code("bdev_lvol_delete_lvstore", R"({"lvs_name": "lvs"})"), 0);
        EXPECT_EQ(s.find("lvs/thin"), nullptr);
        EXPECT_TRUE(s.open("disk").has_value());
    });
    m.live([](life& s) -> task<> {
        co_await s.plug("disk");
        EXPECT_TRUE((co_await s.store("lvs")).is_null());
    });
}

INSTANTIATE_TEST_SUITE_P(worlds, lvol_stores_test, thread::every_world(), thread::world_name);

}  // namespace
}  // namespace varve::modules::lvol
