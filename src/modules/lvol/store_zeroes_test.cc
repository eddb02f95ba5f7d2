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
}

// A flush has failed: nobody knows what of it is on the media.
LVOL_TEST(lvol_zeroes_test, zeroes_that_may_be_lost_are_not_believed_in) {
    unsigned lost = 0;
    for (unsigned flushes = 0; flushes < 12; ++flushes) {
        SCOPED_TRACE(flushes);
        m.images.clear();
        unsigned number = flushes;
        auto make = [](life& s, unsigned& n) -> task<> {
            kept_disk& d = *co_await s.plug(without_zeroing_unmap("disk"));
            d.refuse_one_after(bdev::op::flush, std::exchange(n, 0));
            const bool made = co_await s.code("bdev_lvol_create_lvstore",
                                              R"({"bdev_name": "disk", "lvs_name": "lvs", "cluster_sz": 1048576,)"
                                              R"( "clear_method": "write_zeroes"})") == 0;
            if (!made || !d.refused_one()) co_return;
            const unsigned before = d.seen(bdev::op::write_zeroes);
            co_await s.make_volume("thick", 8, false);
            n = d.seen(bdev::op::write_zeroes) > before ? 1 : 0;  // a flush before the clearing tells nothing of it
        };
        m.live(make, number);
        lost += number;
    }
    EXPECT_GT(lost, 0u);
}

INSTANTIATE_TEST_SUITE_P(worlds, lvol_zeroes_test, thread::every_world(), thread::world_name);

}  // namespace
}  // namespace varve::modules::lvol
