// What a store makes of a medium that is slow, damaged, or said to be flushed.
#include <gtest/gtest.h>

#include <algorithm>

#include "blob/test_check.h"
#include "blob/test_store.h"
#include "thread/awaits.h"
#include "thread/test_world.h"

namespace varve::blob {
namespace {

constexpr uint32_t cluster = 16 * 1024, blocks = cluster / 512;
const init_options small{.cluster_size = cluster, .md_page_count = 100, .trim = false};

template <class Body>
void live(sim_machine& m, Body body) {
    auto outcome = m.live(body);
    EXPECT_TRUE(outcome) << outcome.error().message();
}

task<data_bytes> contents(life& l, store& s, blob_id id, uint64_t lba, std::size_t bytes) {
    data_bytes out(bytes);
    auto d = co_await l.serve(s, id);
    {
        auto io = d.channel();
        co_await bdev::read(*io, lba, out);
    }
    d.close();
    co_return out;
}
data_bytes all_of(char c, std::size_t bytes) { return data_bytes(bytes, static_cast<std::byte>(c)); }

// The next write to data takes long; whoever hands its cluster to somebody else has to wait for it.
void make_a_write_slow(env::sim::disk& d, const store& s) {
    d.inject({.what = env::sim::disk_fault::effect::slow,
              .kind = env::file_op_kind::write,
              .first = s.geometry().first_data_cluster * uint64_t{cluster},
              .delay = 10 * seconds});
}

task<> write_late(life& l, store& s, blob_id id, uint64_t lba, const data_bytes& data) {
    auto d = co_await l.serve(s, id);
    auto io = d.channel();
    co_await bdev::write(*io, lba, data);
}

using while_writing = task<> (*)(life&, store&, blob_ref&, crew& writing);
const data_bytes late = all_of('l', 4096);

// Somebody writes `late` there, slowly, to a blob of two clusters.
void with_a_slow_write(uint64_t lba, while_writing body) {
    sim_machine m(thread::test_seed(), 4 << 20, {.volatile_cache = thread::test_seed() % 2 == 0});
    live(m, [&](life& l) -> task<> {
        auto s = co_await store::init(l.devices, l.base(), small);
        blob_ref b = co_await s->open(co_await s->create({.clusters = 2}));
        make_a_write_slow(m.disk(), *s);
        crew writing;
        writing.start(write_late(l, *s, b.id(), lba, late));
        while (m.disk().in_flight() == 0) co_await yield();
        co_await body(l, *s, b, writing);
        b.close();
        for (blob_id each : s->blobs()) co_await l.stop_serving(each);
        co_await s->abandon();
    });
}

task<> a_snapshot_is_taken(life& l, store& s, blob_ref& b, crew& writing) {
    const blob_id made = co_await s.snapshot(b, {});
    const data_bytes then = co_await contents(l, s, made, 3, 4096);
    co_await writing.done();
    EXPECT_TRUE(then == co_await contents(l, s, made, 3, 4096)) << "the snapshot has changed";
    EXPECT_TRUE(late == co_await contents(l, s, b.id(), 3, 4096));
}
TEST(store_medium, a_snapshot_waits_for_writes_under_way) {
    thread::for_each_seed([] { with_a_slow_write(3, a_snapshot_is_taken); }, 20);
}

task<> its_cluster_is_cut_off(life& l, store& s, blob_ref& b, crew& writing) {
    co_await s.resize(b, 1);
    const blob_id other = co_await s.create({.clusters = 3});
    co_await as_result(writing.done());
    const data_bytes zeroes(3 * cluster);
    EXPECT_TRUE(zeroes == co_await contents(l, s, other, 0, zeroes.size())) << "of another blob";
}
TEST(store_medium, clusters_cut_off_are_nobodys_before_writes_have_ended) {
    thread::for_each_seed([] { with_a_slow_write(blocks + 3, its_cluster_is_cut_off); }, 20);
}

TEST(store_medium, a_flush_is_one_also_when_nothing_new_is_mapped) {
    sim_machine m(1, 4 << 20, {.volatile_cache = true});
    blob_id id{};
    live(m, [&](life& l) -> task<> {
        auto s = co_await store::init(l.devices, l.base(), small);
        id = co_await s->create({.clusters = 2});
        co_await write_pattern(l, *s, id, 0, 8, 'a', false);
        blob_ref b = co_await s->open(id);
        co_await s->flush(b);
        b.close();
        co_await s->abandon();
    });
    m.disk().cut_power(env::sim::cut_outcome::lose_all);
    live(m, [&](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), {.trim = false});
        EXPECT_TRUE(all_of('a', 4096) == co_await contents(l, *s, id, 0, 4096));
        co_await l.stop_serving(id);
        co_await s->abandon();
    });
}

// What lies beyond the end of a parent reads as zeroes, also when the parent has gone and what was below it is larger.
TEST(store_medium, a_larger_grandparent_does_not_show_through) {
    for (bool removed : {true, false}) {
        sim_machine m(1, 4 << 20, {.volatile_cache = false});
        live(m, [&](life& l) -> task<> {
            auto s = co_await store::init(l.devices, l.base(), small);
            blob_id id = co_await s->create({.clusters = 4, .thin = true});
            co_await write_pattern(l, *s, id, 0, 4 * blocks, 'g');
            blob_ref b = co_await s->open(id);
            co_await s->snapshot(b, {});
            co_await s->resize(b, 1);
            blob_id middle = co_await s->snapshot(b, {});
            co_await s->resize(b, 4);
            EXPECT_TRUE(data_bytes(4096) == co_await contents(l, *s, id, 2 * blocks, 4096));
            co_await l.stop_serving(id);
            if (removed) {
                b.close();
                co_await s->remove(middle);
            } else {
                jobs::job j;
                co_await s->decouple(b, j);
                b.close();
            }
            EXPECT_TRUE(data_bytes(4096) == co_await contents(l, *s, id, 2 * blocks, 4096)) << "removed " << removed;
            co_await l.stop_serving(id);
            co_await s->abandon();
        });
    }
}

// Three blobs, unloaded, loaded again, changed (not `victim`, of which the double-write area then knows nothing),
// crashed.
struct crashed_store {
    sim_machine machine{7, 4 << 20, {.volatile_cache = false}};
    blob_id other{}, victim{}, third{};
    std::vector<uint32_t> pages, extent_pages, clusters, clusters_of_third;
    format::geometry layout;

    crashed_store() {
        live(machine, [this](life& l) -> task<> {
            auto s = co_await store::init(l.devices, l.base(), small);
            layout = s->geometry();
            other = co_await s->create({.clusters = 2});
            victim = co_await s->create(
                {.clusters = 3, .xattrs = {{"a", std::string(3900, 'x')}, {"b", std::string(3900, 'x')}}});
            third = co_await s->create({.clusters = 2});
            co_await write_pattern(l, *s, other, 0, 8, 'o');
            co_await s->unload();
        });
        live(machine, [this](life& l) -> task<> {
            auto s = co_await store::load(l.devices, l.base(), {.trim = false});
            blob_ref b = co_await s->open(other);
            co_await s->set_xattr(b, "changed", "yes");
            b.close();
            const blob_state& v = *s->find(victim);
            for (uint32_t p : v.record.pages) pages.push_back(p);
            extent_pages.assign(v.extent_pages.begin(), v.extent_pages.end());
            for (uint64_t i = 0; i < 3; ++i) clusters.push_back(v.current->at(i));
            for (uint64_t i = 0; i < 2; ++i) clusters_of_third.push_back(s->find(third)->current->at(i));
            co_await s->abandon();
        });
    }
    void flip(uint32_t page, uint64_t byte) { machine.disk().flip_bit(layout.offset_of_md_page(page) + byte, 3); }

    // The victim is set aside with a reason that holds `why`, what it owns stays its own, and the rest is served.
    void expect_set_aside(std::string_view why, bool with_third = false) {
        live(machine, [&](life& l) -> task<> {
            auto s = co_await store::load(l.devices, l.base(), {.trim = false});
            const blob_state* b = s->find(victim);
            EXPECT_TRUE(b != nullptr && b->set_aside());
            if (b != nullptr) EXPECT_NE(b->damage.find(why), std::string::npos) << b->damage;
            EXPECT_EQ(s->find(third)->set_aside(), with_third);
            EXPECT_FALSE(s->open(victim));
            EXPECT_TRUE(all_of('o', 4096) == co_await contents(l, *s, other, 0, 4096));
            co_await l.stop_serving(other);
            blob_id all = co_await s->create({.clusters = s->free_clusters()});
            for (uint64_t i = 0; i < s->find(all)->current->size; ++i) {
                uint32_t c = s->find(all)->current->at(i);
                EXPECT_EQ(std::ranges::count(clusters, c), 0) << "cluster " << c << " was given away";
            }
            co_await s->abandon();
        });
    }
};

TEST(store_medium, a_damaged_root_page) {
    crashed_store s;
    s.flip(s.pages[0], 300);
    s.expect_set_aside("damaged");
}
TEST(store_medium, a_damaged_page_of_a_chain) {
    crashed_store s;
    ASSERT_GT(s.pages.size(), 1u);
    s.flip(s.pages[1], 500);  // inside the value of the attribute: only the checksum tells
    s.expect_set_aside("damaged");
}
TEST(store_medium, a_damaged_extent_page) {
    crashed_store s;
    s.flip(s.extent_pages[0], 60);
    s.expect_set_aside("");
}
TEST(store_medium, a_cluster_of_two_blobs) {
    crashed_store s;
    s.clusters[1] = s.clusters_of_third[1];
    format::page_bytes page = format::encode_extent_page({.id = s.victim, .first_cluster = 0, .clusters = s.clusters});
    s.machine.disk().poke(s.layout.offset_of_md_page(s.extent_pages[0]), page);
    s.expect_set_aside("is also in blob", true);
}

}  // namespace
}  // namespace varve::blob
