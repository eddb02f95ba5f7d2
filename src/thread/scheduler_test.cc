#include "thread/scheduler.h"

#include <gtest/gtest.h>

#include "thread/awaits.h"
#include "thread/gate.h"
#include "thread/test_world.h"

namespace varve::thread {
namespace {

using scheduling::load;
using scheduling::plan;
using scheduling::relocation;
using relocations = std::vector<relocation>;

cpu_set set_of(std::initializer_list<unsigned> cpus) {
    cpu_set s;
    for (unsigned cpu : cpus) s.add(cpu);
    return s;
}
const std::vector<unsigned> three = {0, 1, 2};
const cpu_set anywhere = set_of({0, 1, 2});
const scheduler_settings dynamic{.kind = scheduler_kind::dynamic};

TEST(scheduler_plan, idle_threads_are_gathered_on_the_main_core) {
    EXPECT_EQ(
        plan({{1, 0, 5, false, anywhere}, {2, 1, 3, true, anywhere}, {3, 2, 0, true, anywhere}}, three, 0, dynamic),
        (relocations{{2, 0}, {3, 0}}));
}

TEST(scheduler_plan, pins_and_sets_of_processors_are_kept) {
    EXPECT_EQ(plan({{1, 0, 5, false, anywhere}, {2, 1, 3, false, anywhere}, {3, 2, 0, true, set_of({1, 2})}}, three, 0,
                   dynamic),
              relocations{});
}

TEST(scheduler_plan, a_crowded_core_is_relieved) {
    EXPECT_EQ(
        plan({{1, 0, 2, false, anywhere}, {2, 0, 49, true, anywhere}, {3, 0, 48, true, anywhere}}, three, 0, dynamic),
        (relocations{{2, 1}}));
    // All cores busy: nothing is gained by exchanging threads.
    EXPECT_EQ(plan({{2, 0, 50, true, anywhere},
                    {3, 0, 50, true, anywhere},
                    {4, 1, 100, true, anywhere},
                    {5, 2, 100, true, anywhere}},
                   three, 0, dynamic),
              relocations{});
}

TEST(scheduler_plan, a_busy_thread_leaves_the_others_alone) {
    EXPECT_EQ(plan({{1, 0, 1, false, anywhere}, {2, 0, 99, true, anywhere}}, three, 0, dynamic), (relocations{{2, 1}}));
    EXPECT_EQ(plan({{1, 0, 1, false, anywhere}, {2, 1, 99, true, anywhere}}, three, 0, dynamic), relocations{});
}

TEST(scheduler_plan, light_threads_share_a_core) {
    EXPECT_EQ(
        plan({{1, 0, 30, false, anywhere}, {2, 1, 30, true, anywhere}, {3, 2, 40, true, anywhere}}, three, 0, dynamic),
        (relocations{{3, 0}}));
}

// Where threads with these demands end up when the plan is carried out again and again.
TEST(scheduler_plan, comes_to_rest) {
    uint64_t seed = 1;
    auto next = [&seed](uint64_t below) {
        seed = seed * 6364136223846793005 + 1442695040888963407;
        return (seed >> 33) % below;
    };
    for (int round = 0; round < 2000; ++round) {
        std::vector<load> threads;
        std::vector<unsigned> demand;
        for (uint64_t id = 1; id <= 1 + next(8); ++id) {
            threads.push_back({id, static_cast<unsigned>(next(3)), 0, id != 1, anywhere});
            demand.push_back(static_cast<unsigned>(next(101)));
        }
        int moved_last = 0;
        for (int period = 0; period < 30; ++period) {
            unsigned total[3] = {};
            for (std::size_t i = 0; i < threads.size(); ++i) total[threads[i].cpu] += demand[i];
            for (std::size_t i = 0; i < threads.size(); ++i) {
                unsigned all = total[threads[i].cpu];
                threads[i].percent = all > 100 ? demand[i] * 100 / all : demand[i];
            }
            for (auto& move : plan(threads, three, 0, dynamic)) {
                EXPECT_NE(threads[move.thread_id - 1].cpu, move.to);
                threads[move.thread_id - 1].cpu = move.to;
                moved_last = period;
            }
        }
        ASSERT_LT(moved_last, 10) << "round " << round;
    }
}

TEST(scheduler_names, are_spdks) {
    EXPECT_EQ(name_of(*scheduler_named("static")), "static");
    EXPECT_EQ(name_of(*scheduler_named("dynamic")), "dynamic");
    EXPECT_EQ(scheduler_named("gscheduler").error().code(), errc::not_found);
}

class scheduler_test : public in_every_world {};
INSTANTIATE_TEST_SUITE_P(worlds, scheduler_test, every_world(), world_name);

unsigned cpu_of(runtime& rt, thread& t) {
    for (auto& info : rt.threads()) {
        if (info.id == t.id()) return info.cpu;
    }
    return ~0u;
}

task<> idle_moves(runtime& rt) {
    thread* idle = co_await rt.create_thread("idle", set_of({1}));
    EXPECT_EQ(cpu_of(rt, *idle), 1u);
    co_await rt.set_cpus(idle->id(), set_of({0, 1}));
    scheduler s(rt);
    EXPECT_EQ(s.settings().kind, scheduler_kind::fixed);
    EXPECT_FALSE(s.set({.kind = scheduler_kind::dynamic, .load_limit = 101}));
    co_await s.set({.kind = scheduler_kind::dynamic, .period = milliseconds});
    while (cpu_of(rt, *idle) != 0) co_await sleep(milliseconds);
    co_await s.set({.kind = scheduler_kind::fixed});
    while (cpu_of(rt, *idle) != 1) co_await sleep(milliseconds);
    for (const char* bad : {"x", "1", "1:", ":1", "99:0", "1:7", "1:0 ", "18446744073709551616:0", "1:-1"}) {
        EXPECT_FALSE(s.place(bad)) << bad;
    }
    co_await s.place(std::to_string(idle->id()) + ":0");
    while (cpu_of(rt, *idle) != 0) co_await sleep(milliseconds);
    rt.destroy_thread(*idle);
}

TEST_IN_WORLDS(scheduler_test, dynamic_moves_and_static_brings_back) {
    system_of s(GetParam(), 2);
    s.run(idle_moves(*s.rt));
}

}  // namespace
}  // namespace varve::thread
