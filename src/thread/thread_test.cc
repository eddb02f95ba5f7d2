// What happens on one thread: deferred work, timers, pollers, callbacks of the loop.
#include "thread/thread.h"

#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <deque>
#include <string>
#include <thread>
#include <vector>

#include "env/loop.h"
#include "thread/awaits.h"
#include "thread/gate.h"
#include "thread/sync.h"
#include "thread/test_world.h"

namespace varve::thread {
namespace {

class thread_test : public in_every_world {};
INSTANTIATE_TEST_SUITE_P(worlds, thread_test, every_world(), world_name);

struct step : work {
    step(std::string& to, char c) : log(&to), name(c) {
        run = [](work& w) noexcept { *static_cast<step&>(w).log += static_cast<step&>(w).name; };
    }
    std::string* log;
    char name;
};

task<> defers(std::string& log) {
    step a(log, 'a'), b(log, 'b'), c(log, 'c'), d(log, 'd');
    here().defer(a);
    here().defer(b);
    here().post(d);
    here().defer(c);
    EXPECT_EQ(log, "");
    while (log.size() < 4) co_await yield();
}

TEST_IN_WORLDS(thread_test, deferred_work_runs_in_order) {
    std::string log;
    system_of(GetParam(), 1).run(defers(log));
    EXPECT_LT(log.find('a'), log.find('b'));
    EXPECT_LT(log.find('b'), log.find('c'));
}

// Defers itself for ever, until told to stop.
struct spinner : work {
    spinner() {
        run = [](work& w) noexcept {
            auto& self = static_cast<spinner&>(w);
            ++self.runs;
            if (!self.enough) here().defer(self);
        };
    }
    int runs = 0;
    bool enough = false;
};

task<> shares_with_a_spinner() {
    spinner s;
    here().defer(s);
    co_await sleep(2 * milliseconds);
    int timer_runs = 0;
    poller timed("timed", poller_kind::timed, [&] { return ++timer_runs > 0; }, 100 * microseconds);
    while (timer_runs < 3) co_await yield();
    EXPECT_GT(s.runs, 3);
    s.enough = true;
    co_await yield();
    co_await yield();
}

TEST_IN_WORLDS(thread_test, work_that_queues_itself_starves_nobody) {
    system_of(GetParam(), 1).run(shares_with_a_spinner());
}

task<> sleeps_for(time_ns delay, char mark, std::string& log) {
    time_ns start = here().now();
    co_await sleep(delay);
    EXPECT_GE(here().now(), start + delay);
    log += mark;
}

task<> sleep_in_order(std::string& log) {
    gate all;
    all.spawn(sleeps_for(3 * milliseconds, '3', log), unexpected);
    all.spawn(sleeps_for(1 * milliseconds, 'a', log), unexpected);
    all.spawn(sleeps_for(2 * milliseconds, '2', log), unexpected);
    all.spawn(sleeps_for(1 * milliseconds, 'b', log), unexpected);
    all.spawn(sleeps_for(0, '0', log), unexpected);
    all.spawn(sleeps_for(-5, '-', log), unexpected);
    EXPECT_EQ(log, "");
    co_await all.close();
}

TEST_IN_WORLDS(thread_test, timers_fire_in_the_order_of_their_deadlines) {
    std::string log;
    system_of(GetParam(), 1).run(sleep_in_order(log));
    EXPECT_EQ(log, "0-ab23");
}

task<> cancels(std::string& log) {
    step a(log, 'a'), b(log, 'b'), c(log, 'c');
    timer ta(a), tb(b);
    ta.start(milliseconds);
    tb.start(milliseconds);
    EXPECT_TRUE(ta.running());
    ta.cancel();
    EXPECT_FALSE(ta.running());
    ta.cancel();
    tb.start(2 * milliseconds);  // later than first said
    {
        timer tc(c);
        tc.start(microseconds);
    }
    timer far(c);
    far.start(timer_queue::never);
    co_await sleep(1500 * microseconds);
    // In a world whose clock leaps, the later one may be due, too; then it came first.
    bool late = !tb.running();
    EXPECT_EQ(log, late ? "b" : "");
    co_await sleep(2 * milliseconds);
    EXPECT_EQ(log, "b");
    EXPECT_FALSE(tb.running());
    EXPECT_TRUE(far.running());
}

TEST_IN_WORLDS(thread_test, timers_are_cancelled_and_restarted) {
    std::string log;
    system_of(GetParam(), 1).run(cancels(log));
}

// Cancels the other from its own callback; both are due at the same time.
struct rival : work {
    rival() : t(*this) {
        run = [](work& w) noexcept {
            auto& self = static_cast<rival&>(w);
            ++self.fired;
            self.other->t.cancel();
        };
    }
    timer t;
    rival* other = nullptr;
    int fired = 0;
};

task<> cancels_in_callback() {
    rival a, b;
    a.other = &b;
    b.other = &a;
    a.t.start(microseconds);
    b.t.start(microseconds);
    co_await sleep(milliseconds);
    EXPECT_EQ(a.fired, 1);
    EXPECT_EQ(b.fired, 0);
}

TEST_IN_WORLDS(thread_test, a_timer_cancelled_when_due_does_not_fire) {
    system_of(GetParam(), 1).run(cancels_in_callback());
}

task<> polls() {
    int left = 100, timed_runs = 0, woken_runs = 0;
    poller busy("busy", poller_kind::busy, [&] { return left > 0 && left-- > 0; });
    poller timed("timed", poller_kind::timed, [&] { return ++timed_runs % 2 == 0; }, milliseconds);
    poller woken("woken", poller_kind::woken, [&] { return ++woken_runs > 0; });
    EXPECT_EQ(here().pollers().size(), 3u);
    EXPECT_EQ(busy.id() + 1, timed.id());
    EXPECT_EQ(timed.name(), "timed");
    EXPECT_EQ(timed.period(), milliseconds);
    while (left > 0) co_await yield();
    EXPECT_EQ(woken_runs, 0);
    woken.wake();
    woken.wake();
    EXPECT_EQ(woken_runs, 0);
    co_await sleep(5 * milliseconds);
    EXPECT_EQ(woken_runs, 1) << "wakes before it ran are one";
    while (timed_runs < 4) co_await sleep(milliseconds);
    EXPECT_EQ(busy.busy_runs(), 100u);
    EXPECT_GT(busy.runs(), 100u);
    EXPECT_EQ(timed.runs(), static_cast<uint64_t>(timed_runs));
    EXPECT_EQ(timed.busy_runs(), timed.runs() / 2);
    EXPECT_EQ(woken.busy_runs(), 1u);
    timed.wake();
    int before = timed_runs;
    co_await yield();
    EXPECT_GT(timed_runs, before) << "a timed one may be asked to run early";
}

TEST_IN_WORLDS(thread_test, pollers_run_as_their_kind_says) { system_of(GetParam(), 1).run(polls()); }

task<> pauses() {
    int busy_runs = 0, timed_runs = 0, woken_runs = 0;
    poller busy("busy", poller_kind::busy, [&] { return ++busy_runs > 0; });
    poller timed("timed", poller_kind::timed, [&] { return ++timed_runs > 0; }, 100 * microseconds);
    poller woken("woken", poller_kind::woken, [&] { return ++woken_runs > 0; });
    woken.wake();
    for (poller* p : {&busy, &timed, &woken}) {
        p->pause();
        p->pause();
        EXPECT_TRUE(p->paused());
    }
    co_await sleep(2 * milliseconds);
    woken.wake();
    timed.wake();
    co_await yield();
    EXPECT_EQ(busy_runs, 0);
    EXPECT_EQ(timed_runs, 0);
    EXPECT_EQ(woken_runs, 0);
    for (poller* p : {&busy, &timed, &woken}) p->resume();
    co_await yield();
    EXPECT_GE(busy_runs, 1);
    EXPECT_EQ(woken_runs, 1) << "what woke it while it was paused is not lost";
    EXPECT_EQ(timed_runs, 1);
    while (timed_runs < 3) co_await yield();
    woken.pause();
    woken.resume();
    co_await yield();
    EXPECT_EQ(woken_runs, 1);
    busy.pause();  // and destroyed so
}

TEST_IN_WORLDS(thread_test, paused_pollers_do_not_run) { system_of(GetParam(), 1).run(pauses()); }

// The first destroys a neighbour and itself and makes a new one, all from inside its own function.
struct self_destroying {
    explicit self_destroying(poller_kind kind) : runs(4) {
        for (std::size_t i = 0; i < 3; ++i) {
            all.push_back(std::make_unique<poller>("p", kind, [this, i] { return run(*this, i); }, microseconds));
        }
    }
    static bool run(self_destroying& self, std::size_t i) {
        ++self.runs[i];
        if (i != 0) return true;
        self.all[2].reset();
        self.all[0].reset();
        auto again = [&self] { return ++self.runs[3] > 0; };
        self.all.push_back(std::make_unique<poller>("new", poller_kind::busy, again));
        return true;
    }
    std::deque<std::unique_ptr<poller>> all;
    std::vector<int> runs;
};

task<> destroys_pollers(poller_kind kind) {
    self_destroying s(kind);
    if (kind == poller_kind::woken) {
        for (auto& p : s.all) p->wake();
    }
    while (s.runs[3] == 0) co_await yield();
    EXPECT_EQ(s.runs[0], 1);
    EXPECT_EQ(s.runs[2], 0);
    EXPECT_EQ(here().pollers().size(), 2u);
    while (s.runs[1] == 0) co_await yield();
}

TEST_IN_WORLDS(thread_test, pollers_may_be_destroyed_from_inside_a_poller) {
    for (poller_kind kind : {poller_kind::busy, poller_kind::timed, poller_kind::woken}) {
        system_of(GetParam(), 1).run(destroys_pollers(kind));
    }
}

// A thread with a file operation under way, next to another thread on the same reactor.
struct reads : env::file_op {
    explicit reads(env::file& from, thread& by) : home(by) {
        target = &from;
        kind = env::file_op_kind::read;
        piece = {bytes, sizeof bytes};
        iov = &piece;
        iov_count = 1;
        length = sizeof bytes;
        done = [](env::file_op& op) noexcept {
            auto& self = static_cast<reads&>(op);
            EXPECT_EQ(thread::current(), nullptr) << "callbacks begin outside of threads";
            {
                entered in(self.home);
                EXPECT_EQ(thread::current(), &self.home);
                entered twice(self.home);
                self.at = here().now();
            }
            EXPECT_EQ(thread::current(), nullptr);
            self.finished.set();
        };
    }
    thread& home;
    iovec piece;
    alignas(4096) std::byte bytes[4096];
    time_ns at = 0;
    event finished;
};

task<> reads_a_file(env::system& world, runtime& rt) {
    std::string path = testing::TempDir() + "varve_thread_test";
    auto file = co_await world.open(path, {.create = true, .create_size = 1 << 20});
    thread& home = here();
    thread* other = co_await rt.create_thread("other");
    auto op = std::make_unique<reads>(*file, home);
    home.pin();
    time_ns asked = here().now();
    home.loop().submit(*op);
    co_await op->finished.wait();
    home.unpin();
    EXPECT_EQ(op->result, 4096);
    EXPECT_GE(op->at, asked);
    rt.destroy_thread(*other);
    ::unlink(path.c_str());
}

TEST_IN_WORLDS(thread_test, callbacks_of_the_loop_enter_their_thread) {
    system_of s(GetParam(), 1, {.spin = 0});
    s.run(reads_a_file(*s.world, *s.rt));
}

struct rings : work {
    explicit rings(thread& on) : home(on) {
        run = [](work& w) noexcept {
            auto& self = static_cast<rings&>(w);
            entered in(self.home);
            self.at = here().now();
            self.rang.set();
        };
    }
    thread& home;
    time_ns at = 0;
    event rang;
};

task<> sleeps_until_the_bell(env::system& world, int bell, std::atomic<bool>& asleep) {
    rings r(here());
    here().pin();
    {
        auto watch = here().loop().watch_readable(bell, r);
        EXPECT_TRUE(watch);
        time_ns asked = here().now();
        asleep = true;
        co_await r.rang.wait();
        EXPECT_GE(r.at, asked + 10 * milliseconds) << "the clock is read again after a sleep";
        EXPECT_LE(r.at, world.now());
    }
    here().unpin();
}

TEST_P(thread_test, the_clock_is_right_after_a_sleep) {
    system_of s(GetParam(), 1, {.spin = 0});
    int bell = ::eventfd(0, 0);
    std::atomic<bool> asleep = false;
    std::thread rings_it([&] {
        while (!asleep) std::this_thread::yield();
        time_ns until = s.world->now() + 20 * milliseconds;
        while (s.world->now() < until) std::this_thread::yield();
        uint64_t one = 1;
        EXPECT_EQ(::write(bell, &one, sizeof one), 8);
    });
    s.run(sleeps_until_the_bell(*s.world, bell, asleep));
    rings_it.join();
    ::close(bell);
}

task<> counts_time(runtime& rt) {
    thread* lazy = co_await rt.create_thread("lazy");
    thread_stats before = here().stats();
    time_ns begin = rt.world().now();
    poller works("works", poller_kind::busy, [&] {
        time_ns until = rt.world().now() + milliseconds;
        while (rt.world().now() < until) continue;
        return true;
    });
    co_await sleep(20 * milliseconds);
    works.pause();
    co_await yield();
    thread_stats after = here().stats();
    time_ns elapsed = rt.world().now() - begin;
    EXPECT_GT(after.busy - before.busy, elapsed / 2);
    EXPECT_LE(after.busy - before.busy, elapsed + milliseconds);
    EXPECT_NEAR(static_cast<double>(after.busy + after.idle - before.busy - before.idle), static_cast<double>(elapsed),
                2e6);
    EXPECT_LT(lazy->stats().busy, elapsed / 10);
    before = after;
    co_await sleep(20 * milliseconds);
    after = here().stats();
    EXPECT_LT(after.busy - before.busy, (after.idle - before.idle) / 2) << "sleeping is idle";
    auto reactors = rt.reactors();
    EXPECT_EQ(reactors.size(), 1u);
    EXPECT_GE(reactors[0].busy, after.busy);
    EXPECT_EQ(reactors[0].threads, (std::vector<uint64_t>{1, 2}));
    rt.destroy_thread(*lazy);
}

TEST_P(thread_test, time_is_charged_to_the_thread_that_used_it) {
    system_of s(GetParam(), 1);
    s.run(counts_time(*s.rt));
}

}  // namespace
}  // namespace varve::thread
