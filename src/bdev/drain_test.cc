// Waiting for what is under way without stopping what comes.
#include <gtest/gtest.h>

#include "bdev/test_device.h"
#include "thread/awaits.h"

namespace varve::bdev {
namespace {

task<> waits_for_the_old_alone(bdev_system& s) {
    ram_device* d = co_await s.add({.num_blocks = 64}, {.keep = true});
    descriptor opened = co_await s.open(*d);
    channel_ref c = opened.channel();
    std::vector<std::byte> memory(512);
    pending before(op::write, 0, 1), later(op::write, 1, 1), after(op::write, 2, 1);
    before.data(memory).go(*c);
    bool drained = false;
    gate tasks;
    auto drainer = [](bdev_system& sys, device& dev, bool& over) -> task<> {
        co_await sys.devices.drain(dev);
        over = true;
    };
    tasks.spawn(drainer(s, *d, drained), thread::unexpected);
    for (int i = 0; i < 9; ++i) co_await yield();
    EXPECT_FALSE(drained);
    d->opened.load()->let_go();
    later.data(memory).go(*c);  // is in the device when the first ends
    EXPECT_EQ(d->opened.load()->kept(), 2u);
    co_await before.over.wait();
    for (int i = 0; i < 9; ++i) co_await yield();
    EXPECT_TRUE(drained);
    EXPECT_FALSE(later.done);
    d->behaviour.keep = false;
    d->opened.load()->let_go();
    co_await later.over.wait();
    co_await s.devices.drain(*d);
    after.data(memory).go(*c);
    co_await after.over.wait();
    co_await tasks.close();
}
TEST(drain, waits_for_what_was_there_and_for_nothing_else) {
    for (auto kind : {thread::world_kind::epoll, thread::world_kind::sim}) {
        bdev_system s(kind);
        s.run(waits_for_the_old_alone(s));
    }
}

}  // namespace
}  // namespace varve::bdev
