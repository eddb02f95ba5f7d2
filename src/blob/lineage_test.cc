// Clusters of an ancestor are read by requests and copies of those below it: they are nobody else's before these have
// ended, however a blob has lost the ancestor meanwhile.
#include <gtest/gtest.h>

#include "blob/test_check.h"
#include "blob/test_store.h"
#include "thread/awaits.h"

namespace varve::blob {
namespace {

constexpr uint32_t cluster = 8 * 1024, blocks = cluster / 512;
const init_options small{.cluster_size = cluster, .md_page_count = 120, .trim = false};
constexpr time_ns slow = 3 * seconds;

data_bytes all_of(char c, std::size_t bytes) { return data_bytes(bytes, static_cast<std::byte>(c)); }

// grandparent <- parent <- child, where only the grandparent has clusters: four of 'a'.
struct family {
    std::unique_ptr<store> s;
    blob_id grandparent = 0, parent = 0, child = 0;
};

task<> three_generations(life& l, family& f) {
    f.s = co_await store::init(l.devices, l.base(), small);
    f.child = co_await f.s->create({.clusters = 4, .thin = true});
    co_await write_pattern(l, *f.s, f.child, 0, 4 * blocks, 'a');
    blob_ref b = co_await f.s->open(f.child);
    f.grandparent = co_await f.s->snapshot(b, {});
    f.parent = co_await f.s->snapshot(b, {});
    co_await f.s->settle();
}

// The next read of that cluster of the grandparent's takes long.
void make_a_read_slow(env::sim::disk& d, const family& f, uint64_t index) {
    const uint64_t at = f.s->find(f.grandparent)->current->at(index) * uint64_t{cluster};
    d.inject({.what = env::sim::disk_fault::effect::slow,
              .kind = env::file_op_kind::read,
              .first = at,
              .end = at + cluster,
              .delay = slow});
}

task<> read_first_cluster(life& l, family& f, bool& over) {
    auto d = co_await l.serve(*f.s, f.child);
    data_bytes memory(cluster);
    {
        auto io = d.channel();
        co_await bdev::read(*io, 0, memory);
    }
    over = true;
    EXPECT_TRUE(memory == all_of('a', cluster)) << "it read what is somebody else's";
}

task<> expect_child_as_it_was(life& l, family& f) {
    auto d = co_await l.serve(*f.s, f.child);
    data_bytes memory(4 * cluster);
    co_await bdev::read(*d.channel(), 0, memory);
    EXPECT_TRUE(memory == all_of('a', 4 * cluster)) << "it shows what is somebody else's";
}

// Takes everything that is free, and clears it.
task<> be_greedy(store& s) {
    const blob_id id = co_await s.create({.clusters = s.free_clusters()});
    co_await s.remove(id);
}

template <class Body>
void with_a_family(Body body) {
    for (bool cached : {false, true}) {
        sim_machine m(1, 2 << 20, {.volatile_cache = cached});
        auto outcome = m.live([&](life& l) -> task<> {
            family f;
            co_await three_generations(l, f);
            co_await body(m.disk(), l, f);
            co_await l.stop_serving(f.child);
            co_await f.s->settle();
            expect_sound(*f.s);
            co_await f.s->unload();
        });
        EXPECT_TRUE(outcome) << outcome.error().message();
    }
}

// A request of the child's is reading in the grandparent, slowly, while body(disk, family, parent, over, all) does
// something to the parent; then others take all there is. `over`: the request has ended; `all` is waited for.
template <class Body>
void with_a_slow_read(Body body) {
    with_a_family([&body](env::sim::disk& d, life& l, family& f) -> task<> {
        make_a_read_slow(d, f, 0);
        bool over = false;
        crew all;
        all.start(read_first_cluster(l, f, over));
        while (d.in_flight() == 0) co_await yield();
        blob_ref parent = co_await f.s->open(f.parent);
        co_await body(d, f, parent, over, all);
        co_await be_greedy(*f.s);
        co_await all.done();
        parent.close();
        if (f.s->find(f.grandparent) != nullptr) co_await f.s->remove(f.grandparent);
    });
}

TEST(store_lineage, a_copy_under_way_is_waited_for_when_the_parent_is_decoupled) {
    with_a_family([](env::sim::disk& d, life& l, family& f) -> task<> {
        make_a_read_slow(d, f, 0);
        blob_ref b = co_await f.s->open(f.child), mid = co_await f.s->open(f.parent);
        jobs::job one, two;
        crew all;
        all.start(f.s->inflate(b, one));
        co_await sleep(50 * milliseconds);
        co_await f.s->decouple(mid, two);
        mid.close();
        co_await f.s->remove(f.grandparent);
        co_await be_greedy(*f.s);
        co_await all.done();
        b.close();
        co_await expect_child_as_it_was(l, f);
    });
}

TEST(store_lineage, requests_under_way_are_waited_for_when_a_parent_that_was_decoupled_in_part_takes_over) {
    with_a_slow_read([](env::sim::disk& d, family& f, blob_ref& parent, const bool& over, crew&) -> task<> {
        jobs::job j;
        const uint64_t at = f.s->find(f.grandparent)->current->at(3) * uint64_t{cluster};
        d.inject({.kind = env::file_op_kind::read, .first = at, .end = at + cluster});
        EXPECT_FALSE(co_await as_result(f.s->decouple(parent, j)));
        EXPECT_NE(parent.cluster_at(0), no_cluster);
        parent.close();
        EXPECT_FALSE(over);
        co_await f.s->remove(f.grandparent);
    });
}

TEST(store_lineage, the_former_parent_stays_until_requests_through_it_have_ended) {
    with_a_slow_read([](env::sim::disk&, family& f, blob_ref& parent, const bool& over, crew& all) -> task<> {
        all.start(f.s->detach_parent(parent));
        while (f.s->find(f.parent)->parent != nullptr) co_await yield();
        EXPECT_FALSE(over);
        auto removed = co_await as_result(f.s->remove(f.grandparent));
        if (!over) EXPECT_EQ(removed ? errc::ok : removed.error().code(), errc::busy);
    });
}

// Whatever is done to the snapshot above: somebody reads it, or wants to remove it.
TEST(store_lineage, who_is_decoupled_need_not_ask_his_grandparent) {
    with_a_family([](env::sim::disk&, life& l, family& f) -> task<> {
        blob_ref b = co_await f.s->open(f.child), old = co_await f.s->open(f.grandparent);
        {
            auto read = co_await f.s->hold(old);
            jobs::job j;
            co_await f.s->decouple(b, j);
        }
        old.close();
        EXPECT_EQ(f.s->find(f.child)->parent, f.s->find(f.grandparent));
        co_await f.s->remove(f.parent);
        f.parent = co_await f.s->snapshot(b, {});
        jobs::job j;
        crew all;
        all.start(f.s->decouple(b, j));
        for (blob_id id : {f.grandparent, f.parent}) {
            EXPECT_EQ((co_await as_result(f.s->remove(id))).error().code(), errc::busy);
        }
        co_await all.done();
        b.close();
        co_await f.s->remove(f.parent);
        co_await f.s->remove(f.grandparent);
        EXPECT_EQ(f.s->find(f.child)->parent, nullptr);
        co_await expect_child_as_it_was(l, f);
    });
}

task<> write_late(life& l, store& s, blob_id id, result<>& outcome) {
    outcome = co_await as_result(write_pattern(l, s, id, 0, 8, 'w'));
}

// A cluster is copied in two pieces, and the device is still there for the second.
TEST(store_lineage, an_external_parent_stays_until_copies_from_it_have_ended) {
    sim_machine m(1, 64 << 20, {.volatile_cache = true});
    auto outcome = m.live([&](life& l) -> task<> {
        constexpr uint32_t large = 2 << 20;
        bdev::ram_device& golden = *co_await l.external.add("golden", 2 * large, 5);
        auto s = co_await store::init(
            l.devices, l.base(),
            {.cluster_size = large, .md_page_count = 120, .trim = false, .externals = &l.external});
        blob_id id = co_await s->create({.clusters = 2, .external = "golden"});
        blob_ref b = co_await s->open(id);
        blob_ref mid = co_await s->open(co_await s->snapshot(b, {}));
        b.close();
        golden.behaviour.keep = true;
        result<> written;
        crew all;
        all.start(write_late(l, *s, id, written));
        while (golden.opened.load() == nullptr || golden.opened.load()->kept() == 0) co_await yield();
        all.start(s->detach_parent(mid));
        while (mid.is_external_clone()) co_await yield();
        co_await sleep(10 * milliseconds);
        golden.behaviour.keep = false;
        golden.opened.load()->let_go();
        co_await all.done();
        EXPECT_TRUE(written) << written.error().message();
        mid.close();
        co_await unload_sound(*s);
    });
    EXPECT_TRUE(outcome) << outcome.error().message();
}

}  // namespace
}  // namespace varve::blob
