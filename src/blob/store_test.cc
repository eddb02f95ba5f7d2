// What a store does when nothing goes wrong, and what it says when something is asked that cannot be.
#include "blob/store.h"

#include <gtest/gtest.h>

#include "blob/test_store.h"
#include "thread/awaits.h"
#include "thread/test_world.h"

namespace varve::blob {
namespace {

constexpr uint32_t cluster = 16 * 1024;
const init_options small{.cluster_size = cluster, .type = "TEST"};
constexpr uint64_t disk_bytes = 4 << 20;

template <class Body>
void on_a_disk(Body body) {
    for (bool cached : {false, true}) {
        SCOPED_TRACE(cached ? "with a volatile cache" : "without a volatile cache");
        sim_machine m(thread::test_seed(), disk_bytes, {.volatile_cache = cached});
        auto outcome = m.live(body);
        EXPECT_TRUE(outcome) << outcome.error().message();
    }
}
#define STORE_TEST(name)                                                               \
    task<> name(life& l);                                                              \
    TEST(store, name) {                                                                \
        thread::for_each_seed([] { on_a_disk([](life& l) { return name(l); }); }, 20); \
    }                                                                                  \
    task<> name(life& l)

template <class T>
task<errc> code_of(task<T> t) {
    auto outcome = co_await as_result(std::move(t));
    co_return outcome ? errc::ok : outcome.error().code();
}

data_bytes bytes_of(char c, std::size_t n) { return data_bytes(n, static_cast<std::byte>(c)); }

STORE_TEST(an_empty_store_is_loaded_as_it_was_left) {
    auto s = co_await store::init(l.devices, l.base(), small);
    uint32_t free = s->free_clusters();
    EXPECT_EQ(free, s->data_clusters());
    co_await s->unload();
    s.reset();
    s = co_await store::load(l.devices, l.base(), {.type = "TEST"});
    EXPECT_EQ(s->free_clusters(), free);
    EXPECT_TRUE(s->blobs().empty());
    EXPECT_TRUE(s->super().clean);
    co_await s->unload();
    s.reset();
    EXPECT_EQ(co_await code_of(store::load(l.devices, l.base(), {.type = "OTHER"})), errc::invalid);
}

STORE_TEST(there_is_no_store_on_a_disk_of_zeroes) {
    EXPECT_EQ(co_await code_of(store::load(l.devices, l.base(), {})), errc::bad_sequence);
}

STORE_TEST(blobs_are_found_again) {
    auto s = co_await store::init(l.devices, l.base(), small);
    blob_id thick = co_await s->create({.clusters = 5, .xattrs = {{"name", "thick"}}});
    blob_id thin = co_await s->create({.clusters = 2000, .thin = true, .xattrs = {{"name", "thin"}}});
    blob_id none = co_await s->create({});
    EXPECT_EQ(s->free_clusters(), s->data_clusters() - 5);
    co_await s->set_super_blob(thin);
    for (int pass = 0; pass < 2; ++pass) {
        if (pass == 0) {
            co_await s->unload();
        } else {
            co_await s->abandon();  // a crash that loses nothing
        }
        s.reset();
        s = co_await store::load(l.devices, l.base(), {});
        EXPECT_EQ(s->blobs(), (std::vector<blob_id>{thick, thin, none}));
        EXPECT_EQ(s->super_blob(), thin);
        EXPECT_EQ(s->free_clusters(), s->data_clusters() - 5);
        blob_ref a = co_await s->open(thick), b = co_await s->open(thin);
        EXPECT_EQ(a.clusters(), 5u);
        EXPECT_EQ(a.clusters_allocated(), 5u);
        EXPECT_FALSE(a.thin());
        EXPECT_EQ(*b.xattrs().find("name"), "thin");
        EXPECT_EQ(b.clusters(), 2000u);
        EXPECT_EQ(b.clusters_allocated(), 0u);
        EXPECT_TRUE(b.thin());
        co_await s->set_xattr(b, "more", std::string(3000, 'x'));  // the store is dirty now
        co_await s->set_xattr(b, "yet more", std::string(3000, 'y'));
    }
    co_await s->unload();
}

STORE_TEST(a_removed_blob_leaves_nothing) {
    auto s = co_await store::init(l.devices, l.base(), small);
    uint32_t pages = s->room().free_pages();
    blob_id id =
        co_await s->create({.clusters = 7, .xattrs = {{"a", std::string(4000, 'a')}, {"b", std::string(4000, 'b')}}});
    {
        blob_ref open = co_await s->open(id);
        EXPECT_EQ(co_await code_of(s->remove(id)), errc::busy);
    }
    co_await s->remove(id);
    EXPECT_EQ(co_await code_of(s->remove(id)), errc::not_found);
    EXPECT_EQ(s->free_clusters(), s->data_clusters());
    EXPECT_EQ(s->room().free_pages(), pages);
    EXPECT_EQ(s->open(id).error().code(), errc::not_found);
    co_await s->abandon();
    s.reset();
    s = co_await store::load(l.devices, l.base(), {});
    EXPECT_TRUE(s->blobs().empty());
    EXPECT_EQ(s->room().free_pages(), pages);
    co_await s->unload();
}

STORE_TEST(what_does_not_fit_is_refused_and_costs_nothing) {
    auto s = co_await store::init(l.devices, l.base(), small);
    uint32_t free = s->free_clusters(), pages = s->room().free_pages();
    EXPECT_EQ(co_await code_of(s->create({.clusters = free + 1})), errc::no_space);
    EXPECT_EQ(co_await code_of(s->create({.xattrs = {{"x", std::string(5000, 'x')}}})), errc::invalid);
    EXPECT_EQ(s->free_clusters(), free);
    EXPECT_EQ(s->room().free_pages(), pages);
    blob_id all = co_await s->create({.clusters = free});
    EXPECT_EQ(s->free_clusters(), 0u);
    EXPECT_EQ(co_await code_of(s->create({.clusters = 1})), errc::no_space);
    co_await s->remove(all);
    co_await s->unload();
}

STORE_TEST(new_clusters_hold_zeroes_whatever_was_there) {
    auto disk = l.base();
    {
        auto on = disk.channel();
        auto dirt = bytes_of('!', 1 << 20);
        for (uint64_t at = 0; at < disk_bytes; at += dirt.size()) co_await bdev::write(*on, at / 512, dirt);
    }
    auto s = co_await store::init(l.devices, std::move(disk), {.cluster_size = cluster, .trim = false});
    for (bool thin : {false, true}) {
        blob_id id = co_await s->create({.clusters = 3, .thin = thin});
        auto d = co_await l.serve(*s, id);
        {
            auto io = d.channel();
            auto x = bytes_of('x', 512);
            co_await bdev::write(*io, 33, x);
            data_bytes all(3 * cluster), expected(3 * cluster);
            std::ranges::copy(x, expected.begin() + 33 * 512);
            co_await bdev::read(*io, 0, all);
            EXPECT_TRUE(all == expected);
        }
        d.close();
        co_await l.stop_serving(id);
    }
    co_await s->unload();
}

STORE_TEST(a_blob_keeps_what_is_written_across_clusters) {
    auto s = co_await store::init(l.devices, l.base(), small);
    blob_id id = co_await s->create({.clusters = 40, .thin = thread::test_seed() % 2 == 0});
    auto data = bytes_of('d', 10 * cluster);
    for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::byte>(i * 7 + i / 4096);
    auto d = co_await l.serve(*s, id);
    {
        auto io = d.channel();
        co_await bdev::write(*io, 5, data);
        co_await bdev::flush(*io);
        data_bytes back(data.size());
        co_await bdev::read(*io, 5, back);
        EXPECT_TRUE(back == data);
        co_await bdev::write_zeroes(*io, 100, 64);
        co_await bdev::unmap(*io, 500, 64);
        std::fill_n(data.begin() + 95 * 512, 64 * 512, std::byte{0});
    }
    d.close();
    co_await l.stop_serving(id);
    co_await s->unload();
    s.reset();
    s = co_await store::load(l.devices, l.base(), {});
    d = co_await l.serve(*s, id);
    {
        auto io = d.channel();
        data_bytes back(400 * 512);
        co_await bdev::read(*io, 5, std::span(back).first(300 * 512));
        EXPECT_TRUE(std::equal(back.begin(), back.begin() + 300 * 512, data.begin()));
    }
    d.close();
    co_await l.stop_serving(id);
    co_await s->unload();
}

STORE_TEST(a_blob_grows_and_shrinks) {
    for (bool thin : {false, true}) {
        auto s = co_await store::init(l.devices, l.base(), {.cluster_size = 4096, .md_page_count = 100});
        blob_id id = co_await s->create({.clusters = 3, .thin = thin});
        blob_ref b = co_await s->open(id);
        for (uint64_t size : {5u, 700u, 512u, 513u, 0u, 600u, 2u}) {
            co_await s->resize(b, size);
            EXPECT_EQ(b.clusters(), size);
            EXPECT_EQ(b.clusters_allocated(), thin ? 0 : size);
            EXPECT_EQ(s->free_clusters(), s->data_clusters() - (thin ? 0 : size));
        }
        EXPECT_EQ(co_await code_of(s->resize(b, thin ? uint64_t{1} << 32 : 5000)),
                  thin ? errc::invalid : errc::no_space);
        EXPECT_EQ(b.clusters(), 2u);
        b.close();
        co_await s->abandon();
        s.reset();
        s = co_await store::load(l.devices, l.base(), {});
        EXPECT_EQ((co_await s->open(id)).clusters(), 2u);
        EXPECT_EQ(s->free_clusters(), s->data_clusters() - (thin ? 0 : 2));
        co_await s->unload();
    }
}

// From each I/O of it on some fail: whoever has the device open sees the old size or the new one, and hears only of
// that.
TEST(store, a_device_changes_its_size_with_its_blob_or_not_at_all) {
    sim_machine m(1, disk_bytes, {.volatile_cache = true});
    auto outcome = m.live([&](life& l) -> task<> {
        auto s = co_await store::init(l.devices, l.base(), {.cluster_size = cluster, .trim = false});
        blob_id id = co_await s->create({.clusters = 4});
        blob_ref b = co_await s->open(id);
        (co_await l.serve(*s, id)).close();
        unsigned told = 0, failed = 0;
        auto on_event = [&told](bdev::device_event e) { told += e == bdev::device_event::resized; };
        auto d = co_await l.devices.open(life::name_of(id), bdev::open_mode::read_write, on_event);
        for (uint64_t clusters : {2u, 7u}) {
            for (uint64_t n = 0; b.clusters() != clusters; ++n) {
                const uint64_t first = m.disk().ops_issued() + n;
                for (uint64_t i = first; i < first + 6; ++i) m.disk().fail_operation(i);
                const bool done = (co_await as_result(s->resize(b, clusters))).has_value();
                m.disk().clear_faults();
                failed += !done;
                EXPECT_EQ(b.clusters() == clusters, done);
                EXPECT_EQ(std::exchange(told, 0), done ? 1u : 0u) << clusters << " clusters, I/O " << n;
                EXPECT_EQ(d->num_blocks(), b.clusters() * (cluster / 512));
            }
        }
        EXPECT_GT(failed, 4u);
        d.close();
        b.close();
        co_await l.stop_serving(id);
        co_await s->unload();
    });
    EXPECT_TRUE(outcome) << outcome.error().message();
}

// SPDK knows nothing of the double-write area. When it has recovered and changed a store, what varve left there must
// not be repeated; and what varve commits afterwards must.
TEST(store, a_round_is_not_repeated_when_somebody_else_was_there_since) {
    sim_machine m(1, disk_bytes, {.volatile_cache = true});
    data_bytes root(4096), mask;
    uint64_t root_at = 0, mask_at = 0;
    blob_id id = 0;
    auto name_is = [&](store& s, std::string_view name) { EXPECT_EQ(*s.find(id)->record.xattrs.find("name"), name); };
    struct renaming {
        static task<> to(store& s, blob_id of, const char* name) {
            blob_ref b = co_await s.open(of);
            co_await s.set_xattr(b, "name", name);
            b.close();
            co_await s.settle();
        }
    };
    auto first = m.live([&](life& l) -> task<> {
        auto s = co_await store::init(l.devices, l.base(), small);
        id = co_await s->create({.clusters = 1, .xattrs = {{"name", "1"}}});
        co_await s->settle();
        const format::geometry& g = s->geometry();
        root_at = g.offset_of_md_page(format::root_page_of(id));
        m.disk().peek(root_at, root);
        mask_at = g.offset_of(g.page_mask);
        mask.resize(g.bytes_of(g.page_mask));
        format::bit_mask used(g.md.count);
        for (uint32_t p : s->find(id)->record.pages) used.set(p);
        for (uint32_t p : s->find(id)->extent_pages) used.set(p);
        format::encode_mask(used, format::mask_type::used_pages, mask);
        co_await renaming::to(*s, id, "2");
        co_await s->abandon();
    });
    EXPECT_TRUE(first);
    m.disk().poke(root_at, root);
    m.disk().poke(mask_at, mask);
    auto second = m.live([&](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), {.trim = false});
        name_is(*s, "1");
        // The power goes when the mask says again that there is an area, and nothing has been committed.
        m.disk().cut_power_at(m.disk().ops_issued() + 6, env::sim::cut_outcome::keep_all);
        co_await as_result(renaming::to(*s, id, "3"));
        co_await s->abandon();
    });
    EXPECT_TRUE(second);
    auto third = m.live([&](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), {.trim = false});
        name_is(*s, "1");
        co_await renaming::to(*s, id, "4");
        co_await s->abandon();
    });
    EXPECT_TRUE(third);
    m.disk().poke(root_at, root);  // as if the write in place had not got there
    auto fourth = m.live([&](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), {});
        name_is(*s, "4");
        co_await s->unload();
    });
    EXPECT_TRUE(fourth);
}

task<blob_id> snapshot_of(store& s, blob_id id) {
    blob_ref b = co_await s.open(id);
    co_return co_await s.snapshot(b, {});
}

// What the pause of a snapshot is made of: a flush before the commit point, and one for it.
TEST(store, a_snapshot_is_one_round) {
    sim_machine m(1, disk_bytes, {.volatile_cache = true});
    auto outcome = m.live([](life& l) -> task<> {
        auto s = co_await store::init(l.devices, l.base(), small);
        blob_id origin = co_await s->create({.clusters = 4, .thin = true});
        for (unsigned i = 0; i < 3; ++i) {
            co_await s->settle();
            const uint64_t before = s->base().flushes();
            co_await snapshot_of(*s, origin);
            EXPECT_EQ(s->base().flushes() - before, 4u) << "the snapshot, and afterwards what it is no more";
        }
        co_await s->unload();
    });
    EXPECT_TRUE(outcome) << outcome.error().message();
}

STORE_TEST(what_is_noted_of_a_snapshots_clusters_goes_when_they_change) {
    auto s = co_await store::init(l.devices, l.base(), small);
    s->tie_to_clusters("sum");
    blob_id origin = co_await s->create({.clusters = 4, .thin = true});
    blob_id oldest = co_await snapshot_of(*s, origin);
    blob_id middle = co_await snapshot_of(*s, origin);
    blob_id newest = co_await snapshot_of(*s, origin);
    for (blob_id id : {oldest, middle, newest}) {
        blob_ref b = co_await s->open(id);
        auto refused = co_await as_result(s->set_xattr(b, "sum", "1"));
        EXPECT_EQ(refused.error().code(), errc::not_permitted);
        co_await s->change_xattrs(b, {{"sum", "1"}, {"other", "2"}});
    }
    co_await s->remove(oldest);
    const auto& xattrs = s->find(middle)->record.xattrs;
    EXPECT_EQ(xattrs.find("sum"), nullptr) << "it took over what the oldest had";
    EXPECT_NE(xattrs.find("other"), nullptr);
    EXPECT_NE(s->find(newest)->record.xattrs.find("sum"), nullptr) << "its clusters are what they were";
    blob_ref b = co_await s->open(newest);
    co_await s->detach_parent(b);
    EXPECT_EQ(s->find(newest)->record.xattrs.find("sum"), nullptr);
    EXPECT_FALSE(b.is_clone());
    auto again = co_await as_result(s->detach_parent(b));
    EXPECT_EQ(again.error().code(), errc::invalid);
    b.close();
    co_await s->unload();
}

// Whoever comes second is told that somebody is at it, or finds what the first has made: nothing is lost either way.
STORE_TEST(decoupling_and_removing_the_grandparent_do_not_mix) {
    auto s = co_await store::init(l.devices, l.base(), small);
    blob_id origin = co_await s->create({.clusters = 6, .thin = true});
    auto fill = [&](uint64_t index, char c) -> task<> {
        auto d = co_await l.serve(*s, origin);
        {
            auto io = d.channel();
            co_await bdev::write(*io, index * cluster / 512, bytes_of(c, cluster));
            co_await bdev::flush(*io);
        }
        d.close();
        co_await l.stop_serving(origin);
    };
    co_await fill(0, 'g');
    blob_id oldest = co_await snapshot_of(*s, origin);
    co_await fill(1, 'p');
    co_await snapshot_of(*s, origin);
    co_await fill(2, 'b');
    jobs::job j;
    {
        blob_ref b = co_await s->open(origin);
        crew both;
        auto quiet = [](task<> t) -> task<> { co_await as_result(std::move(t)); };
        both.start(quiet(s->decouple(b, j)));
        for (uint64_t i = 0; i < thread::test_seed() % 40; ++i) co_await yield();
        both.start(quiet(s->remove(oldest)));
        co_await both.done();
    }
    co_await s->unload();
    s.reset();
    s = co_await store::load(l.devices, l.base(), {});
    EXPECT_FALSE(s->find(origin)->set_aside()) << s->find(origin)->damage;
    auto d = co_await l.serve(*s, origin);
    {
        auto io = d.channel();
        data_bytes seen(cluster);
        for (uint64_t i = 0; i < 3; ++i) {
            co_await bdev::read(*io, i * cluster / 512, seen);
            EXPECT_TRUE(seen == bytes_of("gpb"[i], cluster)) << i;
        }
    }
    d.close();
    co_await l.stop_serving(origin);
    co_await s->unload();
}

}  // namespace
}  // namespace varve::blob
