#include "thread/io_device.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "thread/awaits.h"
#include "thread/gate.h"
#include "thread/test_world.h"

namespace varve::thread {
namespace {

class io_device_test : public in_every_world {};
INSTANTIATE_TEST_SUITE_P(worlds, io_device_test, every_world(), world_name);

// Knows its thread, and that nobody else touches it.
struct lane {
    explicit lane(std::atomic<int>& counter) : open(counter) { ++open; }
    ~lane() {
        EXPECT_EQ(owner, thread::current());
        --open;
    }
    thread* owner = thread::current();
    int visits = 0;
    std::atomic<int>& open;
};

struct road : io_device<lane> {
    road() : io_device("road", [this] { return std::make_unique<lane>(open); }) {}
    std::atomic<int> open{0};
};

task<> shares() {
    road device;
    {
        auto first = device.get(), second = device.get();
        EXPECT_EQ(&*first, &*second);
        EXPECT_EQ(device.open, 1);
        EXPECT_EQ(here().channels().size(), 1u);
        EXPECT_EQ(here().channels().front().device_name(), "road");
        EXPECT_EQ(here().channels().front().references(), 2u);
        first.release();
        lane* before = &*second;
        second.release();
        EXPECT_EQ(device.open, 1) << "not inside the release";
        EXPECT_EQ(&*device.get(), before) << "somebody came in time";
    }
    co_await device.closed();
    EXPECT_EQ(device.open, 0);
    EXPECT_EQ(device.channels(), 0u);
    co_await device.closed();
}

TEST_IN_WORLDS(io_device_test, a_channel_is_shared_by_its_thread_and_goes_with_the_last_reference) {
    system_of(GetParam(), 1).run(shares());
}

task<> held_on(thread& t, io_device<lane>& device, channel_ref<lane>& into) {
    thread& home = here();
    co_await switch_to(t);
    into = device.get();
    co_await switch_to(home);
}

task<> let_go_on(thread& t, channel_ref<lane>& from) {
    thread& home = here();
    co_await switch_to(t);
    from.release();
    co_await switch_to(home);
}

task<> fails_on(lane& at, thread* where) {
    ++at.visits;
    co_await yield();
    if (at.owner == where) co_await fail(errc::io, "here");
}

task<> visits_all(runtime& rt) {
    thread& home = here();
    road device;
    constexpr std::size_t count = 4;
    thread* threads[count];
    channel_ref<lane> held[count];
    for (std::size_t i = 0; i < count; ++i) {
        threads[i] = co_await rt.create_thread("t");
        if (i != 1) co_await held_on(*threads[i], device, held[i]);
    }
    std::vector<thread*> seen;
    co_await device.for_each_channel([&](lane& l) {
        EXPECT_EQ(l.owner, thread::current());
        seen.push_back(l.owner);
    });
    EXPECT_EQ(thread::current(), &home);
    EXPECT_EQ(seen, (std::vector{threads[0], threads[2], threads[3]}));

    thread* bad = threads[2];
    result<> outcome = co_await as_result(device.for_each_channel([bad](lane& l) { return fails_on(l, bad); }));
    EXPECT_EQ(thread::current(), &home);
    EXPECT_FALSE(outcome);
    EXPECT_EQ(outcome.error().code(), errc::io);
    EXPECT_EQ(held[0]->visits, 1);
    EXPECT_EQ(held[2]->visits, 1);
    EXPECT_EQ(held[3]->visits, 0) << "it ended at the first error";
    for (std::size_t i = 0; i < count; ++i) co_await let_go_on(*threads[i], held[i]);
    co_await device.closed();
    for (thread* t : threads) rt.destroy_thread(*t);
}

TEST_IN_WORLDS(io_device_test, every_channel_is_visited_on_its_thread) {
    system_of s(GetParam(), 3);
    s.run(visits_all(*s.rt));
}

task<> comes_and_goes(runtime& rt, io_device<lane>& device, int rounds) {
    thread& home = here();
    for (int i = 0; i < rounds; ++i) {
        thread* t = co_await rt.create_thread("guest");
        co_await switch_to(*t);
        {
            auto one = device.get();
            co_await yield();
            if (i % 3 == 0) co_await sleep(10 * microseconds);
        }
        co_await switch_to(home);
        rt.destroy_thread(*t);
    }
}

task<> visits_often(io_device<lane>& device, const bool& enough, int& rounds) {
    while (!enough) {
        ++rounds;
        co_await device.for_each_channel([](lane& l) {
            EXPECT_EQ(l.owner, thread::current());
            ++l.visits;
        });
        co_await yield();
    }
}

task<> crowd(runtime& rt) {
    road device;
    bool enough = false;
    int rounds = 0;
    {
        gate guests, visitors;
        visitors.spawn(visits_often(device, enough, rounds), unexpected);
        for (int i = 0; i < 4; ++i) guests.spawn(comes_and_goes(rt, device, 100), unexpected);
        co_await guests.close();
        enough = true;
        co_await visitors.close();
    }
    co_await device.closed();
    EXPECT_GT(rounds, 0);
}

TEST_IN_WORLDS(io_device_test, threads_come_and_go_while_channels_are_visited) {
    system_of s(GetParam(), 3);
    s.run(crowd(*s.rt));
}

// Says goodbye to another thread when it goes.
struct parting {
    parting(thread& to, bool& heard) : home(to), said(heard) {}
    ~parting() {
        home.post([&heard = said] { heard = true; });
    }
    thread& home;
    bool& said;
};

task<> opens_briefly(io_device<parting>& device) {
    auto held = device.get();
    co_return;
}

task<> hears_the_last_words(runtime& rt) {
    bool heard = false;
    io_device<parting> device("parting", [&home = here(), &heard] { return std::make_unique<parting>(home, heard); });
    thread* other = co_await rt.create_thread("other");
    co_await call_on(*other, [&] { return opens_briefly(device); });
    // This thread does nothing else until the channel has gone, so that what it said is in the mailbox.
    while (device.channels() != 0) std::this_thread::yield();
    EXPECT_FALSE(heard);
    co_await device.closed();
    EXPECT_TRUE(heard);
    rt.destroy_thread(*other);
}

// Not in simulation, where nothing else runs while a thread waits like this.
TEST_P(io_device_test, is_closed_when_what_its_channels_said_last_was_heard) {
    system_of s(GetParam(), 2);
    s.run(hears_the_last_words(*s.rt));
}

}  // namespace
}  // namespace varve::thread
