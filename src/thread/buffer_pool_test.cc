#include "thread/buffer_pool.h"

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "thread/awaits.h"
#include "thread/gate.h"
#include "thread/test_world.h"

namespace varve::thread {
namespace {

class buffer_pool_test : public in_every_world {};
INSTANTIATE_TEST_SUITE_P(worlds, buffer_pool_test, every_world(), world_name);

constexpr std::size_t slab = buffer_pool::slab_bytes;

TEST(buffer_pool, sizes_are_rounded_up_to_a_class) {
    EXPECT_EQ(buffer_pool::class_of(0), 0u);
    EXPECT_EQ(buffer_pool::class_of(4096), 0u);
    EXPECT_EQ(buffer_pool::class_of(4097), 1u);
    EXPECT_EQ(buffer_pool::class_of(8192), 1u);
    EXPECT_EQ(buffer_pool::class_of(8193), 2u);
    EXPECT_EQ(buffer_pool::class_of(1024 * 1024), 8u);
    EXPECT_EQ(buffer_pool::class_of(1024 * 1024 + 1), 9u);
}

task<> fills_and_empties(runtime& rt) {
    auto& pool = buffer_pool::of(here());
    std::vector<pool_buffer> held;
    std::set<std::byte*> seen;
    for (std::size_t size : {std::size_t{1}, std::size_t{4096}, std::size_t{5000}, std::size_t{1} << 20}) {
        for (int i = 0; i < 3; ++i) {
            held.push_back(pool.try_get(size));
            pool_buffer& b = held.back();
            EXPECT_TRUE(b);
            EXPECT_GE(b.size(), size);
            EXPECT_LT(b.size(), 2 * std::max<std::size_t>(size, 4096));
            EXPECT_EQ(reinterpret_cast<uintptr_t>(b.data()) % 4096, 0u);
            EXPECT_TRUE(seen.insert(b.data()).second);
            std::fill_n(b.data(), b.size(), std::byte{42});
        }
    }
    EXPECT_EQ(pool.buffers_in_use(), 12u);
    EXPECT_EQ(rt.buffers().used(), 4 * slab);  // 4 KiB, 8 KiB, and two of 1 MiB
    EXPECT_EQ(pool.stats(0).grown, 1u);
    EXPECT_EQ(pool.stats(0).hits, 5u);
    std::byte* last = held[5].data();
    held[5].release();
    EXPECT_EQ(pool.try_get(4096).data(), last) << "the warmest comes first";
    held.clear();
    EXPECT_EQ(pool.buffers_in_use(), 0u);
    EXPECT_EQ(rt.buffers().used(), 4 * slab);
    pool_buffer large = pool.try_get(3'000'000);
    EXPECT_EQ(large.size(), 3'002'368u);
    large.release();
    EXPECT_EQ(rt.buffers().used(), 4 * slab) << "a large one is not kept";
    co_return;
}

TEST_IN_WORLDS(buffer_pool_test, hands_out_distinct_aligned_buffers) {
    system_of s(GetParam(), 1);
    s.run(fills_and_empties(*s.rt));
}

struct taker : buffer_wait {
    std::string* log = nullptr;
    char name = 0;
};

task<> waits_in_line(runtime& rt) {
    auto& pool = buffer_pool::of(here());
    pool_buffer first = pool.try_get(1 << 20), second = pool.try_get(1 << 20);
    EXPECT_FALSE(pool.try_get(1 << 20));
    EXPECT_FALSE(pool.try_get(4096)) << "there is no memory for another slab";
    std::string log;
    taker waiting[4];
    for (int i = 0; i < 4; ++i) {
        waiting[i].log = &log;
        waiting[i].name = static_cast<char>('a' + i);
        waiting[i].run = [](work& w) noexcept {
            taker& t = static_cast<taker&>(static_cast<buffer_wait&>(w));
            EXPECT_TRUE(t.buffer);
            *t.log += t.name;
        };
        pool.wait(waiting[i], i == 2 ? 4096 : 1 << 20);
    }
    EXPECT_TRUE(pool.cancel(waiting[1]));
    first.release();
    EXPECT_EQ(log, "") << "not from inside release";
    co_await yield();
    EXPECT_EQ(log, "a");
    EXPECT_FALSE(pool.cancel(waiting[0]));
    second.release();
    co_await yield();
    EXPECT_EQ(log, "a") << "c needs a slab of its own, and d must not overtake it";
    waiting[0].buffer.release();
    while (log.size() < 2) co_await yield();
    EXPECT_EQ(log, "ac");
    waiting[2].buffer.release();
    while (log.size() < 3) co_await yield();
    EXPECT_EQ(log, "acd");
    waiting[3].buffer.release();
    co_await yield();
    EXPECT_EQ(rt.buffers().pressure(), memory_pressure::none);
    EXPECT_EQ(pool.stats(8).waited, 3u);
}

TEST_IN_WORLDS(buffer_pool_test, who_finds_it_empty_waits_in_line) {
    system_of s(GetParam(), 1, {.buffer_limit = slab});
    s.run(waits_in_line(*s.rt));
}

// Takes and gives back without end until told to stop; two of them see to it that their slab is never free by chance.
task<> hogs(const bool& enough, int& rounds) {
    auto& pool = buffer_pool::of(here());
    while (!enough) {
        pool_buffer mine = co_await pool.get(4096);
        co_await yield();
        co_await yield();
        if (++rounds % 2 == 0) co_await yield();
    }
}

task<> wants(runtime& rt, const int& rounds, bool& enough) {
    thread& home = here();
    thread* other = co_await rt.create_thread("other");
    while (rounds < 100) co_await yield();
    co_await switch_to(*other);
    {
        pool_buffer mine = co_await buffer_pool::of(*other).get(1 << 20);
        EXPECT_TRUE(mine);
    }
    co_await switch_to(home);
    int before = rounds;
    while (rounds < before + 100) co_await yield();  // and the hog goes on
    enough = true;
    rt.destroy_thread(*other);
}

task<> competes(runtime& rt) {
    bool enough = false;
    int rounds = 0;
    gate all;
    for (int i = 0; i < 5; ++i) all.spawn(hogs(enough, rounds), unexpected);
    co_await wants(rt, rounds, enough);
    co_await all.close();
}

TEST_IN_WORLDS(buffer_pool_test, nobody_starves_beside_a_busy_thread) {
    system_of s(GetParam(), 1, {.buffer_limit = slab});
    s.run(competes(*s.rt));
}

task<> uses_many(runtime& rt, int count) {
    thread& home = here();
    thread* mine = co_await rt.create_thread("taker");
    co_await switch_to(*mine);
    for (int i = 0; i < count; ++i) {
        pool_buffer one = co_await buffer_pool::of(*mine).get(std::size_t{4096} << (i % 9));
        one.data()[0] = std::byte{1};
        co_await yield();
        pool_buffer two = co_await buffer_pool::of(*mine).get(3'000'000);
        if (i % 8 == 0) co_await sleep(50 * microseconds);
    }
    co_await switch_to(home);
    rt.destroy_thread(*mine);
}

task<> crowd(runtime& rt, int rounds) {
    gate all;
    for (int i = 0; i < 6; ++i) all.spawn(uses_many(rt, rounds), unexpected);
    co_await all.close();
    while (rt.threads().size() > 1) co_await yield();
    EXPECT_EQ(rt.buffers().used(), 0u);
}

TEST_IN_WORLDS(buffer_pool_test, threads_share_too_little_memory) {
    // Holding one while waiting for another could stop everybody when one holder uses up all; eight slabs are enough
    // for all and one.
    system_of s(GetParam(), 3, {.buffer_limit = 8 * slab});
    s.run(crowd(*s.rt, GetParam() == world_kind::sim ? 2 : 100));  // there: many seeds instead
}

}  // namespace
}  // namespace varve::thread
