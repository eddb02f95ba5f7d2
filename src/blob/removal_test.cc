// Blobs that go: nobody opens them any more, and what they had is nobody else's before the media has forgotten them.
#include <gtest/gtest.h>

#include "blob/test_check.h"
#include "blob/test_store.h"
#include "thread/awaits.h"
#include "thread/test_world.h"

namespace varve::blob {
namespace {

constexpr uint32_t cluster = 16 * 1024;
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

}  // namespace
}  // namespace varve::blob
