// Copies for first writes to clones: a few at once, by the device or in memory that is kept.
#include <gtest/gtest.h>

#include "blob/test_check.h"
#include "blob/test_store.h"
#include "thread/awaits.h"
#include "thread/buffer_pool.h"

namespace varve::blob {
namespace {

constexpr uint32_t cluster = 8 * 1024, blocks = cluster / 512;
const init_options small{.cluster_size = cluster, .md_page_count = 120, .trim = false};

TEST(store_copies, are_made_a_few_at_a_time) {
    constexpr unsigned writes = 60;
    sim_machine m(1, 4 << 20, {});
    auto outcome = m.live([&m](life& l) -> task<> {
        auto s = co_await store::init(l.devices, l.base(), small);
        const blob_id id = co_await s->create({.clusters = writes, .thin = true});
        co_await write_pattern(l, *s, id, 0, writes * blocks, 'p');
        co_await l.stop_serving(id);
        blob_ref b = co_await s->open(id);
        co_await s->snapshot(b, {});
        b.close();
        auto d = co_await l.serve(*s, id);
        {
            auto io = d.channel();
            m.disk().inject({.what = env::sim::disk_fault::effect::stuck,
                             .kind = env::file_op_kind::read,
                             .times = external_parent::copies_at_once});
            data_bytes data(512, std::byte{'w'});
            crew all;
            for (unsigned i = 0; i < writes; ++i) all.start(bdev::write(*io, i * blocks, data));
            const uint64_t before = m.disk().ops_issued();
            co_await sleep(1 * seconds);
            EXPECT_EQ(m.disk().stuck(), external_parent::copies_at_once);
            EXPECT_LT(m.disk().ops_issued() - before, uint64_t{writes}) << "more were begun";
            const auto& pool = thread::buffer_pool::of(*thread::thread::current());
            EXPECT_EQ(pool.buffers_in_use(), external_parent::copies_at_once) << "each has memory";
            m.disk().release_stuck();
            co_await all.done();
            data_bytes found(writes * cluster);
            co_await bdev::read(*io, 0, found);
            for (unsigned i = 0; i < writes; ++i) {
                EXPECT_EQ(found[std::size_t{i} * cluster], std::byte{'w'});
                EXPECT_EQ(found[std::size_t{i} * cluster + 512], std::byte{'p'});
            }
        }
        d.close();
        co_await l.stop_serving(id);
        co_await unload_sound(*s);
    });
    EXPECT_TRUE(outcome) << outcome.error().message();
}

// Clusters that are copied in two pieces.
constexpr uint32_t large_cluster = 256 * 1024, large_blocks = large_cluster / 512;
const init_options large{.cluster_size = large_cluster, .md_page_count = 120, .trim = false};

// Of a snapshot, by a first write to one of its clusters; the rest of that shows what the snapshot has.
task<> copy_one(life& l, store& s) {
    const blob_id id = co_await s.create({.clusters = 4, .thin = true});
    co_await write_pattern(l, s, id, 0, 4 * large_blocks, 'p');
    co_await write_pattern(l, s, id, 2 * large_blocks + large_blocks / 2, large_blocks / 2, 'q');
    {
        blob_ref b = co_await s.open(id);
        co_await s.snapshot(b, {});
    }
    co_await write_pattern(l, s, id, 2 * large_blocks + 1, 1, 'w');
    auto d = co_await l.serve(s, id);
    {
        auto io = d.channel();
        data_bytes found(4 * large_cluster), wanted(4 * large_cluster, std::byte{'p'});
        std::ranges::fill(std::span(wanted).subspan(2 * large_cluster + large_cluster / 2, large_cluster / 2),
                          std::byte{'q'});
        std::ranges::fill(std::span(wanted).subspan(2 * large_cluster + 512, 512), std::byte{'w'});
        co_await bdev::read(*io, 0, found);
        EXPECT_EQ(found, wanted);
    }
    d.close();
    co_await l.stop_serving(id);
}

TEST(store_copies, are_left_to_a_device_that_offers_them) {
    sim_machine m(1, 4 << 20, {});
    auto outcome = m.live([](life& l) -> task<> {
        bdev::properties p;
        p.name = "copier";
        p.block_size = 512;
        p.num_blocks = 8192;
        p.offered |= bdev::op_bit(bdev::op::copy);
        auto made = std::make_unique<bdev::ram_device>(p);
        bdev::ram_device& base = *made;
        co_await l.devices.add(std::move(made));
        auto s = co_await store::init(l.devices, *l.devices.open("copier", bdev::open_mode::read_write, {}), large);
        co_await copy_one(l, *s);
        EXPECT_EQ(base.opened.load()->stats(bdev::op::copy).blocks, large_blocks);
        co_await unload_sound(*s);
    });
    EXPECT_TRUE(outcome) << outcome.error().message();
}

// Writes may hold all there is of the memory for requests while they wait for a copy.
TEST(store_copies, do_not_wait_for_memory_that_requests_have) {
    sim_machine m(1, 4 << 20, {});
    auto outcome = m.live([](life& l) -> task<> {
        auto s = co_await store::init(l.devices, l.base(), large);
        constexpr std::size_t piece = 128 * 1024;
        thread::thread& here = *thread::thread::current();
        auto& pool = thread::buffer_pool::of(here);
        const auto& stats = pool.stats(thread::buffer_pool::class_of(piece));
        co_await copy_one(l, *s);
        EXPECT_EQ(stats.grown, 1u) << "the pool's memory is used";
        here.system().buffers().set_limit(1);
        EXPECT_FALSE(pool.try_get(512 * 1024)) << "there is more";
        std::vector<thread::pool_buffer> held;
        for (auto b = pool.try_get(piece); b; b = pool.try_get(piece)) held.push_back(std::move(b));
        co_await copy_one(l, *s);
        EXPECT_EQ(stats.grown, 1u);
        EXPECT_EQ(pool.buffers_in_use(), held.size());
        held.clear();
        co_await unload_sound(*s);
    });
    EXPECT_TRUE(outcome) << outcome.error().message();
}

}  // namespace
}  // namespace varve::blob
