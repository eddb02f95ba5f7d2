// Stores that were made of zeroes: who gets a cluster of one need not clear it.
#include "modules/lvol/test_lvol.h"
#include "thread/awaits.h"

namespace varve::modules::lvol {
namespace {

class lvol_zeroes_test : public thread::in_every_world {};

bdev::properties without_zeroing_unmap(std::string name) {
    bdev::properties p = life::disk_properties(std::move(name));
    p.unmap_zeroes = false;
    return p;
}

// What was written as zeroes when the store was made need not be again.
LVOL_TEST(lvol_zeroes_test, a_store_of_zeroes_needs_no_clearing) {
    m.live([](life& s) -> task<> {
        kept_disk& d = *co_await s.plug(without_zeroing_unmap("disk"));
        co_await s.call("bdev_lvol_create_lvstore", R"({"bdev_name": "disk", "lvs_name": "lvs", "cluster_sz": 1048576,)"
                                                    R"( "clear_method": "write_zeroes"})");
        const unsigned before = d.seen(bdev::op::write_zeroes);
        EXPECT_GT(before, 0u);
        co_await s.make_volume("thick", 8, false);
        co_await s.make_volume("thin", 8);
        co_await s.fill("lvs/thin", 0, 4096, 1);
        EXPECT_EQ(d.seen(bdev::op::write_zeroes), before);
        co_await s.expect("lvs/thick", 0, std::vector<std::byte>(8 * mib));
    });
    m.live([](life& s) -> task<> {  // not when nobody knows whether it got there
        kept_disk& d = *co_await s.plug(without_zeroing_unmap("other"));
        d.hold(bdev::op::write_zeroes);
        blob::crew asking;
        std::string answer;
        asking.start(s.ask("bdev_lvol_create_lvstore",
                           R"({"bdev_name": "other", "lvs_name": "lvs", "cluster_sz": )"
                           R"(1048576, "clear_method": "write_zeroes"})",
                           answer));
        while (d.held() == 0) co_await yield();
        d.let_go();  // of the metadata
        d.refuse_one_after(bdev::op::flush, 0);
        co_await asking.done();
        if (answer != "done") co_return;
        const unsigned before = d.seen(bdev::op::write_zeroes);
        co_await s.make_volume("thick", 8, false);
        EXPECT_GT(d.seen(bdev::op::write_zeroes), before);
    });
}

INSTANTIATE_TEST_SUITE_P(worlds, lvol_zeroes_test, thread::every_world(), thread::world_name);

}  // namespace
}  // namespace varve::modules::lvol
