// Blobs that go: nobody opens them any more, and what they had is nobody else's before the media has forgotten them.
#include <gtest/gtest.h>

#include "blob/test_check.h"
#include "blob/test_store.h"
#include "thread/awaits.h"
#include "thread/test_world.h"

namespace varve::blob {
namespace {

constexpr uint32_t cluster = 16 * 1024;
constexpr uint64_t step = thread::sanitized ? 4 : 1;
const init_options small{.cluster_size = cluster, .trim = false};

// A blob with data in two extent pages, a snapshot of it, and data of its own in the first.
task<blob_id> with_snapshot(life& l, store& s, blob_id& origin) {
    origin = co_await s.create({.clusters = 700, .thin = true});
    for (uint64_t at : {uint64_t{0}, uint64_t{600} * cluster / 512}) co_await write_pattern(l, s, origin, at, 32, '1');
    blob_ref b = co_await s.open(origin);
    blob_id made = co_await s.snapshot(b, {});
    b.close();
    co_await write_pattern(l, s, origin, 0, 32, '2');
    co_return made;
}

task<> nobody_opens_what_goes(life& l) {
    auto s = co_await store::init(l.devices, l.base(), small);
    blob_id origin = 0;
    blob_id snapshot = co_await with_snapshot(l, *s, origin);
    for (blob_id id : {snapshot, origin}) {
        crew removing;
        removing.start(s->remove(id));
        for (unsigned tries = 0; s->find(id) != nullptr; ++tries) {
            auto opened = s->open(id);
            EXPECT_FALSE(opened) << "after " << tries;
            if (!opened) EXPECT_TRUE(opened.error().code() == errc::busy || opened.error().code() == errc::not_found);
            co_await yield();
        }
        EXPECT_EQ(s->open(id).error().code(), errc::not_found);
        co_await removing.done();
    }
    EXPECT_EQ(s->free_clusters(), s->data_clusters());
    expect_sound(*s);
    co_await s->unload();
}

TEST(store_removal, nobody_opens_what_goes) {
    thread::for_each_seed(
        [] {
            sim_machine m(thread::test_seed(), 16 << 20, {.volatile_cache = thread::test_seed() % 2 == 0});
            auto outcome = m.live(nobody_opens_what_goes);
            EXPECT_TRUE(outcome) << outcome.error().message();
        },
        20);
}

// When a removal has failed for some reason, the blob is there as before, and can be opened.
task<> what_could_not_go_is_there(life& l) {
    auto s = co_await store::init(l.devices, l.base(), small);
    blob_id origin = 0;
    blob_id snapshot = co_await with_snapshot(l, *s, origin);
    blob_ref held = co_await s->open(origin);
    auto busy = s->hold(held);
    EXPECT_EQ((co_await as_result(s->remove(snapshot))).error().code(), errc::busy) << "its clone is at work";
    EXPECT_TRUE(s->open(snapshot));
    busy = fail(errc::busy);
    held.close();
    co_await s->remove(snapshot);
    co_await s->unload();
}

TEST(store_removal, what_could_not_go_is_there) {
    sim_machine m(1, 16 << 20, {.volatile_cache = true});
    auto outcome = m.live(what_could_not_go_is_there);
    EXPECT_TRUE(outcome) << outcome.error().message();
}

void fail_from(env::sim::disk& d, uint64_t from, uint64_t count) {
    const uint64_t first = d.ops_issued() + from;
    for (uint64_t n = first; n < first + count; ++n) d.fail_operation(n);
}

// Blobs that take the pages and clusters of those that were removed; then the power goes.
constexpr unsigned others = 12;
task<> make_others(store& s) {
    for (unsigned i = 0; i < others; ++i) {
        co_await s.create({.clusters = 4, .xattrs = {{"x", std::string(3500, 'x')}, {"y", std::string(3500, 'y')}}});
    }
    co_await s.settle();
    expect_sound(s);
    co_await s.abandon();
}

void expect_the_others(sim_machine& m) {
    auto outcome = m.live([](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), {.trim = false});
        EXPECT_EQ(s->blobs().size(), others);
        expect_sound(*s);
        co_await s->unload();
    });
    EXPECT_TRUE(outcome) << outcome.error().message();
}

// The device fails from the I/O on that clears the root of a merged snapshot, for a while. The pages that root names
// are the clone's, or nobody's: if they were somebody else's while it is on the media, the next load would find that
// blob damaged.
void merge_with_failures(bool cached, uint64_t from, uint64_t count, bool& merged) {
    sim_machine m(1, 16 << 20, {.volatile_cache = cached});
    auto outcome = m.live([&](life& l) -> task<> {
        auto s = co_await store::init(l.devices, l.base(), small);
        blob_id origin = 0;
        blob_id snapshot = co_await with_snapshot(l, *s, origin);
        co_await s->settle();
        fail_from(m.disk(), from, count);
        merged = (co_await as_result(s->remove(snapshot))).has_value();
        m.disk().clear_faults();
        if (merged) EXPECT_EQ(s->find(snapshot), nullptr);
        if (!merged) EXPECT_TRUE(s->open(snapshot));
        if (!merged) co_await s->remove(snapshot);
        co_await s->remove(origin);
        co_await make_others(*s);
    });
    EXPECT_TRUE(outcome) << outcome.error().message();
    expect_the_others(m);
    EXPECT_EQ(fsck(m.disk(), true), "");
}

TEST(store_removal, what_a_root_names_is_nobody_elses_while_it_is_there) {
    for (bool cached : {false, true}) {
        unsigned merges = 0, failures = 0;
        for (uint64_t from = 0; from < 60; from += step) {
            for (uint64_t count : {3u, 6u, 12u}) {
                SCOPED_TRACE(fmt::format("{}{} I/Os fail from the {}th on", cached ? "cache, " : "", count, from));
                bool merged = false;
                merge_with_failures(cached, from, count, merged);
                ++(merged ? merges : failures);
                if (testing::Test::HasFailure()) return;
            }
        }
        EXPECT_GT(merges, 0u);
        EXPECT_GT(failures, 0u);
    }
}

// The same of a snapshot that could not be made: its draft names what the origin has.
void snapshot_with_failures(bool cached, uint64_t from, uint64_t count) {
    sim_machine m(1, 16 << 20, {.volatile_cache = cached});
    auto outcome = m.live([&](life& l) -> task<> {
        auto s = co_await store::init(l.devices, l.base(), small);
        blob_id origin = co_await s->create({.clusters = 700, .xattrs = {{"x", std::string(3500, 'x')}}});
        co_await s->settle();
        fail_from(m.disk(), from, count);
        {
            blob_ref b = co_await s->open(origin);
            co_await as_result(s->snapshot(b, {}));
        }
        m.disk().clear_faults();
        while (!s->blobs().empty()) co_await s->remove(s->blobs().back());
        co_await make_others(*s);
    });
    EXPECT_TRUE(outcome) << outcome.error().message();
    expect_the_others(m);
}

TEST(store_removal, what_the_draft_of_a_snapshot_names_is_nobody_elses_while_it_is_there) {
    for (bool cached : {false, true}) {
        for (uint64_t from = 0; from < 40; from += step) {
            for (uint64_t count : {3u, 6u, 12u}) {
                SCOPED_TRACE(fmt::format("{}{} I/Os fail from the {}th on", cached ? "cache, " : "", count, from));
                snapshot_with_failures(cached, from, count);
                if (testing::Test::HasFailure()) return;
            }
        }
    }
}

}  // namespace
}  // namespace varve::blob
