// Mappings that only the memory has yet, where the device has a volatile cache: whoever hands a blob's metadata on
// saves them first, and the saving in the background is in nobody's way.
#include <gtest/gtest.h>

#include "blob/test_check.h"
#include "blob/test_store.h"
#include "thread/awaits.h"

namespace varve::blob {
namespace {

constexpr uint32_t cluster = 8 * 1024, blocks = cluster / 512;
const init_options small{.cluster_size = cluster, .md_page_count = 120, .trim = false};

// What a store shows when the power has gone, and with it all that was not flushed.
std::string shown_without_power(sim_machine& m) {
    std::string shown;
    m.disk().cut_power(env::sim::cut_outcome::lose_all);
    auto outcome = m.live([&](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), {.trim = false});
        expect_sound(*s);
        shown = co_await describe(l, *s);
        co_await s->abandon();
    });
    EXPECT_TRUE(outcome) << outcome.error().message();
    return shown;
}

// A blob becomes read-only and gets a clone; then it is merged into the clone, and what it has not saved is in
// neither's extent pages.
task<> merge_of_what_is_not_saved(life& l, bool discard, blob_id& kid, std::string& shown) {
    auto s = co_await store::init(l.devices, l.base(), small);
    blob_id id = co_await s->create({.clusters = 20, .thin = true});
    co_await write_pattern(l, *s, id, 0, 2 * blocks, 'a');  // there is an extent page
    if (discard) {
        auto d = co_await l.serve(*s, id);
        co_await bdev::unmap(*d.channel(), 0, blocks);
        d.close();
        co_await l.stop_serving(id);
    } else {
        co_await write_pattern(l, *s, id, 2 * blocks, blocks, 'b', false);
    }
    blob_ref b = co_await s->open(id);
    EXPECT_FALSE(b.state().unsaved_extents.empty());
    co_await s->set_read_only(b);
    kid = co_await s->clone(b, {});
    b.close();
    co_await s->remove(id);
    b = co_await s->open(kid);
    co_await s->flush(b);
    b.close();
    shown = co_await describe(l, *s);
    expect_sound(*s);
    co_await s->abandon();
}

TEST(store_unsaved, is_saved_before_its_blob_is_merged_into_a_clone) {
    for (bool discard : {false, true}) {
        sim_machine m(1, 2 << 20, {.volatile_cache = true});
        blob_id kid = 0;
        std::string before;
        auto outcome = m.live([&](life& l) { return merge_of_what_is_not_saved(l, discard, kid, before); });
        ASSERT_TRUE(outcome) << outcome.error().message();
        EXPECT_EQ(before, shown_without_power(m)) << (discard ? "a discard" : "a mapping");
    }
}

// The first write of a life finds clusters that are clear and has nothing to wait for, but that the store is said to be
// in use: else the next load believes masks that do not have the cluster.
TEST(store_first_write, is_the_first_change_since_the_store_was_loaded) {
    for (bool cache : {false, true}) {
        sim_machine m(1, 2 << 20, {.volatile_cache = cache});
        blob_id id = 0;
        std::string before;
        auto outcome = m.live([&](life& l) -> task<> {
            auto s = co_await store::init(l.devices, l.base(), small);
            id = co_await s->create({.clusters = 20, .thin = true});
            co_await unload_sound(*s);
        });
        ASSERT_TRUE(outcome) << outcome.error().message();
        outcome = m.live([&](life& l) -> task<> {
            auto s = co_await store::load(l.devices, l.base(), {.trim = true});
            co_await s->settle();
            EXPECT_NE(s->room().clean_clusters(), 0u);
            EXPECT_NE(super_of(m.disk()).clean, 0u);
            co_await write_pattern(l, *s, id, 0, blocks, 'w');
            EXPECT_EQ(super_of(m.disk()).clean, 0u);
            before = co_await describe(l, *s);
            co_await s->abandon();
        });
        ASSERT_TRUE(outcome) << outcome.error().message();
        EXPECT_EQ(before, shown_without_power(m)) << (cache ? "with" : "without") << " a cache";
    }
}

task<> map_something_after(life& l, store& s, blob_id id, uint64_t index, time_ns wait) {
    co_await sleep(wait);
    co_await as_result(write_pattern(l, s, id, index * blocks, 1, 'x', false));  // they share a device, which goes
}

// The device takes so long that saving is due again and again while a blob goes.
TEST(store_unsaved, may_be_due_for_saving_twice_while_its_blob_is_removed) {
    sim_machine m(1, 2 << 20, {.volatile_cache = true});
    auto outcome = m.live([&](life& l) -> task<> {
        auto s = co_await store::init(l.devices, l.base(), small);
        blob_id id = co_await s->create({.clusters = 20, .thin = true});
        blob_id other = co_await s->create({.clusters = 20, .thin = true});
        co_await write_pattern(l, *s, id, 0, blocks, 'a', false);
        const env::sim::disk_options usual = m.disk().options();
        m.disk().options().latency_min = 1000 * milliseconds;
        m.disk().options().latency_max = m.disk().options().flush_latency_max = 1001 * milliseconds;
        crew all;
        all.start(s->remove(id));
        for (unsigned i = 0; i < 4; ++i) {
            all.start(map_something_after(l, *s, other, i, (500 + 1000 * i) * milliseconds));
        }
        co_await all.done();
        m.disk().options() = usual;
        co_await unload_sound(*s);
    });
    EXPECT_TRUE(outcome) << outcome.error().message();
}

task<> read_one(life& l, store& s, blob_id id) {
    auto d = co_await l.serve(s, id);
    data_bytes memory(512);
    co_await bdev::read(*d.channel(), 0, memory);
}

// What the first blob has given up waits for a request that does not end, and its chores with it.
TEST(store_unsaved, of_one_blob_does_not_wait_for_another) {
    sim_machine m(1, 2 << 20, {.volatile_cache = true});
    auto outcome = m.live([&](life& l) -> task<> {
        auto s = co_await store::init(l.devices, l.base(), small);
        blob_id stuck = co_await s->create({.clusters = 20, .thin = true});
        blob_id other = co_await s->create({.clusters = 20, .thin = true});
        co_await write_pattern(l, *s, stuck, 0, 2 * blocks, 'a');
        m.disk().inject({.what = env::sim::disk_fault::effect::stuck, .kind = env::file_op_kind::read});
        crew reading;
        reading.start(read_one(l, *s, stuck));
        while (m.disk().stuck() == 0) co_await yield();
        auto d = co_await l.serve(*s, stuck);
        auto e = co_await l.serve(*s, other);
        {
            auto io = d.channel(), its = e.channel();
            data_bytes memory(512);
            co_await bdev::unmap(*io, blocks, blocks);
            co_await bdev::flush(*io);
            EXPECT_TRUE(s->find(stuck)->releasing);
            co_await bdev::write(*io, 2 * blocks, memory);
            co_await bdev::write(*its, 0, memory);
            EXPECT_FALSE(s->find(other)->unsaved_extents.empty());
            co_await sleep(3 * seconds);
            EXPECT_TRUE(s->find(other)->unsaved_extents.empty()) << "the other was not saved";
            m.disk().release_stuck();
            co_await reading.done();
            co_await sleep(3 * seconds);
            EXPECT_TRUE(s->find(stuck)->unsaved_extents.empty()) << "it was forgotten";
        }
        d.close();
        e.close();
        co_await l.stop_serving(stuck);
        co_await l.stop_serving(other);
        co_await unload_sound(*s);
    });
    EXPECT_TRUE(outcome) << outcome.error().message();
}

}  // namespace
}  // namespace varve::blob
