// A flush of the device that fails: whoever asked for it, everybody with data there hears of it once, and nothing is
// kept that it may have lost.
#include <gtest/gtest.h>

#include <array>

#include "blob/test_check.h"
#include "blob/test_store.h"
#include "thread/awaits.h"

namespace varve::blob {
namespace {

constexpr uint32_t cluster = 8 * 1024, blocks = cluster / 512;
const init_options small{.cluster_size = cluster, .md_page_count = 120, .trim = false};

void on_a_forgetful_disk(task<> (*body)(sim_machine&, life&)) {
    sim_machine m(1, 2 << 20, {.volatile_cache = true, .failed_flush_forgets = true});
    auto outcome = m.live([&](life& l) { return body(m, l); });
    EXPECT_TRUE(outcome) << outcome.error().message();
}
void fail_one_flush(sim_machine& m) {
    m.disk().inject({.what = env::sim::disk_fault::effect::error, .kind = env::file_op_kind::flush, .times = 1});
}
task<bool> flushes(bdev::channel_ref& io) { co_return (co_await as_result(bdev::flush(*io))).has_value(); }
task<bool> writes_through(bdev::channel_ref& io, uint64_t lba) {
    bdev::pending p(bdev::op::write, lba, 1);
    data_bytes data(512, std::byte{'f'});
    p.flags |= bdev::io::fua;
    p.data(data).go(*io);
    co_await p.over.wait();
    co_return p.status == bdev::status::ok;
}
task<data_bytes> contents(bdev::channel_ref& io, uint64_t lba, std::size_t bytes) {
    data_bytes out(bytes);
    co_await bdev::read(*io, lba, out);
    co_return out;
}

// Two thick blobs: nothing of the metadata changes.
void with_two(task<> (*body)(sim_machine&, store&, bdev::channel_ref& one, bdev::channel_ref& other)) {
    sim_machine m(1, 2 << 20, {.volatile_cache = true, .failed_flush_forgets = true});
    auto outcome = m.live([&](life& l) -> task<> {
        auto s = co_await store::init(l.devices, l.base(), small);
        const std::array<blob_id, 2> ids{co_await s->create({.clusters = 2}), co_await s->create({.clusters = 2})};
        auto d = co_await l.serve(*s, ids[0]), e = co_await l.serve(*s, ids[1]);
        {
            auto io = d.channel(), its = e.channel();
            co_await body(m, *s, io, its);
        }
        d.close();
        e.close();
        for (blob_id each : ids) co_await l.stop_serving(each);
        const blob_id late = co_await s->create({.clusters = 1});  // it had nothing to lose
        d = co_await l.serve(*s, late);
        {
            auto io = d.channel();
            EXPECT_TRUE(co_await flushes(io));
        }
        d.close();
        co_await l.stop_serving(late);
        co_await s->unload();
    });
    EXPECT_TRUE(outcome) << outcome.error().message();
}

TEST(store_failed_flush, is_told_to_everybody_once) {
    with_two([](sim_machine& m, store&, bdev::channel_ref& one, bdev::channel_ref& other) -> task<> {
        fail_one_flush(m);
        EXPECT_FALSE(co_await flushes(one));
        EXPECT_FALSE(co_await writes_through(other, 3));
        EXPECT_TRUE(co_await flushes(one));
        EXPECT_TRUE(co_await flushes(other));
    });
}
TEST(store_failed_flush, may_be_that_of_a_write_with_fua) {
    with_two([](sim_machine& m, store&, bdev::channel_ref& one, bdev::channel_ref& other) -> task<> {
        EXPECT_TRUE(co_await flushes(other));
        fail_one_flush(m);
        EXPECT_FALSE(co_await writes_through(one, 3));
        EXPECT_TRUE(co_await flushes(one));
        EXPECT_FALSE(co_await flushes(other)) << "what it had written is lost";
        EXPECT_TRUE(co_await writes_through(other, 3));
    });
}
// They share one, and its failure.
TEST(store_failed_flush, of_many_at_once_is_the_failure_of_all) {
    with_two([](sim_machine& m, store& s, bdev::channel_ref& one, bdev::channel_ref& other) -> task<> {
        const uint64_t before = s.base().flushes();
        std::vector<std::unique_ptr<bdev::pending>> all;
        for (int i = 0; i < 8; ++i) all.push_back(std::make_unique<bdev::pending>(bdev::op::flush));
        m.disk().inject({.what = env::sim::disk_fault::effect::error, .kind = env::file_op_kind::flush, .times = 2});
        for (std::size_t i = 0; i < all.size(); ++i) all[i]->go(i % 2 == 0 ? *one : *other);
        for (auto& p : all) {
            co_await p->over.wait();
            EXPECT_NE(p->status, bdev::status::ok);
        }
        EXPECT_LE(s.base().flushes() - before, 2u);
    });
}

// A cluster was copied from the parent, mapped in memory, and lost with somebody else's flush.
TEST(store_failed_flush, does_not_lose_what_was_copied_from_the_parent) {
    on_a_forgetful_disk([](sim_machine& m, life& l) -> task<> {
        auto s = co_await store::init(l.devices, l.base(), small);
        blob_id id = co_await s->create({.clusters = 4, .thin = true}), other = co_await s->create({.clusters = 1});
        co_await write_pattern(l, *s, id, 0, 2 * blocks, 'p');
        blob_ref b = co_await s->open(id);
        co_await s->snapshot(b, {});
        b.close();
        auto d = co_await l.serve(*s, id), e = co_await l.serve(*s, other);
        {
            auto io = d.channel(), its = e.channel();
            data_bytes data(512, std::byte{'w'});
            co_await bdev::write(*io, 0, data);
            fail_one_flush(m);
            EXPECT_FALSE(co_await flushes(its));
            EXPECT_EQ(s->find(id)->allocated, 0u);
            EXPECT_TRUE(data_bytes(cluster, std::byte{'p'}) == co_await contents(io, 0, cluster));
            while (s->find(id)->losing != 0) co_await yield();
            EXPECT_FALSE(co_await flushes(io)) << "the write is lost";
            co_await bdev::write(*io, 0, data);
            EXPECT_TRUE(co_await flushes(io));
            EXPECT_TRUE(data == co_await contents(io, 0, 512));
            EXPECT_TRUE(data_bytes(cluster - 512, std::byte{'p'}) == co_await contents(io, 1, cluster - 512));
        }
        d.close();
        e.close();
        for (blob_id each : {id, other}) co_await l.stop_serving(each);
        co_await unload_sound(*s);
    });
}

void hold_reads(sim_machine& m, uint64_t first, uint64_t bytes) {
    m.disk().inject({.what = env::sim::disk_fault::effect::stuck,
                     .kind = env::file_op_kind::read,
                     .first = first,
                     .end = first + bytes,
                     .times = 1});
}
task<> until_stuck(sim_machine& m) {
    while (m.disk().stuck() == 0) co_await sleep(100 * microseconds);
}

// A cluster is copied in pieces, and the first is lost while the second is under way.
TEST(store_failed_flush, makes_a_copy_begin_again) {
    constexpr uint32_t large = 2 << 20, half = large / 2;
    sim_machine m(1, 32 << 20, {.volatile_cache = true, .failed_flush_forgets = true});
    auto outcome = m.live([&m](life& l) -> task<> {
        auto s = co_await store::init(l.devices, l.base(), {.cluster_size = large, .trim = false});
        blob_id id = co_await s->create({.clusters = 1, .thin = true}), other = co_await s->create({.clusters = 1});
        co_await write_pattern(l, *s, id, 0, large / 512, 'p');
        blob_ref b = co_await s->open(id);
        blob_id snapshot = co_await s->snapshot(b, {});
        b.close();
        auto d = co_await l.serve(*s, id), e = co_await l.serve(*s, other);
        {
            auto io = d.channel(), its = e.channel();
            hold_reads(m, uint64_t{s->find(snapshot)->current->at(0)} * large + half, half);
            data_bytes data(512, std::byte{'w'});
            crew writing;
            writing.start(bdev::write(*io, 0, data));
            co_await until_stuck(m);
            fail_one_flush(m);
            EXPECT_FALSE(co_await flushes(its));
            m.disk().release_stuck();
            co_await writing.done();
            EXPECT_TRUE(data_bytes(half - 512, std::byte{'p'}) == co_await contents(io, 1, half - 512));
            EXPECT_TRUE(data_bytes(half, std::byte{'p'}) == co_await contents(io, half / 512, half));
        }
        d.close();
        e.close();
        for (blob_id each : {id, other}) co_await l.stop_serving(each);
        co_await s->settle();
        co_await s->unload();
    });
    EXPECT_TRUE(outcome) << outcome.error().message();
}

// What an inflation has copied so far is taken back with the flush that may have lost it: the blob keeps its parent.
TEST(store_failed_flush, makes_an_inflation_fail_that_has_lost_copies) {
    on_a_forgetful_disk([](sim_machine& m, life& l) -> task<> {
        auto s = co_await store::init(l.devices, l.base(), small);
        blob_id id = co_await s->create({.clusters = 6, .thin = true}), other = co_await s->create({.clusters = 1});
        co_await write_pattern(l, *s, id, 0, 6 * blocks, 'p');
        blob_ref b = co_await s->open(id);
        blob_id snapshot = co_await s->snapshot(b, {});
        auto e = co_await l.serve(*s, other);
        {
            auto its = e.channel();
            hold_reads(m, uint64_t{s->find(snapshot)->current->at(5)} * cluster, cluster);  // of the last one
            jobs::job j;
            crew inflating;
            inflating.start(s->inflate(b, j));
            co_await until_stuck(m);
            while (s->find(id)->allocated < 5) co_await sleep(100 * microseconds);
            fail_one_flush(m);
            EXPECT_FALSE(co_await flushes(its));
            EXPECT_EQ(s->find(id)->allocated, 0u);
            m.disk().release_stuck();
            auto outcome = co_await as_result(inflating.done());
            EXPECT_EQ(outcome.error().code(), errc::io);
        }
        e.close();
        EXPECT_TRUE(b.thin());
        EXPECT_TRUE(b.is_clone());
        for (bool whole : {false, true}) {
            auto d = co_await l.serve(*s, id);
            {
                auto io = d.channel();
                EXPECT_TRUE(data_bytes(6 * cluster, std::byte{'p'}) == co_await contents(io, 0, 6 * cluster));
            }
            d.close();
            co_await l.stop_serving(id);
            jobs::job again;
            if (!whole) co_await s->inflate(b, again);
            EXPECT_FALSE(b.thin());
        }
        b.close();
        co_await l.stop_serving(other);
        co_await unload_sound(*s);
    });
}

// Trimmed, and then the trimming is lost: whoever gets the clusters must not see what was there.
TEST(store_failed_flush, makes_nobody_believe_in_cleared_clusters) {
    on_a_forgetful_disk([](sim_machine& m, life& l) -> task<> {
        auto s = co_await store::init(l.devices, l.base(), small);
        blob_id other = co_await s->create({.clusters = 1, .thin = true});
        blob_id all = co_await s->create({.clusters = s->free_clusters()});
        const auto lbas = static_cast<uint32_t>(s->find(all)->record.cluster_count * blocks);
        co_await write_pattern(l, *s, all, 0, lbas, 'o');
        co_await l.stop_serving(all);
        co_await s->remove(all);
        s->start_trimming();
        co_await s->settle();
        EXPECT_EQ(s->room().clean_clusters(), s->free_clusters());
        auto e = co_await l.serve(*s, other);
        {
            auto its = e.channel();
            fail_one_flush(m);
            EXPECT_FALSE(co_await flushes(its));
        }
        e.close();
        co_await l.stop_serving(other);
        blob_id heir = co_await s->create({.clusters = s->free_clusters()});
        auto d = co_await l.serve(*s, heir);
        {
            auto io = d.channel();
            for (uint64_t at = 0; at < d->num_blocks(); at += blocks) {
                EXPECT_TRUE(data_bytes(cluster) == co_await contents(io, at, cluster)) << "cluster " << at / blocks;
            }
        }
        d.close();
        co_await l.stop_serving(heir);
        co_await s->unload();
    });
}

// The next owner counts on that, SPDK too: a store that could not be cleared is not called unloaded.
TEST(store_failed_flush, or_unmap_leaves_a_store_in_use) {
    for (bool fails : {false, true}) {
        sim_machine m(1, 2 << 20, {.volatile_cache = true});
        auto outcome = m.live([&](life& l) -> task<> {
            auto s = co_await store::init(l.devices, l.base(), small);
            blob_id id = co_await s->create({.clusters = 20});
            co_await write_pattern(l, *s, id, 0, 20 * blocks, 'o');
            co_await l.stop_serving(id);
            if (fails) {
                m.disk().inject(
                    {.what = env::sim::disk_fault::effect::error, .kind = env::file_op_kind::unmap, .times = 100});
            }
            co_await s->remove(id);
            co_await s->settle();
            co_await s->unload();
            EXPECT_EQ(s->super().clean, !fails);
        });
        EXPECT_TRUE(outcome) << outcome.error().message();
    }
}

}  // namespace
}  // namespace varve::blob
