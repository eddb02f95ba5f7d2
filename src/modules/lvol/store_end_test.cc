// Stores that end: deleted, while their device answers or does not, and at the end of the system.
#include <gtest/gtest.h>

#include "modules/lvol/test_lvol.h"

namespace varve::modules::lvol {
namespace {

class lvol_store_end_test : public thread::in_every_world {};
INSTANTIATE_TEST_SUITE_P(worlds, lvol_store_end_test, thread::every_world(), thread::world_name);
#define END_TEST(name) LVOL_TEST(lvol_store_end_test, name)

const std::string this_store = R"({"lvs_name": "lvs"})", on_disk = R"({"bdev_name": "disk", "lvs_name": "next"})";

// The store is gone first; the base stays claimed until the last unmap has ended, so that none hits what comes next.
END_TEST(a_deleted_store_gives_back_its_device_before_anybody_gets_it) {
    m.live([](life& s) -> task<> {
        co_await s.make_store();
        co_await s.make_volume("vol", 20, false);
        co_await s.fill("lvs/vol", 0, mib, 1);
        co_await life::pass_turns();
        kept_disk& d = s.disk();
        blob::crew asking;
        std::string answer;
        asking.start(s.ask("bdev_lvol_delete_lvstore", this_store, answer));
        while (d.blocks[0] != std::byte{}) co_await yield();
        d.hold(bdev::op::unmap);
        while (d.held() == 0 && answer.empty()) co_await yield();
        EXPECT_EQ(answer, "");
        EXPECT_TRUE((co_await s.store("lvs")).is_null());
        json::value job = co_await s.job("delete");
        EXPECT_EQ(job["object"], json::value("lvs"));
        EXPECT_EQ(job["state"], json::value("running"));
        EXPECT_EQ(job["total"], json::value(20));
        EXPECT_TRUE(
            (co_await s.refusal("bdev_lvol_create_lvstore", on_disk)).starts_with("-1 Operation not permitted"));
        d.let_go();
        co_await asking.done();
        EXPECT_EQ(answer, "done");
        EXPECT_EQ(std::ranges::count(std::span(d.blocks).subspan(mib), std::byte{}), 31 * mib) << "all its clusters";
        EXPECT_EQ(co_await s.refusal("bdev_lvol_create_lvstore", on_disk), "done");
    });
}

// Somebody deletes a store whose six volumes lie apart, and the disk keeps its unmaps after the super block is gone.
// How many the disk had seen before.
task<unsigned> held_up_in_giving_back(life& s, blob::crew& asking, std::string& answer) {
    co_await s.make_store();
    for (int i = 0; i < 12; ++i) co_await s.make_volume(fmt::format("v{}", i), 1, false);
    for (int i = 0; i < 12; i += 2) {
        co_await s.call("bdev_lvol_delete", fmt::format(R"({{"name": "lvs/v{}"}})", i));
    }
    co_await life::pass_turns();
    kept_disk& d = s.disk();
    const unsigned before = d.seen(bdev::op::unmap);
    asking.start(s.ask("bdev_lvol_delete_lvstore", this_store, answer));
    while (d.blocks[0] != std::byte{}) co_await yield();
    d.hold(bdev::op::unmap);
    while (d.held() < 4 && answer.empty()) co_await yield();
    co_return before;
}

END_TEST(unmapping_what_a_store_had_can_be_cancelled) {
    m.live([](life& s) -> task<> {
        blob::crew asking;
        std::string answer;
        const unsigned before = co_await held_up_in_giving_back(s, asking, answer);
        kept_disk& d = s.disk();
        json::value job = co_await s.job("delete");
        co_await s.call("job_cancel", fmt::format(R"({{"id": {}}})", *job["id"].unsigned_integer()));
        d.let_go();
        co_await asking.done();
        EXPECT_EQ(answer, "done") << "it is gone all the same";
        EXPECT_EQ(d.seen(bdev::op::unmap) - before, 2 + 4u) << "the super block, its copy, and four of the six ranges";
        EXPECT_EQ(co_await s.refusal("bdev_lvol_create_lvstore", on_disk), "done");
    });
}

// On a clock that waits for nobody.
TEST(lvol_store_end_test_sim, unmapping_what_a_store_had_is_cut_short) {
    machine m(thread::world_kind::sim);
    m.live([](life& s) -> task<> {
        blob::crew asking;
        std::string answer;
        const unsigned before = co_await held_up_in_giving_back(s, asking, answer);
        kept_disk& d = s.disk();
        co_await sleep(3100 * milliseconds);
        d.let_go();
        co_await asking.done();
        EXPECT_EQ(answer, "done");
        EXPECT_EQ(d.seen(bdev::op::unmap) - before, 2 + 4u);
        EXPECT_EQ((co_await s.job("delete"))["state"], json::value("complete")) << "it took long: it is remembered";
    });
}

// Nobody may get the base while they are under way; but the store is gone, and who deleted it is told so.
TEST(lvol_store_end_test_sim, unmaps_that_are_not_answered_keep_nobody_waiting) {
    machine m(thread::world_kind::sim);
    m.live([](life& s) -> task<> {
        blob::crew asking;
        std::string answer;
        co_await held_up_in_giving_back(s, asking, answer);
        kept_disk& d = s.disk();
        co_await sleep(13'100 * milliseconds);
        EXPECT_EQ(answer, "done");
        EXPECT_NE(s.lines.find("bdev disk has not answered all unmaps"), std::string::npos) << s.lines;
        EXPECT_EQ((co_await s.job("delete"))["state"], json::value("running"));
        EXPECT_TRUE(
            (co_await s.refusal("bdev_lvol_create_lvstore", on_disk)).starts_with("-1 Operation not permitted"));
        d.let_go();
        co_await life::pass_turns();
        EXPECT_EQ(co_await s.refusal("bdev_lvol_create_lvstore", on_disk), "done");
        co_await asking.done();
    });
}

// Although it was opened last.
END_TEST(a_base_that_does_not_answer_keeps_no_other_store_in_use) {
    m.live([](life& s) -> task<> {
        for (std::string name : {"one", "two"}) {
            co_await s.plug(name);
            co_await s.call("bdev_lvol_create_lvstore",
                            fmt::format(R"({{"bdev_name": "{}", "lvs_name": "{}"}})", name, name));
        }
        auto& fine = static_cast<kept_disk&>(*s.bdevs.devices.find("one"));
        auto& stuck = static_cast<kept_disk&>(*s.bdevs.devices.find("two"));
        stuck.hold(bdev::op::write);
        blob::crew ending;
        ending.start(s.tested->stop());
        while (fine.blocks[16] == std::byte{}) co_await yield();  // unloaded
        co_await life::pass_turns();
        EXPECT_EQ(stuck.blocks[16], std::byte{});
        stuck.let_go();
        co_await ending.done();
        EXPECT_NE(stuck.blocks[16], std::byte{});
    });
}

END_TEST(a_base_that_does_not_answer_while_it_is_opened_keeps_no_other_in_use) {
    m.live([](life& s) -> task<> {
        co_await s.plug("mute");
        co_await s.call("bdev_lvol_create_lvstore", R"({"bdev_name": "mute", "lvs_name": "other"})");
    });
    m.live([](life& s) -> task<> {
        co_await s.make_store();
        kept_disk& d = s.disk();
        EXPECT_EQ(d.blocks[16], std::byte{});
        auto made = std::make_unique<kept_disk>(life::disk_properties("mute"), s.images["mute"]);
        kept_disk& mute = *made;
        mute.hold(bdev::op::read);
        co_await s.bdevs.devices.add(std::move(made));
        while (mute.held() == 0) co_await yield();
        mute.let_go();  // it is seen that there is a store
        mute.hold(bdev::op::read);
        co_await life::pass_turns();
        EXPECT_NE(mute.held(), 0u);
        blob::crew ending;
        ending.start(s.tested->stop());
        co_await life::pass_turns();
        EXPECT_NE(d.blocks[16], std::byte{}) << "it was not unloaded";
        mute.let_go();
        co_await ending.done();
    });
}

END_TEST(a_store_on_a_volume_is_unloaded_before_that) {
    m.live([](life& s) -> task<> {
        co_await s.make_store();
        const std::string volume = co_await s.make_volume("vol", 20);
        co_await s.call("bdev_lvol_create_lvstore", R"({"bdev_name": "lvs/vol", "lvs_name": "above"})");
        kept_disk& d = s.disk();
        d.hold(bdev::op::write);
        blob::crew ending;
        ending.start(s.tested->stop());
        while (d.held() == 0) co_await yield();
        co_await life::pass_turns();
        EXPECT_NE(s.find("lvs/vol"), nullptr) << "what lies on it is not unloaded yet";
        d.let_go();
        co_await ending.done();
        EXPECT_NE(d.blocks[16], std::byte{});
    });
    m.live([](life& s) -> task<> {
        co_await s.plug("disk");
        EXPECT_FALSE((co_await s.store("above")).is_null());
    });
}

// Whoever deleted the volume has waited for its user meanwhile, and begins to clear what it had when the store is
// going.
END_TEST(what_a_volume_had_is_not_cleared_when_its_store_goes) {
    m.live([](life& s) -> task<> {
        co_await s.make_store();
        co_await s.call("bdev_lvol_create", R"({"lvs_name": "lvs", "lvol_name": "vol", "size_in_mib": 20, )"
                                            R"("clear_method": "write_zeroes"})");
        bdev::descriptor opened = co_await s.open("lvs/vol");
        blob::crew asking;
        std::string removed, deleted;
        asking.start(s.ask("bdev_lvol_delete", R"({"name": "lvs/vol"})", removed));
        while (s.find("lvs/vol") != nullptr) co_await yield();
        asking.start(s.ask("bdev_lvol_delete_lvstore", this_store, deleted));
        co_await life::pass_turns();
        kept_disk& d = s.disk();
        const unsigned before = d.seen(bdev::op::write_zeroes);
        d.hold(bdev::op::write_zeroes);
        opened.close();
        while (d.held() == 0) co_await yield();
        co_await life::pass_turns();
        EXPECT_EQ(removed, "done");
        EXPECT_EQ(deleted, "");
        d.let_go();
        co_await asking.done();
        EXPECT_EQ(deleted, "done");
        EXPECT_EQ(d.seen(bdev::op::write_zeroes) - before, 4u) << "those that were under way, of ten";
    });
}

}  // namespace
}  // namespace varve::modules::lvol
