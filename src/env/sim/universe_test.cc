// The same seed repeats to the last byte; every worker gets its turns, starved ones late; systems run side by side.
#include "env/sim/universe.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "env/sim/loop.h"
#include "env/sim/net/network.h"
#include "env/sim/world.h"

namespace varve::env::sim {
namespace {

// Writes to a disk, one operation after another, and rests between them.
class busy_worker final : public worker {
  public:
    busy_worker(world& in, unsigned cpu, unsigned writes)
        : _world(in), _loop(std::move(*in.make_loop())), _cpu(cpu), _left(writes) {
        _file = std::move(*in.open("/disk", {.create = true, .create_size = 1 << 20}));
        _memory = std::move(*in.mem().allocate(4096));
        _op.of = this;
        _op.target = _file.get();
        _op.kind = file_op_kind::write;
        _op.iov = &_piece;
        _op.iov_count = 1;
        _piece = {_memory.data(), 4096};
        _op.done = [](file_op& op) noexcept {
            auto& me = *static_cast<own_op&>(op).of;
            --me._left;
            me._rest_until = me._world.now() + static_cast<time_ns>(me._world.random() % 500) * microseconds;
            me._idle = true;
        };
    }
    bool turn() noexcept override {
        ++turns;
        largest_gap = std::max(largest_gap, _world.now() - _last_turn);
        _last_turn = _world.now();
        bool worked = _loop->poll();
        if (_idle && _left > 0 && _world.now() >= _rest_until) {
            _idle = false;
            _op.offset = _world.random() % 256 * 4096;
            _loop->submit(_op);
            worked = true;
        }
        return worked;
    }
    time_ns next_deadline() const noexcept override { return _idle && _left > 0 ? _rest_until : never; }
    bool finished() const noexcept override { return _left == 0; }
    void run() noexcept override { FAIL(); }
    unsigned cpu() const noexcept override { return _cpu; }

    unsigned turns = 0;
    time_ns largest_gap = 0;

  private:
    struct own_op : file_op {
        busy_worker* of = nullptr;
    };
    world& _world;
    std::unique_ptr<env::loop> _loop;
    std::unique_ptr<file> _file;
    buffer _memory;
    iovec _piece{};
    own_op _op;
    const unsigned _cpu;
    unsigned _left;
    bool _idle = true;
    time_ns _rest_until = 0;
    time_ns _last_turn = _world.now();
};

struct outcome {
    uint64_t hash = 0;
    time_ns end = 0;
    std::vector<unsigned> turns;
    auto operator<=>(const outcome&) const = default;
};

outcome run_two_systems(uint64_t seed) {
    universe all(seed);
    outcome out;
    for (const char* name : {"one", "two"}) {
        world& w = all.add_world(name);
        all.start(name, [&] {
            busy_worker first(w, 0, 50), second(w, 1, 30);
            worker* both[] = {&first, &second};
            w.run(both);
            out.turns.push_back(first.turns);
            out.turns.push_back(second.turns);
            all.pause(3 * milliseconds);
        });
    }
    all.run();
    out.hash = all.log().hash();
    out.end = all.now();
    return out;
}

TEST(sim_universe, the_same_seed_repeats) {
    std::set<uint64_t> hashes;
    for (uint64_t seed = 0; seed < 200; ++seed) {
        // Memory lies elsewhere the second time.
        outcome once = run_two_systems(seed);
        std::vector<std::string> shift(seed % 7 + 1, std::string(1000 * (seed % 5 + 1), 'x'));
        outcome again = run_two_systems(seed);
        EXPECT_EQ(once, again) << seed;
        hashes.insert(once.hash);
    }
    EXPECT_EQ(hashes.size(), 200U);
}

TEST(sim_universe, worlds_draw_and_dream_apart) {
    universe all(7);
    world& a = all.add_world("a");
    world& b = all.add_world("b");
    EXPECT_NE(a.random(), b.random());
    EXPECT_NE(a.make_uuid(), b.make_uuid());
    EXPECT_EQ(a.cpus(), (std::vector<unsigned>{0, 1, 2, 3}));
    ASSERT_TRUE(a.write_text("/etc/x", "hello"));
    EXPECT_EQ(a.read_text("/etc/x").value(), "hello");
    EXPECT_EQ(b.read_text("/etc/x").error().code(), errc::not_found);
    a.fail_text_writes(1);
    EXPECT_FALSE(a.write_text("/etc/x", "bye"));
    EXPECT_EQ(a.read_text("/etc/x").value(), "hello");
    EXPECT_EQ(a.open("/no", {}).error().code(), errc::not_found);
    EXPECT_GT(a.wall_clock_ns(), 1'700'000'000 * seconds);
}

TEST(sim_universe, memory_fails_when_told) {
    universe all(7);
    simulated_memory& m = all.add_world("a").mem();
    {
        auto first = m.allocate(100, 4096);
        EXPECT_EQ(reinterpret_cast<uintptr_t>(first->data()) % 4096, 0U);
        EXPECT_EQ(m.bytes_allocated(), 100U);
        EXPECT_TRUE(std::ranges::all_of(first->bytes(), [](std::byte b) { return b == std::byte{}; }));
        m.fail_allocation(m.allocations() + 1);
        EXPECT_TRUE(m.allocate(1, 64));
        EXPECT_EQ(m.allocate(1, 64).error().code(), errc::no_memory);
        EXPECT_TRUE(m.allocate(1, 64));
        m.limit(200);
        EXPECT_FALSE(m.allocate(101, 64));
    }
    EXPECT_EQ(m.bytes_allocated(), 0U);
}

TEST(sim_universe, starved_workers_wait_and_then_go_on) {
    universe_options calm, rough;
    calm.schedule = {.starve_one_in = 0, .pause_one_in = 0};
    rough.schedule = {.starve_one_in = 100, .starve_max = 20 * milliseconds, .pause_one_in = 0};
    auto largest_gap = [](const universe_options& how) {
        time_ns gap = 0;
        for (uint64_t seed = 0; seed < 10; ++seed) {
            universe all(seed, how);
            world& w = all.add_world("w");
            w.add_disk("/disk", 1 << 20, {.latency_max = 100 * microseconds});
            busy_worker first(w, 0, 100), second(w, 1, 100);
            worker* both[] = {&first, &second};
            time_ns start = all.now();
            w.run(both);
            EXPECT_GT(all.now(), start);
            EXPECT_GT(first.turns, 100U);
            EXPECT_GT(second.turns, 100U);
            gap = std::max({gap, first.largest_gap, second.largest_gap});
        }
        return gap;
    };
    EXPECT_LT(largest_gap(calm), milliseconds);
    EXPECT_GT(largest_gap(rough), 5 * milliseconds);
}

TEST(sim_universe, turns_are_shared_evenly_among_the_busy) {
    struct spinner final : worker {
        spinner(const universe& in, time_ns until) : all(in), end(until) {}
        bool turn() noexcept override { return ++turns != 0; }
        time_ns next_deadline() const noexcept override { return never; }
        bool finished() const noexcept override { return all.now() >= end; }
        void run() noexcept override {}
        unsigned cpu() const noexcept override { return 0; }
        const universe& all;
        time_ns end;
        unsigned turns = 0;
    };
    universe_options calm;
    calm.schedule = {.starve_one_in = 0, .pause_one_in = 0};
    universe all(1, calm);
    world& w = all.add_world("w");
    spinner a(all, all.now() + 10 * milliseconds), b = a, c = a;
    worker* three[] = {&a, &b, &c};
    w.run(three);
    unsigned total = a.turns + b.turns + c.turns;
    for (const spinner* s : {&a, &b, &c}) EXPECT_NEAR(s->turns, total / 3.0, total / 20.0);
}

TEST(sim_universe, programs_start_wait_and_outlive_each_other) {
    universe all(1);
    world& w = all.add_world("w");
    std::string order;
    all.start("long", [&] {
        order += "L";
        all.start("late", [&] {
            all.pause(seconds);
            order += "l";
        });
        busy_worker some(w, 0, 10);
        worker* one[] = {&some};
        w.run(one);
        order += "L";
        all.wait_until([&] { return order.contains('l'); });
        order += "!";
    });
    time_ns start = all.now();
    all.run();
    EXPECT_EQ(order, "LLl!");
    EXPECT_GE(all.now(), start + seconds);
}

TEST(sim_universe, a_hang_is_reported_with_the_seed) {
    EXPECT_DEATH(
        {
            universe all(4711);
            all.start("waits", [&] { all.wait_until([] { return false; }); });
            all.run();
        },
        "seed 4711.*waits");
}

TEST(sim_loop, wait_returns_at_the_deadline_or_when_woken) {
    universe all(1);
    auto l = std::move(*all.add_world("w").make_loop());
    time_ns deadline = all.now() + 5 * milliseconds;
    EXPECT_FALSE(l->wait(deadline));
    EXPECT_EQ(all.now(), deadline);
    l->wake();
    EXPECT_FALSE(l->wait(never));
    all.after(seconds, [&] { l->wake(); });
    EXPECT_FALSE(l->wait(never));
    EXPECT_EQ(all.now(), deadline + seconds);
    EXPECT_STREQ(l->kind(), "sim");
}

}  // namespace
}  // namespace varve::env::sim
