// An inflate or decouple that is cancelled: what was copied is the blob's, everything else is as before, and it can be
// done again.
#include <gtest/gtest.h>

#include "blob/test_check.h"
#include "blob/test_store.h"
#include "thread/awaits.h"
#include "thread/test_world.h"

namespace varve::blob {
namespace {

constexpr uint32_t cluster = 16 * 1024, blocks = cluster / 512;

task<std::string> contents(life& l, store& s, blob_id id) {
    std::string seen;
    auto d = co_await l.serve(s, id);
    data_bytes all(d->num_blocks() * 512);
    {
        auto io = d.channel();
        co_await bdev::read(*io, 0, all);
    }
    d.close();
    co_await l.stop_serving(id);
    for (std::size_t at = 0; at < all.size(); at += cluster) seen += " " + hash_of(std::span(all).subspan(at, cluster));
    co_return seen;
}

void cancelled_after(uint64_t seed, bool decouple, uint64_t turns) {
    sim_machine m(seed, 4 << 20, {.volatile_cache = seed % 2 == 0});
    auto outcome = m.live([&](life& l) -> task<> {
        auto s = co_await store::init(l.devices, l.base(), {.cluster_size = cluster, .trim = false});
        const uint64_t size = 24, of_parent = 12, own = 2;
        blob_id origin = co_await s->create({.clusters = size, .thin = true});
        co_await write_pattern(l, *s, origin, 0, of_parent * blocks, 'p');
        blob_ref b = co_await s->open(origin);
        blob_id parent = co_await s->snapshot(b, {});
        co_await write_pattern(l, *s, origin, 5, own * blocks - 10, 'o');
        const std::string before = co_await contents(l, *s, origin);
        EXPECT_EQ(s->free_clusters(), s->data_clusters() - of_parent - own);
        auto run = [](store& in, blob_ref& of, bool some, jobs::job& j) -> task<> {
            co_await (some ? in.decouple(of, j) : in.inflate(of, j));
        };
        const uint64_t all = decouple ? of_parent : size;
        jobs::job j;
        {
            crew at_work;
            at_work.start(run(*s, b, decouple, j));
            for (uint64_t i = 0; i < turns && b.is_clone() && j.done() < j.total(); ++i) co_await yield();
            j.cancel();
            auto outcome = co_await as_result(at_work.done());
            if (outcome) EXPECT_EQ(j.done(), all - own) << "it was too late";
            if (turns == 0) EXPECT_FALSE(outcome) << "there was more to copy than is copied at once";
            if (!outcome) EXPECT_EQ(outcome.error().code(), errc::cancelled);
            EXPECT_EQ(b.is_clone(), !outcome);
            EXPECT_EQ(b.thin(), !outcome || decouple);
            EXPECT_EQ(b.clusters_allocated(), own + j.done()) << "what was copied is its own";
        }
        EXPECT_EQ(s->free_clusters(), s->data_clusters() - of_parent - own - j.done());
        expect_sound(*s);
        EXPECT_EQ(co_await contents(l, *s, origin), before);
        b.close();
        co_await (turns % 2 == 0 ? s->unload() : s->abandon());
        s.reset();
        s = co_await store::load(l.devices, l.base(), {.trim = false});
        expect_sound(*s);
        EXPECT_EQ(co_await contents(l, *s, origin), before);
        b = co_await s->open(origin);
        if (b.is_clone()) {
            jobs::job again;
            co_await run(*s, b, decouple, again);
            if (turns % 2 == 0) EXPECT_EQ(again.total() + j.done(), all - own) << "what was copied is not copied again";
        }
        EXPECT_FALSE(b.is_clone());
        EXPECT_EQ(b.clusters_allocated(), all);
        b.close();
        EXPECT_EQ(s->free_clusters(), s->data_clusters() - of_parent - all);
        EXPECT_EQ(co_await contents(l, *s, origin), before);
        co_await s->remove(parent);
        EXPECT_EQ(co_await contents(l, *s, origin), before);
        expect_sound(*s);
        co_await s->unload();
    });
    EXPECT_TRUE(outcome) << outcome.error().message();
    EXPECT_EQ(fsck(m.disk(), true), "");
}

TEST(store_inflate, can_be_cancelled_and_done_again) {
    thread::for_each_seed(
        [] {
            const uint64_t seed = thread::test_seed();
            SCOPED_TRACE("seed " + std::to_string(seed));
            cancelled_after(seed, seed % 3 == 0, seed * 7 % 60);
        },
        60);
}

// Others have their turns while the clusters of a large blob are counted; and what internal attributes it has the flags
// of its first page say, as SPDK wants it.
TEST(store_inflate, a_large_blob_keeps_nobody_waiting) {
    sim_machine m(1, 4 << 20, {.volatile_cache = false});
    auto outcome = m.live([](life& l) -> task<> {
        auto s = co_await store::init(l.devices, l.base(), {.cluster_size = cluster, .trim = false});
        blob_id id = co_await s->create({.clusters = 100'000, .thin = true});
        co_await write_pattern(l, *s, id, 0, 1, 'p');
        blob_ref b = co_await s->open(id);
        co_await s->snapshot(b, {});
        co_await write_pattern(l, *s, id, 99'999 * blocks, 1, 'o');
        uint64_t turns = 0;
        bool over = false;
        auto watch = [](uint64_t& count, const bool& end) -> task<> {
            while (!end) {
                ++count;
                co_await yield();
            }
        };
        crew watching;
        watching.start(watch(turns, over));
        jobs::job j;
        auto refused = co_await as_result(s->inflate(b, j));
        over = true;
        EXPECT_EQ(refused.error().code(), errc::no_space);
        EXPECT_GT(turns, 100'000u / 16384);
        co_await watching.done();
        constexpr auto internal = format::invalid_flag::internal_xattrs;
        EXPECT_EQ(b.state().record.flags.invalid & internal, internal);
        co_await s->decouple(b, j);
        EXPECT_EQ(b.state().record.flags.invalid & internal, 0u);
        b.close();
        co_await s->unload();
        s = co_await store::load(l.devices, l.base(), {.trim = false});
        EXPECT_EQ(s->find(id)->record.flags.invalid & internal, 0u);
        co_await s->unload();
    });
    EXPECT_TRUE(outcome) << outcome.error().message();
}

TEST(store_inflate, ends_at_its_next_step_when_it_is_cancelled) {
    for (bool decouple : {false, true}) cancelled_after(1, decouple, 0);
}

}  // namespace
}  // namespace varve::blob
