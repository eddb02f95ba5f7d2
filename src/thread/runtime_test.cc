// Reactors and threads together: messages, moving, sleeping, the beginning and the end.
#include "thread/runtime.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <atomic>
#include <thread>

#include "thread/awaits.h"
#include "thread/gate.h"
#include "thread/test_world.h"

namespace varve::thread {
namespace {

class runtime_test : public in_every_world {};
INSTANTIATE_TEST_SUITE_P(worlds, runtime_test, every_world(), world_name);

TEST_IN_WORLDS(runtime_test, stops_when_nothing_was_ever_done) {
    for (unsigned cpus : {1u, 3u}) {
        system_of s(GetParam(), cpus);
        s.rt->stop();
        s.rt->stop();
        s.rt->run();
    }
    system_of never_run(GetParam(), 2);
}

TEST_IN_WORLDS(runtime_test, refuses_processors_it_does_not_have) {
    auto world = make_test_world(GetParam(), 2);
    auto made = runtime::make(*world, {.cpus = *cpu_set::parse("0x4")});
    ASSERT_FALSE(made);
    EXPECT_EQ(made.error().message(), "Invalid argument: this process may not use processor 2");
    EXPECT_FALSE(runtime::make(*world, {.cpus = cpu_set()}));
    auto defaulted = runtime::make(*world, {});
    ASSERT_TRUE(defaulted);
    EXPECT_EQ((*defaulted)->cpus().to_mask(), "1");
    EXPECT_FALSE((*defaulted)->create_thread("t", *cpu_set::parse("[1]")));
}

task<> visits(runtime& rt, std::vector<uint64_t>& seen) {
    thread& home = here();
    auto other = co_await rt.create_thread("other");
    co_await switch_to(*other);
    seen.push_back(here().id());
    co_await switch_to(home);
    seen.push_back(here().id());
    co_await rt.for_each_thread([&](thread& t) {
        EXPECT_EQ(&t, thread::current());
        seen.push_back(t.id());
    });
    EXPECT_EQ(thread::current(), &home);
    EXPECT_EQ(rt.find_thread(2), other);
    EXPECT_EQ(rt.find_thread(3), nullptr);
    rt.destroy_thread(*other);
}

TEST_IN_WORLDS(runtime_test, code_goes_from_thread_to_thread) {
    for (unsigned cpus : {1u, 2u}) {
        system_of s(GetParam(), cpus);
        std::vector<uint64_t> seen;
        s.run(visits(*s.rt, seen));
        EXPECT_EQ(seen, (std::vector<uint64_t>{2, 1, 1, 2}));
    }
}

task<int> answers(thread& expected, int value) {
    EXPECT_EQ(&here(), &expected);
    if (value < 0) co_return fail(errc::range);
    co_return value * 2;
}

task<> calls(runtime& rt) {
    thread& home = here();
    thread* other = co_await rt.create_thread("other");
    int four = co_await call_on(*other, [=] { return answers(*other, 2); });
    EXPECT_EQ(four, 4);
    EXPECT_EQ(&here(), &home);
    auto failed = co_await as_result(call_on(*other, [=] { return answers(*other, -1); }));
    EXPECT_EQ(&here(), &home) << "an error comes home, too";
    EXPECT_FALSE(failed);
    rt.destroy_thread(*other);
}

TEST_IN_WORLDS(runtime_test, calls_bring_their_outcome_home) {
    system_of s(GetParam(), 2);
    s.run(calls(*s.rt));
}

unsigned cpu_of(runtime& rt, thread& t) {
    for (auto& info : rt.threads()) {
        if (info.id == t.id()) return info.cpu;
    }
    return ~0u;
}

task<> moves(runtime& rt) {
    thread* other = co_await rt.create_thread("other", *cpu_set::parse("1"));
    EXPECT_EQ(cpu_of(rt, *other), 0u);
    co_await switch_to(*other);
    int ticks = 0;
    {
        poller ticking("tick", poller_kind::timed, [&] { return ++ticks > 0; }, 100 * microseconds);
        here().pin();
        co_await rt.set_cpus(other->id(), *cpu_set::parse("2"));
        co_await sleep(milliseconds);
        EXPECT_EQ(cpu_of(rt, *other), 0u) << "pinned";
        here().unpin();
        while (cpu_of(rt, *other) != 1) co_await yield();
        EXPECT_EQ(&here(), other);
        int before = ticks;
        while (ticks < before + 3) co_await sleep(100 * microseconds);  // its timers came along
    }
    co_await switch_to(rt.app_thread());
    auto refused = rt.move_thread(other->id(), 0);
    EXPECT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), errc::invalid);
    EXPECT_EQ(rt.move_thread(77, 0).error().code(), errc::not_found);
    EXPECT_EQ(rt.set_cpus(77, {}).error().code(), errc::not_found);
    EXPECT_EQ(rt.set_cpus(other->id(), *cpu_set::parse("f0")).error().code(), errc::invalid);
    co_await rt.set_cpus(other->id(), {});
    co_await rt.move_thread(other->id(), 0);
    while (cpu_of(rt, *other) != 0) co_await yield();
    rt.destroy_thread(*other);
    while (rt.threads().size() > 1) co_await yield();
}

TEST_IN_WORLDS(runtime_test, a_thread_moves_when_it_holds_no_pin) {
    system_of s(GetParam(), 2);
    s.run(moves(*s.rt));
}

task<> ends_late(runtime& rt) {
    thread& home = here();
    thread* other = co_await rt.create_thread("other");
    bool timed = false;
    co_await switch_to(*other);
    auto idle = std::make_unique<poller>("idle", poller_kind::woken, [] { return false; });
    co_await switch_to(home);
    rt.destroy_thread(*other);
    rt.destroy_thread(*other);
    co_await sleep(milliseconds);
    EXPECT_EQ(rt.threads().size(), 2u) << "it still has a poller";
    co_await switch_to(*other);
    co_await sleep(milliseconds);
    timed = true;
    idle.reset();
    co_await switch_to(home);
    while (rt.threads().size() > 1) co_await yield();
    EXPECT_TRUE(timed);
}

TEST_IN_WORLDS(runtime_test, a_thread_ends_when_it_holds_nothing) {
    system_of s(GetParam(), 2);
    s.run(ends_late(*s.rt));
}

// From an OS thread of its own, as the kernel's signals and other libraries' threads come. The pause before each
// message varies, so that many meet the reactor just as it falls asleep: a wake-up lost there would be lost for ever,
// as there are no timers.
TEST_P(runtime_test, a_sleeping_reactor_wakes_for_a_message) {
    struct ring : work {
        std::atomic<int> arrived{0};
    };
    system_of s(GetParam(), 2, {.spin = 0});
    thread* other = *s.rt->create_thread("other");
    ring r;
    r.run = [](work& w) noexcept { static_cast<ring&>(w).arrived.fetch_add(1, std::memory_order_release); };
    int sent = 0;
    std::thread poster([&] {
        for (; sent < 10'000; ++sent) {
            (sent / 64 % 2 != 0 ? *other : s.rt->app_thread()).post(r);
            time_ns give_up = s.world->now() + 20 * seconds;
            while (r.arrived.load(std::memory_order_acquire) == sent && s.world->now() < give_up) {
                std::this_thread::yield();
            }
            if (r.arrived.load(std::memory_order_acquire) == sent) break;
            for (time_ns until = s.world->now() + sent % 64 * 100; s.world->now() < until;) continue;
        }
        s.rt->stop();
    });
    s.rt->run();
    poster.join();
    EXPECT_EQ(sent, 10'000);
}

task<> hops_until_stopped(thread& a, thread& b, int& hops) {
    for (int i = 0; i < 1000; ++i, ++hops) co_await switch_to(i % 2 != 0 ? a : b);
}

TEST_IN_WORLDS(runtime_test, what_is_queued_when_it_stops_still_runs) {
    for (unsigned cpus : {1u, 3u}) {
        system_of s(GetParam(), cpus);
        thread &a = **s.rt->create_thread("a"), &b = **s.rt->create_thread("b");
        int hops = 0;
        bool ended = false;
        s.rt->app_thread().post([&] {
            start_detached(hops_until_stopped(a, b, hops), [&](result<>) { ended = true; });
            s.rt->stop();
        });
        s.rt->run();
        EXPECT_EQ(hops, 1000);
        EXPECT_TRUE(ended);
    }
}

task<> keeps_busy(runtime& rt, std::unique_ptr<poller>& left_behind) {
    left_behind = std::make_unique<poller>("busy", poller_kind::busy, [] { return true; });
    rt.stop();
    co_return;
}

TEST_IN_WORLDS(runtime_test, pollers_do_not_keep_it_from_stopping) {
    system_of s(GetParam(), 2);
    std::unique_ptr<poller> left_behind;
    s.rt->app_thread().post([&] { start_detached(keeps_busy(*s.rt, left_behind), [](result<>) {}); });
    s.rt->run();
    left_behind.reset();  // nothing runs any more: whoever tidies up may
}

task<> ping(runtime& rt, int count) {
    thread& home = here();
    thread* other = co_await rt.create_thread("other");
    for (int i = 0; i < count; ++i) {
        co_await switch_to(*other);
        co_await switch_to(home);
    }
    rt.destroy_thread(*other);
}

TEST_P(runtime_test, two_systems_live_side_by_side) {
    system_of a(GetParam(), 2), b(GetParam(), 2);
    std::thread second([&] { b.run(ping(*b.rt, 300)); });
    a.run(ping(*a.rt, 300));
    second.join();
    EXPECT_EQ(thread::current(), nullptr);
}

time_ns cpu_time() {
    rusage used = {};
    ::getrusage(RUSAGE_SELF, &used);
    return (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * seconds +
           (used.ru_utime.tv_usec + used.ru_stime.tv_usec) * microseconds;
}

task<> idles(time_ns& used) {
    poller waits("waits", poller_kind::woken, [] { return false; });
    poller ticks("ticks", poller_kind::timed, [] { return false; }, 100 * milliseconds);
    time_ns before = cpu_time();
    co_await sleep(seconds);
    used = cpu_time() - before;
}

TEST_P(runtime_test, an_idle_system_uses_no_processor) {
    system_of s(GetParam(), 3);
    for (int i = 0; i < 10; ++i) (void)*s.rt->create_thread("idle");
    time_ns used = 0;
    s.run(idles(used));
    EXPECT_LT(used, 20 * milliseconds);
}

}  // namespace
}  // namespace varve::thread
