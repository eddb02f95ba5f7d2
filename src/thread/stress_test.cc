// Everything at once, for the thread sanitizer above all: posters, moves, threads that come and go, stopping in the
// middle.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "thread/awaits.h"
#include "thread/buffer_pool.h"
#include "thread/gate.h"
#include "thread/io_device.h"
#include "thread/sync.h"
#include "thread/test_world.h"

namespace varve::thread {
namespace {

class stress_test : public in_every_world {};
INSTANTIATE_TEST_SUITE_P(worlds, stress_test, every_world(), world_name);

struct counted : work {
    uint64_t runs = 0;             // by the thread it was posted to
    std::atomic<bool> idle{true};  // may be posted again
    counted() {
        run = [](work& w) noexcept {
            auto& self = static_cast<counted&>(w);
            ++self.runs;
            self.idle.store(true, std::memory_order_release);
        };
    }
};

TEST_P(stress_test, every_message_of_many_posters_arrives_once_while_threads_move) {
    constexpr unsigned cpus = 3, posters = 3, targets = 4;
    constexpr uint64_t rounds = 10'000;
    system_of s(GetParam(), cpus, {.spin = 0});
    std::vector<thread*> threads;
    for (unsigned i = 0; i < targets; ++i) threads.push_back(*s.rt->create_thread("target"));
    std::atomic<unsigned> done{0};
    uint64_t arrived[posters] = {};
    std::vector<std::thread> others;
    for (unsigned p = 0; p < posters; ++p) {
        others.emplace_back([&, p] {
            std::vector<counted> messages(16);
            uint64_t sent = 0;
            while (sent < rounds) {
                counted& m = messages[sent % messages.size()];
                if (!m.idle.exchange(false, std::memory_order_acquire)) {
                    std::this_thread::yield();
                    continue;
                }
                threads[(sent + p) % targets]->post(m);
                ++sent;
            }
            for (counted& m : messages) {
                while (!m.idle.load(std::memory_order_acquire)) std::this_thread::yield();
                arrived[p] += m.runs;
            }
            ++done;
        });
    }
    std::thread mover([&] {
        for (unsigned i = 0; done < posters; ++i) {
            EXPECT_TRUE(s.rt->move_thread(threads[i % targets]->id(), i / targets % cpus));
            std::this_thread::yield();
        }
        s.rt->stop();
    });
    s.rt->run();
    for (auto& t : others) t.join();
    mover.join();
    for (uint64_t n : arrived) EXPECT_EQ(n, rounds);
}

struct lane {
    uint64_t visits = 0;
};

struct town {
    explicit town(runtime& of) : rt(of), device("lane", [] { return std::make_unique<lane>(); }) {}
    runtime& rt;
    io_device<lane> device;
    unsigned lives = 60;
    bool enough = false;
    uint64_t trips = 0;
};

task<> counts_a_trip(town& t) {
    ++t.trips;
    co_return;
}

task<> lives(town& t, unsigned number) {
    thread& home = here();
    for (unsigned i = 0; i < t.lives; ++i) {
        thread* mine = co_await t.rt.create_thread("inhabitant");
        co_await switch_to(*mine);
        {
            auto channel = t.device.get();
            ++channel->visits;
            pool_buffer memory = co_await buffer_pool::of(*mine).get(std::size_t{4096} << ((i + number) % 4));
            std::fill_n(memory.data(), memory.size(), static_cast<std::byte>(i));
            if (i % 4 == number % 4) co_await sleep(20 * microseconds);
            (void)t.rt.move_thread(mine->id(), (i + number) % 3);
            co_await yield();
            co_await call_on(t.rt.app_thread(), [&t] { return counts_a_trip(t); });
            ++channel->visits;
        }
        co_await switch_to(home);
        t.rt.destroy_thread(*mine);
    }
}

task<> looks_around(town& t) {
    while (!t.enough) {
        co_await t.rt.for_each_thread([](thread& visited) { EXPECT_EQ(&visited, thread::current()); });
        co_await t.device.for_each_channel([](lane& l) { ++l.visits; });
        for (auto& info : t.rt.threads()) EXPECT_LE(info.cpu, 2u);
        (void)t.rt.reactors();
        co_await yield();
    }
}

task<> a_day(town& t) {
    gate inhabitants, visitors;
    visitors.spawn(looks_around(t), unexpected);
    for (unsigned i = 0; i < 5; ++i) inhabitants.spawn(lives(t, i), unexpected);
    co_await inhabitants.close();
    t.enough = true;
    co_await visitors.close();
    co_await t.device.closed();
    while (t.rt.threads().size() > 1) co_await yield();
    EXPECT_EQ(t.trips, 5 * t.lives);
    EXPECT_EQ(t.rt.buffers().used(), 0u);
}

TEST_IN_WORLDS(stress_test, threads_are_born_move_and_end_while_others_look) {
    system_of s(GetParam(), 3, {.spin = 0});
    town t(*s.rt);
    if (GetParam() == world_kind::sim) t.lives = 6;  // for each of many seeds
    s.run(a_day(t));
}

task<> wanders(runtime& rt, unsigned steps) {
    thread& home = here();
    for (unsigned i = 0; i < steps; ++i) {
        for (uint64_t id = 2; id <= 4; ++id) {
            co_await switch_to(*rt.find_thread(id));
            if (i % 8 == 0) co_await yield();
        }
    }
    co_await switch_to(home);
}

TEST_P(stress_test, stopping_in_the_middle_lets_everything_end) {
    for (int round = 0; round < 20; ++round) {
        system_of s(GetParam(), 3, {.spin = round % 2 * microseconds});
        for (int i = 0; i < 3; ++i) (void)*s.rt->create_thread("t");
        std::atomic<int> ended{0};
        for (int i = 0; i < 8; ++i) {
            s.rt->app_thread().post([&] { start_detached(wanders(*s.rt, 50), [&](result<>) { ++ended; }); });
        }
        std::thread stops([&] {
            for (int i = 0; i < round * 5; ++i) std::this_thread::yield();
            s.rt->stop();
        });
        std::thread stops_too([&] { s.rt->stop(); });
        s.rt->run();
        stops.join();
        stops_too.join();
        EXPECT_EQ(ended, 8);
    }
}

}  // namespace
}  // namespace varve::thread
