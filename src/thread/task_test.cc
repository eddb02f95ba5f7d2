// Errors that climb past frames, who is destroyed when, and gates. None of it needs a thread.
#include "thread/task.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "thread/gate.h"

namespace varve {
namespace {

struct mark {
    mark(std::string& to, char c) : log(&to), name(c) {}
    mark(const mark&) = delete;
    ~mark() { *log += name; }
    std::string* log;
    char name;
};

// Something that resumes by hand.
struct door {
    std::coroutine_handle<> waiting;
    auto operator co_await() noexcept {
        struct awaiter {
            door& of;
            bool await_ready() noexcept { return false; }
            void await_suspend(std::coroutine_handle<> who) noexcept { of.waiting = who; }
            void await_resume() noexcept {}
        };
        return awaiter{*this};
    }
    void open() { std::exchange(waiting, {}).resume(); }
};

task<int> gives(int value) { co_return value; }
task<int> fails(errc code) { co_return fail(code, "innermost"); }
task<> fails_without_value(errc code) { co_await fail(code); }

task<int> middle(std::string& log, task<int> inner) {
    mark m(log, 'm');
    int value = co_await std::move(inner);
    log += '+';
    co_return value + 1;
}
task<int> outer(std::string& log, task<int> inner) {
    mark o(log, 'o');
    int value = co_await middle(log, std::move(inner));
    log += '+';
    co_return value + 1;
}

template <class T>
std::optional<result<T>> outcome_of(task<T> t) {
    std::optional<result<T>> outcome;
    start_detached(std::move(t), [&](result<T> r) { outcome.emplace(std::move(r)); });
    return outcome;
}

TEST(task, a_value_comes_through) {
    std::string log;
    auto got = outcome_of(outer(log, gives(40)));
    ASSERT_TRUE(got && got->has_value());
    EXPECT_EQ(**got, 42);
    EXPECT_EQ(log, "+m+o");
}

TEST(task, an_error_leaves_every_frame_where_it_stands) {
    std::string log;
    auto got = outcome_of(outer(log, fails(errc::busy)));
    ASSERT_TRUE(got && !got->has_value());
    EXPECT_EQ(got->error().code(), errc::busy);
    EXPECT_EQ(got->error().message(), "Device or resource busy: innermost");
    EXPECT_EQ(log, "mo") << "innermost first, and nobody went on";
}

task<int> survives(std::string& log, task<int> inner) {
    result<int> r = co_await as_result(outer(log, std::move(inner)));
    log += r ? 'v' : 'e';
    co_return r ? *r : -1;
}

TEST(task, as_result_handles_the_error_after_the_frames_are_gone) {
    std::string log;
    EXPECT_EQ(**outcome_of(survives(log, fails(errc::io))), -1);
    EXPECT_EQ(log, "moe");
    log.clear();
    EXPECT_EQ(**outcome_of(survives(log, gives(1))), 3);
    EXPECT_EQ(log, "+m+ov");
}

task<> plain_results(std::string& log) {
    mark m(log, 'p');
    int five = co_await result<int>(5);
    EXPECT_EQ(five, 5);
    co_await result<>();
    co_await result<>(fail(errc::no_space));
    log += '!';
}

TEST(task, results_are_awaited_like_tasks) {
    std::string log;
    EXPECT_EQ(outcome_of(plain_results(log))->error().code(), errc::no_space);
    EXPECT_EQ(log, "p");
    EXPECT_EQ(outcome_of(fails_without_value(errc::pipe))->error().code(), errc::pipe);
}

TEST(task, errors_after_a_wait_climb_as_well) {
    struct late {
        static task<int> fails(door& d) {
            co_await d;
            co_return fail(errc::timed_out);
        }
    };
    std::string log;
    door d;
    std::optional<errc> code;
    start_detached(outer(log, late::fails(d)), [&](result<int> r) { code = r ? errc::ok : r.error().code(); });
    EXPECT_FALSE(code);
    EXPECT_EQ(log, "");
    d.open();
    EXPECT_EQ(code, errc::timed_out);
    EXPECT_EQ(log, "mo");
}

TEST(task, one_never_started_only_frees_its_frame) {
    std::string log;
    {
        task<int> never = outer(log, gives(1));
        EXPECT_TRUE(never);
        task<int> moved = std::move(never);
        EXPECT_FALSE(never);
        moved = gives(2);
    }
    EXPECT_EQ(log, "");
}

task<std::unique_ptr<int>> gives_owner() { co_return std::make_unique<int>(7); }
task<int> takes_owner() {
    auto p = co_await gives_owner();
    co_return *p;
}

TEST(task, values_may_be_of_types_that_only_move) { EXPECT_EQ(**outcome_of(takes_owner()), 7); }

task<int> depth(int n) { co_return n == 0 ? 0 : 1 + co_await depth(n - 1); }
task<int> deep_failure(int n) {
    if (n == 0) co_return fail(errc::range);
    co_return co_await deep_failure(n - 1);
}
task<int> many_in_a_row(int n) {
    int sum = 0;
    for (int i = 0; i < n; ++i) sum += co_await gives(1);
    co_return sum;
}

TEST(task, depth_is_limited_by_memory_alone) {
    EXPECT_EQ(**outcome_of(depth(1000)), 1000);
    EXPECT_EQ(outcome_of(deep_failure(1000))->error().code(), errc::range);
    EXPECT_EQ(**outcome_of(many_in_a_row(1'000'000)), 1'000'000) << "resuming is a jump, not a call";
}

task<> passes(door& d, std::string& log, char name) {
    co_await d;
    log += name;
}

TEST(gate, close_waits_for_those_inside) {
    gate g;
    std::string log;
    door a, b;
    auto on_error = [](error) { FAIL(); };
    EXPECT_TRUE(g.spawn(passes(a, log, 'a'), on_error));
    EXPECT_TRUE(g.spawn(passes(b, log, 'b'), on_error));
    auto by_hand = g.enter();
    EXPECT_EQ(g.inside(), 3u);
    struct closer {
        static task<> run(gate& g, std::string& log) {
            co_await g.close();
            log += '.';
        }
    };
    bool ended = false;
    start_detached(closer::run(g, log), [&](result<>) { ended = true; });
    EXPECT_TRUE(g.closed());
    EXPECT_FALSE(g.enter());
    door c;
    EXPECT_FALSE(g.spawn(passes(c, log, 'c'), on_error)) << "dropped, unstarted";
    EXPECT_FALSE(c.waiting);
    b.open();
    a.open();
    EXPECT_EQ(log, "ba");
    EXPECT_FALSE(ended);
    by_hand = {};
    EXPECT_EQ(log, "ba.");
    EXPECT_TRUE(ended);
}

TEST(gate, errors_of_its_tasks_are_told) {
    gate g;
    std::optional<errc> told;
    g.spawn(fails_without_value(errc::reset), [&](error e) { told = e.code(); });
    EXPECT_EQ(told, errc::reset);
    EXPECT_EQ(g.inside(), 0u);
}

}  // namespace
}  // namespace varve
