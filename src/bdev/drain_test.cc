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

// Writes to odd windows of four blocks wait for something; everything else is under way until it is let go.
class waiting_device final : public device {
  public:
    using device::device;
    std::string_view module_name() const noexcept override { return "waiting"; }
    std::unique_ptr<channel> open_channel() override;
    class waiting_channel* opened = nullptr;
};

class waiting_channel final : public channel {
  public:
    explicit waiting_channel(waiting_device& d) { d.opened = this; }
    // They have what they waited for, and are under way.
    void go_on() noexcept {
        for (io* r : std::exchange(_waiting, {})) {
            wait_ends(*r);
            _under_way.push_back(r);
        }
    }
    void let_go() noexcept {
        for (io* r : std::exchange(_under_way, {})) complete_later(*r, status::ok);
    }
    std::size_t waiting() const noexcept { return _waiting.size(); }
    std::size_t under_way() const noexcept { return _under_way.size(); }

  private:
    void do_submit(io& r) noexcept override {
        if (r.lba / 4 % 2 == 0) return _under_way.push_back(&r);
        _waiting.push_back(&r);
        wait_begins(r);
    }
    std::vector<io*> _waiting, _under_way;
};
std::unique_ptr<channel> waiting_device::open_channel() { return std::make_unique<waiting_channel>(*this); }

task<> told_when_done(task<> what, bool& over) {
    co_await std::move(what);
    over = true;
}

// Before the drain and while it waits; of one part (lba 4) or two (lba 0), with requests of an epoch among them.
task<> waits_for_none_that_waits(bdev_system& s) {
    auto made = std::make_unique<waiting_device>(properties{.name = "waiting",
                                                            .num_blocks = 64,
                                                            .offered = op_bit(op::write),
                                                            .optimal_io_boundary = 4,
                                                            .split_on_boundary = true});
    waiting_device& d = *made;
    co_await s.devices.add(std::move(made));
    descriptor opened = co_await s.devices.open("waiting", open_mode::read_write, {});
    channel_ref c = opened.channel();
    std::vector<std::byte> memory(8 * 512);
    auto turns = []() -> task<> {
        for (int i = 0; i < 20; ++i) co_await yield();
    };
    for (uint64_t lba : {4u, 0u}) {
        for (bool in_epoch : {false, true}) {
            const uint32_t blocks = lba == 0 ? 8 : 4;
            const std::size_t under_way = lba == 0;
            pending one(op::write, lba, blocks), before(op::write, 0, 1), later(op::write, 0, 1);
            gate tasks;
            bool drained = false, again = false, first = false;
            if (in_epoch) {  // one is being waited for when the request comes
                before.data(memory).go(*c);
                tasks.spawn(told_when_done(s.devices.drain(d), first), thread::unexpected);
                co_await turns();
            }
            one.data(memory).go(*c);
            co_await turns();
            if (in_epoch) {
                EXPECT_FALSE(first);
                EXPECT_EQ(d.opened->under_way(), 1 + under_way);
                d.opened->let_go();
                co_await turns();
                EXPECT_TRUE(first);
            }
            EXPECT_EQ(d.opened->waiting(), 1u);
            tasks.spawn(told_when_done(s.devices.drain(d), drained), thread::unexpected);
            co_await turns();
            EXPECT_EQ(drained, under_way == 0 || in_epoch) << "a part is under way";
            d.opened->let_go();
            co_await turns();
            EXPECT_TRUE(drained);
            EXPECT_FALSE(one.done);
            later.data(memory).go(*c);
            d.opened->go_on();
            tasks.spawn(told_when_done(s.devices.drain(d), again), thread::unexpected);
            co_await turns();
            EXPECT_FALSE(again) << "it is under way again";
            EXPECT_EQ(d.opened->under_way(), 2u);
            d.opened->let_go();
            co_await one.over.wait();
            co_await later.over.wait();
            co_await tasks.close();
            EXPECT_TRUE(again);
        }
    }
    c = {};
    opened.close();
    co_await s.devices.remove("waiting");
}
TEST(drain, waits_for_none_that_waits_for_something_else) {
    for (auto kind : {thread::world_kind::epoll, thread::world_kind::sim}) {
        bdev_system s(kind);
        s.run(waits_for_none_that_waits(s));
    }
}

}  // namespace
}  // namespace varve::bdev
