// Unmap and write-zeroes: what is given back, when, and what is read meanwhile and afterwards.
#include <gtest/gtest.h>

#include <atomic>

#include "bdev/test_device.h"
#include "blob/test_check.h"
#include "blob/test_store.h"
#include "thread/awaits.h"
#include "thread/test_world.h"

namespace varve::blob {
namespace {

constexpr uint32_t cluster = 16 * 1024, blocks = cluster / 512;
constexpr uint64_t disk_bytes = 4 << 20;
const init_options small{.cluster_size = cluster};

template <class Body>
void on_a_disk(Body body) {
    for (bool cached : {false, true}) {
        SCOPED_TRACE(cached ? "with a volatile cache" : "without a volatile cache");
        sim_machine m(thread::test_seed(), disk_bytes, {.volatile_cache = cached});
        auto outcome = m.live([&](life& l) { return body(l, m.disk()); });
        EXPECT_TRUE(outcome) << outcome.error().message();
    }
}
#define DISCARD_TEST(name)                                                                                   \
    task<> name(life& l, env::sim::disk& disk);                                                              \
    TEST(discard, name) {                                                                                    \
        thread::for_each_seed([] { on_a_disk([](life& l, env::sim::disk& d) { return name(l, d); }); }, 10); \
    }                                                                                                        \
    task<> name([[maybe_unused]] life& l, [[maybe_unused]] env::sim::disk& disk)

std::vector<std::byte> bytes_of(char c, std::size_t n) { return std::vector<std::byte>(n, static_cast<std::byte>(c)); }

// A volume with a channel open; close() before the store goes.
struct volume {
    life& l;
    store& s;
    blob_id id;
    bdev::descriptor d;
    bdev::channel_ref io;

    static task<volume> open(life& l, store& s, blob_id id) {
        auto d = co_await l.serve(s, id);
        auto io = d.channel();
        co_return volume{l, s, id, std::move(d), std::move(io)};
    }
    task<> close() {
        io = {};
        d.close();
        return l.stop_serving(id);
    }
    task<> fill(uint64_t first, uint64_t clusters, char c) {
        auto data = bytes_of(c, clusters * cluster);
        co_await bdev::write(*io, first * blocks, data);
    }
    task<> flush() {
        co_await bdev::flush(*io);
        co_await s.settle();
    }
    uint64_t own() const { return s.find(id)->allocated; }
    // Every byte of a range is that.
    task<> expect(uint64_t lba, uint32_t count, char c) {
        std::vector<std::byte> back(std::size_t{count} * 512);
        co_await bdev::read(*io, lba, back);
        EXPECT_TRUE(back == bytes_of(c, back.size())) << "blocks " << lba << " + " << count;
    }
};

// The only one of its store.
struct lone_volume {
    std::unique_ptr<store> s;
    volume v;

    static task<lone_volume> make(life& l, blob_options how) {
        auto s = co_await store::init(l.devices, l.base(), small);
        volume v = co_await volume::open(l, *s, co_await s->create(how));
        co_return lone_volume{std::move(s), std::move(v)};
    }
};

DISCARD_TEST(whole_clusters_are_given_back_and_parts_are_zeroed) {
    auto s = co_await store::init(l.devices, l.base(), small);
    blob_id id = co_await s->create({.clusters = 20, .thin = true});
    for (bool zeroes : {false, true}) {
        volume v = co_await volume::open(l, *s, id);
        co_await v.fill(0, 10, 'd');
        co_await v.flush();
        EXPECT_EQ(v.own(), 10u);
        // The end of cluster 1, all of 2 to 6, the beginning of 7; and what was never there.
        const uint64_t first = 2 * blocks - 5;
        const uint32_t count = 5 + 5 * blocks + 7;
        co_await (zeroes ? bdev::write_zeroes(*v.io, first, count) : bdev::unmap(*v.io, first, count));
        co_await (zeroes ? bdev::write_zeroes(*v.io, 12 * blocks, 8 * blocks)
                         : bdev::unmap(*v.io, 12 * blocks, 8 * blocks));
        EXPECT_EQ(v.own(), 5u);
        co_await v.expect(0, static_cast<uint32_t>(first), 'd');
        co_await v.expect(first, count, 0);
        co_await v.expect(first + count, blocks - 7, 'd');
        co_await v.expect(9 * blocks, blocks, 'd');
        co_await v.flush();
        EXPECT_EQ(s->free_clusters(), s->data_clusters() - 5);
        // One alone, as hosts ask for it, too.
        co_await (zeroes ? bdev::write_zeroes(*v.io, 9 * blocks, blocks) : bdev::unmap(*v.io, 9 * blocks, blocks));
        co_await v.flush();
        EXPECT_EQ(s->free_clusters(), s->data_clusters() - 4);
        expect_sound(*s);
        co_await v.close();
        co_await (zeroes ? s->unload() : s->abandon());
        s.reset();
        s = co_await store::load(l.devices, l.base(), {});
        EXPECT_EQ(s->find(id)->allocated, 4u);
        EXPECT_EQ(s->free_clusters(), s->data_clusters() - 4);
        volume w = co_await volume::open(l, *s, id);
        co_await w.expect(first, count, 0);
        co_await w.close();
    }
    co_await s->unload();
}

DISCARD_TEST(what_a_parent_has_does_not_come_back) {
    auto [s, v] = co_await lone_volume::make(l, {.clusters = 10, .thin = true});
    co_await v.fill(0, 6, 'p');
    blob_ref b = co_await s->open(v.id);
    co_await s->snapshot(b, {});
    b.close();
    co_await v.fill(0, 3, 'c');
    co_await v.fill(8, 1, 'c');
    co_await bdev::unmap(*v.io, 0, 10 * blocks);
    co_await v.flush();
    EXPECT_EQ(v.own(), 3u) << "what nothing older is below is given back";
    co_await v.expect(0, 3 * blocks, 0);
    co_await v.expect(3 * blocks, 3 * blocks, 'p');  // nothing of its own was there
    co_await v.expect(6 * blocks, 4 * blocks, 0);
    co_await bdev::write_zeroes(*v.io, 3 * blocks + 4, 7 * blocks - 4);
    co_await v.expect(3 * blocks, 4, 'p');
    co_await v.expect(3 * blocks + 4, 7 * blocks - 4, 0);
    EXPECT_EQ(v.own(), 6u);
    co_await v.flush();
    expect_sound(*s);
    co_await v.close();
    co_await s->unload();
}

DISCARD_TEST(a_thick_blob_keeps_its_clusters) {
    auto [s, v] = co_await lone_volume::make(l, {.clusters = 10});
    co_await v.fill(0, 10, 't');
    co_await bdev::unmap(*v.io, 3, 3 * blocks);
    co_await bdev::write_zeroes(*v.io, 5 * blocks, blocks);
    co_await v.expect(3, 3 * blocks, 0);
    co_await v.expect(3 * blocks + 3, 2 * blocks - 3, 't');
    co_await v.expect(5 * blocks, blocks, 0);
    co_await v.flush();
    EXPECT_EQ(v.own(), 10u);
    EXPECT_EQ(s->free_clusters(), s->data_clusters() - 10);
    co_await v.close();
    co_await s->unload();
}

DISCARD_TEST(nothing_is_given_back_while_the_blob_is_inflated) {
    auto [s, v] = co_await lone_volume::make(l, {.clusters = 10, .thin = true});
    co_await v.fill(0, 5, 'i');
    blob_ref b = co_await s->open(v.id);
    jobs::job j;
    j.pause();
    {
        crew inflating;
        inflating.start(s->inflate(b, j));
        co_await bdev::unmap(*v.io, 0, 3 * blocks);
        EXPECT_EQ(v.own(), 5u);
        j.resume();
        co_await inflating.done();
    }
    EXPECT_EQ(v.own(), 10u);
    EXPECT_FALSE(b.thin());
    b.close();
    co_await v.expect(0, 3 * blocks, 0);
    co_await v.expect(3 * blocks, 2 * blocks, 'i');
    co_await v.close();
    co_await s->unload();
}

// Of another volume; whether the discard has not begun, is under way, or is not on the media yet.
DISCARD_TEST(a_write_to_a_full_store_waits_for_discards) {
    auto s = co_await store::init(l.devices, l.base(), small);
    blob_id id = co_await s->create({.clusters = 8, .thin = true}),
            other = co_await s->create({.clusters = 8, .thin = true});
    volume v = co_await volume::open(l, *s, id), w = co_await volume::open(l, *s, other);
    co_await v.fill(0, 8, 'f');
    co_await v.flush();
    co_await s->create({.clusters = s->free_clusters()});
    co_await bdev::unmap(*v.io, 0, 2 * blocks);
    EXPECT_TRUE(co_await as_result(w.fill(0, 2, 'w')));
    for (uint64_t i = 2; i < 6; ++i) {
        crew both;
        both.start(bdev::unmap(*v.io, i * blocks, blocks));
        for (uint64_t n = 0; n < thread::test_seed() * 4 % 20; ++n) co_await yield();
        both.start(w.fill(i, 1, 'w'));
        co_await both.done();
    }
    co_await w.expect(0, 6 * blocks, 'w');
    auto refused = co_await as_result(w.fill(6, 1, 'x'));
    EXPECT_EQ(refused.error().code(), errc::no_space);
    co_await v.flush();
    expect_sound(*s);
    co_await v.close();
    co_await w.close();
    co_await s->unload();
}

DISCARD_TEST(a_full_store_takes_writes_as_soon_as_something_was_given_back) {
    auto s = co_await store::init(l.devices, l.base(), small);
    const uint32_t all = s->free_clusters();
    blob_id id = co_await s->create({.clusters = all + 4, .thin = true}),
            other = co_await s->create({.clusters = 4, .thin = true});
    volume v = co_await volume::open(l, *s, id), w = co_await volume::open(l, *s, other);
    co_await v.fill(0, all, 'f');
    auto refused = co_await as_result(v.fill(all, 1, 'x'));
    EXPECT_EQ(refused.error().code(), errc::no_space);
    co_await bdev::unmap(*v.io, 0, 3 * blocks);
    if (l.devices.find("base")->props().write_cache) co_await bdev::flush(*v.io);
    co_await v.fill(all, 1, 'x');
    co_await w.fill(0, 2, 'y');
    refused = co_await as_result(w.fill(2, 1, 'y'));
    EXPECT_EQ(refused.error().code(), errc::no_space);
    co_await v.expect(all * blocks, blocks, 'x');
    co_await v.expect(0, 3 * blocks, 0);
    co_await w.expect(0, 2 * blocks, 'y');
    co_await v.flush();
    expect_sound(*s);
    co_await v.close();
    co_await w.close();
    co_await s->unload();
}

DISCARD_TEST(many_clusters_cost_few_writes) {
    auto s = co_await store::init(l.devices, l.base(), {.cluster_size = 4096, .md_page_count = 200, .trim = false});
    blob_id id = co_await s->create({.clusters = 1 << 20, .thin = true});
    volume v = co_await volume::open(l, *s, id);
    co_await bdev::write(*v.io, 0, bytes_of('m', 700 * 4096));
    co_await v.flush();
    EXPECT_EQ(v.own(), 700u);
    uint64_t before = disk.ops_issued();
    co_await bdev::unmap(*v.io, 0, (1 << 20) * 8);
    co_await v.flush();
    EXPECT_EQ(v.own(), 0u);
    EXPECT_EQ(s->free_clusters(), s->data_clusters());
    EXPECT_LE(disk.ops_issued() - before, 12u);
    before = disk.ops_issued();
    const uint32_t pages = s->room().free_pages();
    co_await bdev::write_zeroes(*v.io, 0, (1 << 20) * 8);
    co_await s->settle();
    EXPECT_EQ(disk.ops_issued(), before) << "there was nothing to zero";
    EXPECT_EQ(s->room().free_pages(), pages);
    co_await v.close();
    co_await s->unload();
}

// What the media still names must not become another's, whatever happens to the power.
DISCARD_TEST(nothing_is_free_before_the_metadata_says_so) {
    if (!l.devices.find("base")->props().write_cache) co_return;
    auto [s, v] = co_await lone_volume::make(l, {.clusters = 4, .thin = true});
    co_await v.fill(0, 4, 'n');
    co_await v.flush();
    co_await bdev::unmap(*v.io, 0, 4 * blocks);
    co_await s->settle();
    EXPECT_EQ(s->free_clusters(), s->data_clusters() - 4);
    co_await v.flush();
    EXPECT_EQ(s->free_clusters(), s->data_clusters());
    co_await v.close();
    co_await s->unload();
}

DISCARD_TEST(a_blob_may_be_removed_with_clusters_on_their_way) {
    auto [s, v] = co_await lone_volume::make(l, {.clusters = 10, .thin = true});
    co_await v.fill(0, 8, 'r');
    co_await bdev::unmap(*v.io, 0, 4 * blocks);
    co_await v.close();
    co_await s->remove(v.id);
    co_await s->settle();
    EXPECT_EQ(s->free_clusters(), s->data_clusters());
    expect_sound(*s);
    co_await s->unload();
}

// What was mapped is saved although nobody flushes; and when all is saved nothing happens any more.
DISCARD_TEST(mappings_are_saved_after_a_while) {
    auto s = co_await store::init(l.devices, l.base(), {.cluster_size = cluster, .trim = false});
    blob_id id = co_await s->create({.clusters = 10, .thin = true});
    volume v = co_await volume::open(l, *s, id);
    co_await v.fill(0, 4, 's');
    co_await bdev::unmap(*v.io, 0, 2 * blocks);
    const bool cached = l.devices.find("base")->props().write_cache;
    EXPECT_EQ(s->find(id)->unsaved.load(), cached);
    co_await sleep(1500 * milliseconds);
    co_await s->settle();
    EXPECT_FALSE(s->find(id)->unsaved.load());
    EXPECT_EQ(s->free_clusters(), s->data_clusters() - 2);
    const uint64_t before = disk.ops_issued();
    co_await sleep(10'000 * milliseconds);
    EXPECT_EQ(disk.ops_issued(), before);
    co_await v.close();
    co_await s->abandon();
    s.reset();
    s = co_await store::load(l.devices, l.base(), {});
    EXPECT_EQ(s->find(id)->allocated, 2u);
    co_await s->unload();
}

// --- threads

bdev::properties base_of(uint64_t count, bool cached) {
    bdev::properties p;
    p.name = "base";
    p.num_blocks = count;
    p.offered = bdev::op_bit(bdev::op::read) | bdev::op_bit(bdev::op::write) | bdev::op_bit(bdev::op::unmap) |
                bdev::op_bit(bdev::op::write_zeroes) | bdev::op_bit(bdev::op::flush);
    p.write_cache = cached;
    p.unmap_zeroes = true;
    return p;
}
task<bdev::descriptor> serve(bdev::bdev_system& s, store& st, blob_id id, std::string name) {
    auto made = std::make_unique<blob_device>(co_await st.open(id), name);
    blob_device* volume = made.get();
    co_await s.devices.add(std::move(made));
    volume->blob.serve_through(volume);
    co_return co_await s.devices.open(name, bdev::open_mode::read_write, {});
}

// A write that has found the cluster is still under way when it is given up: nobody may get it before that write ends.
task<> old_writes_are_waited_for(bdev::bdev_system& s, bool cached) {
    bdev::ram_device& base = *co_await s.add(base_of(16384, cached));
    auto st = co_await store::init(s.devices, *s.open(base), {.cluster_size = cluster, .trim = false});
    blob_id id = co_await st->create({.clusters = 4, .thin = true});
    auto d = co_await serve(s, *st, id, "volume");
    thread::thread* other = *s.system.rt->create_thread("io");
    auto data = bytes_of('o', 512);
    {
        auto io = d.channel();
        co_await bdev::write(*io, 0, data);
        co_await bdev::flush(*io);
        std::atomic<bdev::ram_channel*> theirs = nullptr;
        crew late;
        auto write_late = [](bdev::descriptor& to, bdev::ram_device& below, std::span<std::byte> what,
                             std::atomic<bdev::ram_channel*>& mine) -> task<> {
            auto channel = to.channel();
            std::vector<std::byte> back(512);
            co_await bdev::read(*channel, 0, back);  // the channel is let in
            mine.store(below.opened);
            below.behaviour.keep = true;
            co_await bdev::write(*channel, 1, what);
        };
        late.start(call_on(*other, [&] { return write_late(d, base, data, theirs); }));
        auto has_kept = [&theirs]() -> task<bool> {
            bdev::ram_channel* c = theirs.load();
            co_return c != nullptr && c->kept() != 0;
        };
        while (!co_await call_on(*other, has_kept)) co_await yield();
        base.behaviour.keep = false;
        co_await bdev::unmap(*io, 0, blocks);
        co_await bdev::flush(*io);
        for (int i = 0; i < 200; ++i) co_await yield();
        EXPECT_EQ(st->find(id)->allocated, 0u);
        EXPECT_EQ(st->free_clusters(), st->data_clusters() - 1) << "a write is under way to it";
        auto let_go = [](bdev::ram_channel& of) -> task<> {
            of.let_go();
            co_return;
        };
        co_await call_on(*other, [&] { return let_go(*theirs); });
        co_await late.done();
        co_await st->settle();
        EXPECT_EQ(st->free_clusters(), st->data_clusters());
    }
    s.system.rt->destroy_thread(*other);
    d.close();
    co_await s.devices.remove("volume");
    co_await st->unload();
}

// Two volumes in a store that is nearly full give up and take clusters all the time: nobody reads what is not his.
task<> give_and_take(bdev::descriptor& d, unsigned seed, unsigned rounds, uint64_t clusters) {
    auto io = d.channel();
    std::vector<unsigned> written(clusters);
    for (unsigned n = 1; n <= rounds; ++n) {
        const unsigned at = (n * 7 + seed * 3) % clusters;
        if (n % 3 == 0) {
            co_await (n % 2 == 0 ? bdev::unmap(*io, at * blocks, blocks)
                                 : bdev::write_zeroes(*io, at * blocks, blocks));
            written[at] = 0;
        } else if (auto outcome =
                       co_await as_result(bdev::write(*io, at * blocks + 4, bdev::pattern(8 * 512, seed * 1000 + n)))) {
            written[at] = seed * 1000 + n;
        } else {
            EXPECT_EQ(outcome.error().code(), errc::no_space);
        }
        const unsigned look = (n * 5) % clusters;
        std::vector<std::byte> back(8 * 512), expected(back.size());
        co_await bdev::read(*io, look * blocks + 4, back);
        if (written[look] != 0) expected = bdev::pattern(back.size(), written[look]);
        EXPECT_TRUE(back == expected) << "cluster " << look << " of volume " << seed << " in round " << n;
    }
    co_await bdev::flush(*io);
}

task<> clusters_change_hands(bdev::bdev_system& s, unsigned rounds, bool cached) {
    bdev::ram_device& base = *co_await s.add(base_of(1024, cached));
    auto st = co_await store::init(s.devices, *s.open(base), {.cluster_size = cluster, .md_page_count = 80});
    const uint64_t each = st->free_clusters() * 2 / 3;
    std::vector<bdev::descriptor> volumes;
    std::vector<thread::thread*> others;
    for (unsigned i = 0; i < 2; ++i) {
        blob_id id = co_await st->create({.clusters = each, .thin = true});
        volumes.push_back(co_await serve(s, *st, id, "volume" + std::to_string(i)));
        others.push_back(*s.system.rt->create_thread("io" + std::to_string(i)));
    }
    {
        crew load;
        for (unsigned i = 0; i < 2; ++i) {
            load.start(call_on(*others[i], [&, i] { return give_and_take(volumes[i], i + 1, rounds, each); }));
        }
        co_await load.done();
    }
    co_await st->settle();
    expect_sound(*st);
    for (unsigned i = 0; i < 2; ++i) {
        s.system.rt->destroy_thread(*others[i]);
        volumes[i].close();
        co_await s.devices.remove("volume" + std::to_string(i));
    }
    co_await st->unload();
}

// SPDK hands clusters of a store that was unloaded to thin volumes without clearing them.
DISCARD_TEST(what_was_given_back_is_clear_when_the_store_is_unloaded) {
    enum class way : uint8_t { removed, smaller, unmapped, crashed };
    for (way how : {way::removed, way::smaller, way::unmapped, way::crashed}) {
        auto s = co_await store::init(l.devices, l.base(), {.cluster_size = cluster, .trim = false});
        blob_id ids[2];
        for (blob_id& id : ids) id = co_await s->create({.clusters = 20, .thin = true});
        volume v = co_await volume::open(l, *s, ids[0]), other = co_await volume::open(l, *s, ids[1]);
        std::vector<uint64_t> places;
        for (uint64_t i = 0; i < 20; ++i) {  // in turns, so that what becomes free lies scattered
            co_await v.fill(i, 1, 'd');
            co_await other.fill(i, 1, 'k');
            places.push_back(v.s.find(v.id)->current->at(i) * uint64_t{cluster});
        }
        if (how != way::crashed) co_await v.flush();
        if (how == way::unmapped) co_await bdev::unmap(*v.io, 0, 20 * blocks);
        co_await v.close();
        co_await other.close();
        if (how == way::removed) co_await s->remove(v.id);
        if (how == way::smaller) {
            blob_ref b = co_await s->open(v.id);
            co_await s->resize(b, 0);
        }
        if (how == way::crashed) {
            co_await s->abandon();
            s = co_await store::load(l.devices, l.base(), {.trim = false});
            const blob_state& left = *s->find(v.id);
            std::erase_if(places, [&](uint64_t place) {
                for (uint64_t i = 0; i < 20; ++i) {
                    if (left.current->at(i) * uint64_t{cluster} == place) return true;
                }
                return false;
            });
        }
        co_await s->unload();
        s.reset();
        for (uint64_t place : places) {
            std::vector<std::byte> there(cluster);
            disk.peek_durable(place, there);
            EXPECT_TRUE(there == bytes_of(0, cluster)) << "at " << place << ", way " << static_cast<int>(how);
        }
    }
}

class discard_threads : public thread::in_every_world {};
INSTANTIATE_TEST_SUITE_P(worlds, discard_threads, thread::every_world(), thread::world_name);
TEST_P(discard_threads, old_writes_are_waited_for) {
    for (bool cached : {false, true}) {
        bdev::bdev_system s(GetParam(), 2);
        s.run(old_writes_are_waited_for(s, cached));
    }
}
TEST_P(discard_threads, clusters_change_hands) {
    for (bool cached : {false, true}) {
        bdev::bdev_system s(GetParam(), 2);
        s.run(clusters_change_hands(s, 500, cached));
    }
}
TEST(discard_threads_sim, clusters_change_hands) {
    thread::for_each_seed(
        [] {
            bdev::bdev_system s(thread::world_kind::sim, 2);
            s.run(clusters_change_hands(s, 100, thread::test_seed() % 2 == 0));
        },
        100);
}

}  // namespace
}  // namespace varve::blob
