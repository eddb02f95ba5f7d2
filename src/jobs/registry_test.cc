#include "jobs/registry.h"

#include <gtest/gtest.h>

#include "rpc/registry.h"
#include "thread/awaits.h"
#include "thread/test_world.h"

namespace varve::jobs {
namespace {

class jobs_test : public thread::in_every_world {};
INSTANTIATE_TEST_SUITE_P(worlds, jobs_test, thread::every_world(), thread::world_name);

constexpr uint64_t step = 1 << 20;

// A hundred steps that each wait for their turn.
task<> steps(job& j, uint64_t bytes = step) {
    j.expect(100);
    for (int i = 0; i < 100; ++i) {
        co_await j.turn(bytes);
        co_await yield();
        j.did();
    }
}

task<json::value> call(rpc::registry& methods, std::string name, json::object params = {}) {
    return methods.call(name, std::move(params), rpc::states::runtime);
}

std::string text(const json::value& job, const char* key) { return *job.find(key)->string(); }

task<> pauses_and_goes_on() {
    registry all;
    rpc::registry methods;
    all.add_methods(methods);
    uint64_t id = co_await all.start({.kind = "copy", .object = "a/b"}, [](job& j) { return steps(j); });
    entry& e = *all.find(id);
    co_await call(methods, "job_pause", {{"id", id}});
    for (int i = 0; i < 50; ++i) co_await yield();
    const uint64_t reached = e.progress.done();
    EXPECT_LT(reached, 3u);
    for (int i = 0; i < 50; ++i) co_await yield();
    EXPECT_EQ(e.progress.done(), reached) << "a paused job stands still";
    json::value listed = co_await call(methods, "job_get_jobs");
    EXPECT_EQ(text(listed.items()->front(), "state"), "paused");
    EXPECT_EQ(text(listed.items()->front(), "kind"), "copy");
    co_await call(methods, "job_resume", {{"id", id}});
    co_await e.over.wait();
    EXPECT_EQ(e.progress.done(), 100u);
    listed = co_await call(methods, "job_get_jobs", {{"id", id}});
    EXPECT_EQ(text(listed.items()->front(), "state"), "complete");
    for (auto name : {"job_pause", "job_resume", "job_cancel"}) {
        auto late = co_await as_result(call(methods, name, {{"id", id}}));
        EXPECT_EQ(late.error().code(), errc::invalid) << name;
        auto nobody = co_await as_result(call(methods, name, {{"id", id + 1}}));
        EXPECT_EQ(nobody.error().code(), errc::not_found) << name;
    }
    co_await all.stop();
}

TEST_IN_WORLDS(jobs_test, a_job_pauses_and_goes_on) { thread::system_of(GetParam(), 1).run(pauses_and_goes_on()); }

task<> is_cancelled_when_paused() {
    registry all;
    bool told = false;
    uint64_t id = co_await all.start(
        {.kind = "copy"}, [](job& j) { return steps(j); },
        [&](const result<>& outcome) {
            told = true;
            EXPECT_EQ(outcome.error().code(), errc::cancelled);
        });
    entry& e = *all.find(id);
    e.progress.pause();
    for (int i = 0; i < 5; ++i) co_await yield();
    e.progress.cancel();
    e.progress.pause();  // too late
    co_await e.over.wait();
    EXPECT_TRUE(told);
    EXPECT_LT(e.progress.done(), 100u);
    co_await all.stop();
    auto late = all.start({.kind = "copy"}, [](job& j) { return steps(j); });
    EXPECT_EQ(late.error().code(), errc::cancelled);
}

TEST_IN_WORLDS(jobs_test, a_paused_job_can_be_cancelled) {
    thread::system_of(GetParam(), 1).run(is_cancelled_when_paused());
}

// 100 steps of a MiB at 500 MiB/s take 198 ms at least: the first begins at once.
task<> keeps_to_its_rate() {
    registry all;
    uint64_t id = co_await all.start({.kind = "copy"}, [](job& j) {
        j.limit_rate(500 * step);
        return steps(j);
    });
    entry& e = *all.find(id);
    co_await e.over.wait();
    EXPECT_GE(e.ended - e.started, 198 * milliseconds);
    co_await all.stop();
}

TEST_IN_WORLDS(jobs_test, a_job_keeps_to_its_rate_limit) { thread::system_of(GetParam(), 1).run(keeps_to_its_rate()); }

task<> end_with_their_owner() {
    registry all;
    int one = 0, other = 0;
    uint64_t a = co_await all.start({.kind = "a", .owner = &one}, [](job& j) { return steps(j); });
    uint64_t b = co_await all.start({.kind = "b", .owner = &other}, [](job& j) { return steps(j); });
    all.find(b)->progress.pause();
    co_await all.end_all_of(&one);
    EXPECT_EQ(all.find(a)->outcome->error().code(), errc::cancelled);
    EXPECT_TRUE(all.find(b)->running());
    co_await all.stop();
    EXPECT_FALSE(all.find(b)->running());
}

TEST_IN_WORLDS(jobs_test, jobs_end_with_their_owner) { thread::system_of(GetParam(), 1).run(end_with_their_owner()); }

task<> are_forgotten_in_the_end() {
    registry all;
    auto long_one = co_await all.start({.kind = "long"}, [](job& j) { return steps(j); });
    all.find(long_one)->progress.pause();
    for (std::size_t i = 0; i < 2 * registry::kept; ++i) {
        co_await all.run({.kind = "short"}, [](job&) -> task<> { co_return; });
    }
    EXPECT_EQ(all.all().size(), registry::kept + 1);
    all.find(long_one)->progress.resume();
    co_await all.find(long_one)->over.wait();
    EXPECT_NE(all.find(long_one), nullptr) << "the one that ended last is kept";
    co_await all.stop();
}

TEST_IN_WORLDS(jobs_test, what_ended_long_ago_is_forgotten) {
    thread::system_of(GetParam(), 1).run(are_forgotten_in_the_end());
}

task<> sleep_first(time_ns time) {
    if (time != 0) co_await sleep(time);
}

// The clock stands still while nobody sleeps.
TEST(jobs_test_sim, what_is_done_every_day_is_remembered_when_it_took_long) {
    thread::system_of(thread::world_kind::sim, 1).run([]() -> task<> {
        registry all;
        co_await all.run({.kind = "short", .everyday = true}, [](job&) { return sleep_first(0); });
        EXPECT_TRUE(all.all().empty());
        co_await all.run({.kind = "long", .everyday = true}, [](job&) { return sleep_first(1100 * milliseconds); });
        co_await all.run({.kind = "rare"}, [](job&) { return sleep_first(0); });
        EXPECT_EQ(all.all().size(), 2u);
        uint64_t id = co_await all.start({.kind = "short", .everyday = true}, [](job&) { return sleep_first(1); });
        co_await all.find(id)->over.wait();
        EXPECT_EQ(all.find(id), nullptr);
        co_await all.stop();
    }());
}

TEST(jobs_test_sim, the_end_does_not_wait_for_ever) {
    thread::system_of(thread::world_kind::sim, 1).run([]() -> task<> {
        registry all;
        event comes;
        auto wait_for = [](event& what) -> task<> { co_await what.wait(); };
        uint64_t id = co_await all.start({.kind = "stuck"}, [&](job&) { return wait_for(comes); });
        co_await all.start({.kind = "short"}, [](job&) { return sleep_first(50 * milliseconds); });
        EXPECT_FALSE(co_await all.wait(id, 100 * milliseconds));
        const time_ns begun = thread::thread::current()->now();
        EXPECT_FALSE(co_await all.stop(2 * seconds));
        const time_ns took = thread::thread::current()->now() - begun;
        EXPECT_TRUE(took >= 2 * seconds && took < 2 * seconds + 1 * milliseconds) << took;
        EXPECT_FALSE(all.start({.kind = "late"}, [](job&) { return sleep_first(0); }));
        comes.set();
        EXPECT_TRUE(co_await all.wait(id, 0));
        EXPECT_TRUE(co_await all.stop());
    }());
}

}  // namespace
}  // namespace varve::jobs
