// Blobs that were set aside: what they may own is nobody else's while they are there, they can be removed, and that
// harms nobody. And removing what is large.
#include <gtest/gtest.h>

#include "blob/format/page.h"
#include "blob/test_check.h"
#include "blob/test_store.h"
#include "thread/awaits.h"
#include "thread/test_world.h"

namespace varve::blob {
namespace {

constexpr uint32_t cluster = 16 * 1024;
const init_options small{.cluster_size = cluster, .trim = false};

using page = std::array<std::byte, format::page_size>;

struct patient {
    patient() : machine(1, 4 << 20, {.volatile_cache = false}) {}
    void live(task<> (*body)(patient&, life&)) {
        auto outcome = machine.live([&](life& l) { return body(*this, l); });
        EXPECT_TRUE(outcome) << outcome.error().message();
    }
    void poke(const store& s, uint32_t at, const format::page_bytes& bytes) {
        machine.disk().poke(s.geometry().offset_of_md_page(at), bytes);
    }
    sim_machine machine;
    blob_id a = 0, b = 0, c = 0;
};

task<> three_blobs(patient& p, life& l) {
    auto s = co_await store::init(l.devices, l.base(), small);
    p.a = co_await s->create({.clusters = 3, .xattrs = {{"name", "a"}}});
    p.b = co_await s->create({.clusters = 3, .xattrs = {{"name", "b"}}});
    p.c = co_await s->create({.clusters = 2, .xattrs = {{"name", "c"}}});
    co_await write_pattern(l, *s, p.a, 0, 96, 'a');
    co_await write_pattern(l, *s, p.c, 0, 64, 'c');
    co_await s->unload();
}

void in_three_lives(task<> (*harm)(patient&, life&), task<> (*help)(patient&, life&)) {
    patient p;
    for (auto life_of : {three_blobs, harm, help}) p.live(life_of);
    EXPECT_EQ(fsck(p.machine.disk(), true), "");
}

// Cluster 1 of b is said to be where a's cluster 1 is.
task<> b_claims_what_a_has(patient& p, life& l) {
    auto s = co_await store::load(l.devices, l.base(), {.trim = false});
    const blob_state &a = *s->find(p.a), &b = *s->find(p.b);
    std::vector<uint32_t> clusters{b.current->at(0), a.current->at(1), b.current->at(2)};
    p.poke(*s, b.extent_pages[0], format::encode_extent_page({.id = b.id, .first_cluster = 0, .clusters = clusters}));
    co_await s->abandon();
}

task<> removing_b_leaves_a_alone(patient& p, life& l) {
    auto s = co_await store::load(l.devices, l.base(), {.trim = false});
    EXPECT_TRUE(s->find(p.a)->set_aside());
    EXPECT_TRUE(s->find(p.b)->set_aside());
    EXPECT_FALSE(s->find(p.c)->set_aside());
    EXPECT_EQ(s->open(p.a).error().code(), errc::io);
    EXPECT_EQ(s->free_clusters(), s->data_clusters() - 8) << "also what b has lost may be somebody's";
    co_await s->remove(p.b);
    EXPECT_EQ(s->find(p.b), nullptr);
    EXPECT_EQ(s->free_clusters(), s->data_clusters() - 6) << "its own two are free; of the rest a may know";
    // Whoever takes all there is gets nothing of a's.
    blob_id greedy = co_await s->create({.clusters = s->free_clusters()});
    for (uint64_t i = 0; i < s->find(greedy)->current->size; ++i) {
        for (uint64_t n = 0; n < 3; ++n) EXPECT_NE(s->find(greedy)->current->at(i), s->find(p.a)->current->at(n));
    }
    co_await s->remove(greedy);
    co_await s->unload();
    s.reset();
    s = co_await store::load(l.devices, l.base(), {.trim = false});
    expect_sound(*s);
    EXPECT_EQ(s->blobs(), (std::vector<blob_id>{p.a, p.c}));
    std::vector<std::byte> back(3 * cluster);
    auto d = co_await l.serve(*s, p.a);
    {
        auto io = d.channel();
        co_await bdev::read(*io, 0, back);
    }
    EXPECT_TRUE(back == std::vector<std::byte>(back.size(), std::byte{'a'}));
    d.close();
    co_await l.stop_serving(p.a);
    co_await s->set_super_blob(p.a);  // a change: the masks are written anew
    co_await s->unload();
}

TEST(damage, one_of_two_that_claim_a_cluster_can_be_removed) {
    in_three_lives(b_claims_what_a_has, removing_b_leaves_a_alone);
}

task<> b_cannot_be_read(patient& p, life& l) {
    auto s = co_await store::load(l.devices, l.base(), {.trim = false});
    format::page_bytes root{};
    root.fill(std::byte{0x55});
    const uint32_t at = format::root_page_of(p.b);
    co_await s->abandon();
    p.poke(*s, at, root);
}

task<> what_b_may_have_is_kept_until_it_goes(patient& p, life& l) {
    auto s = co_await store::load(l.devices, l.base(), {.trim = false});
    EXPECT_TRUE(s->find(p.b)->set_aside());
    EXPECT_EQ(s->free_clusters(), s->data_clusters() - 8);
    const uint32_t pages = s->room().free_pages();
    co_await s->remove(p.b);
    EXPECT_EQ(s->free_clusters(), s->data_clusters() - 5);
    EXPECT_EQ(s->room().free_pages(), pages + 2) << "its root and its extent page";
    expect_sound(*s);
    auto again = co_await as_result(s->remove(p.b));
    EXPECT_EQ(again.error().code(), errc::not_found);
    blob_id next = co_await s->create({.clusters = 3});
    EXPECT_EQ(next, p.b) << "its page is free";
    co_await s->unload();
}

TEST(damage, what_an_unreadable_blob_may_have_is_free_when_it_is_removed) {
    in_three_lives(b_cannot_be_read, what_b_may_have_is_kept_until_it_goes);
}

task<> a_snapshot_is_damaged(patient& p, life& l) {
    auto s = co_await store::load(l.devices, l.base(), {.trim = false});
    blob_ref a = co_await s->open(p.a);
    p.b = co_await s->snapshot(a, {});
    a.close();
    co_await s->unload();
    format::page_bytes extents{};
    p.poke(*s, s->find(p.b)->extent_pages[0], extents);
}

task<> its_clone_goes_first(patient& p, life& l) {
    auto s = co_await store::load(l.devices, l.base(), {.trim = false});
    EXPECT_TRUE(s->find(p.a)->set_aside());
    auto first = co_await as_result(s->remove(p.b));
    EXPECT_EQ(first.error().code(), errc::busy);
    co_await s->remove(p.a);
    co_await s->remove(p.b);
    expect_sound(*s);
    EXPECT_EQ(s->free_clusters(), s->data_clusters() - 5);
    co_await s->unload();
}

TEST(damage, clones_of_a_damaged_snapshot_are_removed_before_it) {
    in_three_lives(a_snapshot_is_damaged, its_clone_goes_first);
}

task<> large(patient&, life& l) {
    auto s = co_await store::init(l.devices, l.base(), {.cluster_size = 4096, .md_page_count = 200, .trim = false});
    blob_id id = co_await s->create({.clusters = 100'000, .thin = true});
    co_await write_pattern(l, *s, id, 799'200, 800, 'l');
    EXPECT_EQ(s->find(id)->allocated, 100u);
    jobs::job j;
    {
        store::remains left;
        co_await s->remove(id, &left);
        EXPECT_EQ(s->find(id), nullptr);
        EXPECT_FALSE(left.must_be_cleared());
        crew removing;
        removing.start(s->release(std::move(left), j));
        EXPECT_LT(j.done(), 100u) << "not all at once";
        EXPECT_NE(co_await s->create({.clusters = 1}), id) << "its page is not free yet";
        co_await removing.done();
    }
    EXPECT_EQ(j.done(), 100u);
    EXPECT_EQ(j.total(), 100u);
    expect_sound(*s);
    EXPECT_EQ(co_await s->create({.clusters = 1}), id);
    co_await s->unload();
}
TEST(removal, takes_turns_with_others) { patient().live(large); }

// Nobody hears that there is no room because a removed blob is still being cleared.
task<> wanted_while_cleared(patient&, life& l) {
    auto s = co_await store::init(l.devices, l.base(), {.cluster_size = 4096, .md_page_count = 200, .trim = false});
    const uint64_t most = s->free_clusters() * 3 / 4;
    blob_id id = co_await s->create({.clusters = most, .clear = format::clear_method::write_zeroes});
    jobs::job j;
    store::remains left;
    co_await s->remove(id, &left);
    EXPECT_TRUE(left.must_be_cleared());
    j.pause();
    crew clearing;
    auto to_its_end = [](store& of, store::remains what, jobs::job& told) -> task<> {
        co_await as_result(of.release(std::move(what), told));
    };
    clearing.start(to_its_end(*s, std::move(left), j));
    co_await yield();
    EXPECT_LT(s->free_clusters(), most);
    blob_id next = co_await s->create({.clusters = most});
    EXPECT_EQ(s->find(next)->allocated, most);
    EXPECT_TRUE(j.cancelled());
    co_await clearing.done();
    expect_sound(*s);
    co_await s->unload();
}
TEST(removal, makes_room_for_who_wants_it) { patient().live(wanted_while_cleared); }

// --- unusual shapes

// Commits need a double-write area to be atomic; also a small store has room for one.
task<> few_pages(patient&, life& l) {
    for (uint32_t pages : {24u, 40u}) {
        auto s = co_await store::init(l.devices, l.base(), {.cluster_size = cluster, .md_page_count = pages});
        EXPECT_TRUE(s->super().extension->double_write.exists());
        blob_id id = co_await s->create({.clusters = 4, .thin = true, .xattrs = {{"name", std::string(3000, 'n')}}});
        co_await write_pattern(l, *s, id, 0, 128, 'f');
        co_await s->abandon();
        s.reset();
        s = co_await store::load(l.devices, l.base(), {});
        expect_sound(*s);
        EXPECT_EQ(s->find(id)->allocated, 4u);
        co_await s->unload();
    }
}
TEST(shape, a_store_with_few_pages_has_an_area) { patient().live(few_pages); }

task<> large_pages(bdev::bdev_system& sys) {
    bdev::properties p;
    p.name = "base";
    p.block_size = 4096;
    p.physical_block_size = 8192;
    p.num_blocks = 2048;
    p.offered |= bdev::op_bit(bdev::op::flush);
    p.write_cache = true;
    bdev::ram_device& base = *co_await sys.add(p);
    auto s = co_await store::init(sys.devices, *sys.open(base), {.cluster_size = 64 * 1024});
    EXPECT_EQ(s->geometry().md_page_size, 8192u);
    blob_id id = co_await s->create({.clusters = 600, .thin = true, .xattrs = {{"x", std::string(3900, 'x')}}});
    blob_ref b = co_await s->open(id);
    co_await s->set_xattr(b, "y", std::string(3900, 'y'));
    b.close();
    for (bool crash : {true, false}) {
        co_await (crash ? s->abandon() : s->unload());
        s.reset();
        s = co_await store::load(sys.devices, *sys.open(base), {});
        expect_sound(*s);
        EXPECT_EQ(s->find(id)->record.xattrs.find("y")->size(), 3900u);
    }
    co_await s->unload();
}
TEST(shape, metadata_pages_may_be_larger_than_4096) {
    bdev::bdev_system sys(thread::world_kind::epoll);
    sys.run(large_pages(sys));
}

}  // namespace
}  // namespace varve::blob
