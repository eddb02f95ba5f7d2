#include "thread/sync.h"

#include <gtest/gtest.h>

#include <string>

#include "thread/awaits.h"
#include "thread/gate.h"
#include "thread/test_world.h"

namespace varve::thread {
namespace {

class sync_test : public in_every_world {};
INSTANTIATE_TEST_SUITE_P(worlds, sync_test, every_world(), world_name);

task<> waits_for(event& e, int& passed) {
    co_await e.wait();
    ++passed;
}

task<> opens_and_closes() {
    event e;
    int passed = 0;
    gate all;
    for (int i = 0; i < 3; ++i) all.spawn(waits_for(e, passed), unexpected);
    EXPECT_EQ(passed, 0);
    e.set();
    EXPECT_EQ(passed, 0) << "nobody runs inside set()";
    co_await yield();
    EXPECT_EQ(passed, 3);
    all.spawn(waits_for(e, passed), unexpected);
    EXPECT_EQ(passed, 4) << "it stays open";
    e.reset();
    all.spawn(waits_for(e, passed), unexpected);
    co_await yield();
    EXPECT_EQ(passed, 4);
    e.pulse();
    EXPECT_EQ(passed, 4);
    all.spawn(waits_for(e, passed), unexpected);
    co_await yield();
    EXPECT_EQ(passed, 5) << "a pulse lets those pass who wait then";
    e.set();
    co_await all.close();
    EXPECT_EQ(passed, 6);
}

TEST_IN_WORLDS(sync_test, an_event_lets_everybody_pass_until_reset) {
    system_of(GetParam(), 1).run(opens_and_closes());
}

task<> writes(mutex& m, char name, std::string& log) {
    for (int i = 0; i < 3; ++i) {
        auto held = co_await m.lock();
        log += name;
        co_await yield();
        log += name;
    }
}

task<> take_turns(std::string& log) {
    mutex m;
    gate all;
    for (char name : {'a', 'b', 'c'}) all.spawn(writes(m, name, log), unexpected);
    EXPECT_TRUE(m.locked());
    EXPECT_FALSE(m.try_lock());
    co_await all.close();
    EXPECT_TRUE(m.try_lock());
}

TEST_IN_WORLDS(sync_test, a_mutex_is_handed_to_whoever_waits_longest) {
    std::string log;
    system_of(GetParam(), 1).run(take_turns(log));
    EXPECT_EQ(log, "aabbccaabbccaabbcc");
}

task<> takes(semaphore& s, std::size_t count, char name, std::string& log) {
    auto taken = co_await s.acquire(count);
    log += name;
    co_await sleep(milliseconds);
}

task<> share(std::string& log) {
    semaphore s(3);
    gate all;
    all.spawn(takes(s, 2, 'a', log), unexpected);
    all.spawn(takes(s, 3, 'b', log), unexpected);  // must wait for a
    all.spawn(takes(s, 1, 'c', log), unexpected);  // there would be one, but b came before
    EXPECT_EQ(log, "a");
    EXPECT_EQ(s.available(), 1u);
    EXPECT_FALSE(s.try_acquire());
    co_await all.close();
    EXPECT_EQ(s.available(), 3u);
}

TEST_IN_WORLDS(sync_test, a_semaphore_is_first_come_first_served) {
    std::string log;
    system_of(GetParam(), 1).run(share(log));
    EXPECT_EQ(log, "abc");
}

task<> one_of_many(mutex& m, int& count) {
    auto held = co_await m.lock();
    ++count;
}

task<> hand_on(int waiters, int& count) {
    mutex m;
    gate all;
    auto held = co_await m.lock();
    for (int i = 0; i < waiters; ++i) all.spawn(one_of_many(m, count), unexpected);
    held.release();
    co_await all.close();
}

TEST_IN_WORLDS(sync_test, a_long_queue_does_not_recurse) {
    int count = 0;
    int waiters = GetParam() == world_kind::sim ? 100 : 100'000;  // many seeds instead
    system_of(GetParam(), 1).run(hand_on(waiters, count));
    EXPECT_EQ(count, waiters);
}

}  // namespace
}  // namespace varve::thread
