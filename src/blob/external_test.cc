// Clones of devices outside of the store: what they show, whose they are after each operation, and what happens when
// the device comes late, goes early, or does not fit.
#include "blob/external.h"

#include <gtest/gtest.h>

#include "bdev/layer.h"
#include "blob/test_check.h"
#include "blob/test_store.h"
#include "thread/awaits.h"
#include "thread/test_world.h"

namespace varve::blob {
namespace {

constexpr uint32_t cluster = 16 * 1024;
constexpr uint64_t disk_bytes = 4 << 20;
const std::string id("11111111-2222-3333-4444-555555555555\0", 37);
const std::string name = id.substr(0, 36);

// Text ids with a zero at the end, as logical volumes have; devices have it without.
struct volumes final : external_devices {
    explicit volumes(life& l) : world(l) {}
    result<bdev::descriptor> open_external(std::string_view asked, bdev::event_handler on_event) override {
        EXPECT_EQ(asked.size(), 37u);
        ++opened;
        return world.external.open_external(asked.substr(0, 36), std::move(on_event));
    }
    void external_lost(std::string_view asked) noexcept override { lost += asked; }
    life& world;
    unsigned opened = 0;
    std::string lost;
};

template <class Body>
void on_a_disk(Body body) {
    for (bool cached : {false, true}) {
        SCOPED_TRACE(cached ? "with a volatile cache" : "without a volatile cache");
        sim_machine m(thread::test_seed(), disk_bytes, {.volatile_cache = cached});
        auto outcome = m.live([body](life& l) -> task<> {
            volumes v(l);
            co_await body(l, v);
        });
        EXPECT_TRUE(outcome) << outcome.error().message();
    }
}
#define EXTERNAL_TEST(name)                                                                           \
    task<> name(life& l, volumes& v);                                                                 \
    TEST(external_snapshot, name) {                                                                   \
        thread::for_each_seed([] { on_a_disk([](life& l, volumes& v) { return name(l, v); }); }, 10); \
    }                                                                                                 \
    task<> name(life& l, volumes& v)

template <class T>
task<errc> code_of(task<T> t) {
    auto outcome = co_await as_result(std::move(t));
    co_return outcome ? errc::ok : outcome.error().code();
}

task<std::unique_ptr<store>> new_store(life& l, volumes& v) {
    return store::init(l.devices, l.base(), {.cluster_size = cluster, .externals = &v});
}
task<> again(life& l, volumes& v, std::unique_ptr<store>& s) {
    co_await s->unload();
    s.reset();
    s = co_await store::load(l.devices, l.base(), {.externals = &v});
}

// Reads all of a blob through a device of its own.
task<std::vector<std::byte>> contents(life& l, store& s, blob_id of) {
    auto d = co_await l.serve(s, of);
    std::vector<std::byte> all(d->num_blocks() * d->block_size());
    result<> outcome;
    {
        auto io = d.channel();
        outcome = co_await as_result(bdev::read(*io, 0, all));
    }
    d.close();
    co_await l.stop_serving(of);
    co_await std::move(outcome);
    co_return all;
}

// The second cluster of such a device.
std::vector<std::byte> second_of(unsigned seed) {
    auto all = bdev::pattern(2 * cluster, seed);
    return {all.begin() + cluster, all.end()};
}
std::vector<std::byte> with(std::vector<std::byte> all, uint64_t lba, uint32_t blocks, char c) {
    std::fill_n(all.begin() + static_cast<ptrdiff_t>(lba * 512), blocks * 512, static_cast<std::byte>(c));
    return all;
}

EXTERNAL_TEST(a_clone_shows_the_device_where_nothing_was_written) {
    co_await l.external.add(name, 5 * cluster, 7);
    auto s = co_await new_store(l, v);
    blob_id made = co_await s->create({.clusters = 5, .external = id});
    auto expected = bdev::pattern(5 * cluster, 7);
    EXPECT_TRUE(co_await contents(l, *s, made) == expected);
    co_await write_pattern(l, *s, made, 40, 3, 'w');
    expected = with(std::move(expected), 40, 3, 'w');
    for (int pass = 0; pass < 2; ++pass) {
        EXPECT_TRUE(co_await contents(l, *s, made) == expected);
        blob_ref b = co_await s->open(made);
        EXPECT_EQ(b.clusters_allocated(), 1u);
        EXPECT_TRUE(b.is_external_clone() && b.thin() && !b.is_clone() && !b.degraded());
        EXPECT_EQ(b.external_id(), id);
        EXPECT_EQ(*b.internal_xattrs().find("EXTSNAP"), id);
        EXPECT_EQ(s->blobs_on_external(id), std::vector<blob_id>{made});
        b.close();
        if (pass == 0) co_await again(l, v, s);
    }
    co_await s->unload();
}

EXTERNAL_TEST(beyond_the_end_of_the_device_there_are_zeroes) {
    const uint64_t there = 2 * cluster + 3 * 512;  // not even at a boundary
    co_await l.external.add(name, there, 9);
    auto s = co_await new_store(l, v);
    blob_id made = co_await s->create({.clusters = 5, .external = id});
    auto expected = bdev::pattern(there, 9);
    expected.resize(5 * cluster);
    EXPECT_TRUE(co_await contents(l, *s, made) == expected);
    for (uint64_t lba : {uint64_t{2 * cluster / 512 + 10}, uint64_t{4 * cluster / 512}}) {
        co_await write_pattern(l, *s, made, lba, 2, 'b');
        expected = with(std::move(expected), lba, 2, 'b');
        EXPECT_TRUE(co_await contents(l, *s, made) == expected);
    }
    co_await s->unload();
}

// A device on another one.
class on_top final : public bdev::layer {
  public:
    static task<> add(bdev::registry& devices, std::string on, std::string called) {
        bdev::base_link base = co_await bdev::base_link::open(devices, on, "top");
        bdev::properties p = bdev::layered_on(*base, std::move(called), "top");
        co_await devices.add(std::make_unique<on_top>(std::move(p), devices, std::move(base)));
    }
    using layer::layer;
    std::string_view module_name() const noexcept override { return "top"; }
    std::unique_ptr<bdev::channel> open_channel() override { return std::make_unique<passing>(base_channel()); }

  private:
    struct passing final : bdev::channel {
        explicit passing(bdev::channel_ref b) noexcept : base(std::move(b)) {}
        void do_submit(bdev::io& r) noexcept override { base->submit(r); }
        bdev::channel_ref base;
    };
};

// Reads of such a clone would go round and round.
EXTERNAL_TEST(no_parent_lies_on_the_store_itself) {
    auto s = co_await new_store(l, v);
    blob_id made = co_await s->create({.clusters = 5, .thin = true});
    co_await l.serve(*s, made);
    co_await on_top::add(l.devices, l.name_of(made), "one");
    co_await on_top::add(l.devices, "one", name);
    blob_ref b = co_await s->open(made);
    auto refused = co_await as_result(s->set_external_parent(b, id));
    EXPECT_EQ(refused.error().code(), errc::invalid);
    EXPECT_NE(refused.error().message().find("lies on base"), std::string::npos) << refused.error().message();
    EXPECT_FALSE(b.is_external_clone());
    EXPECT_EQ(co_await code_of(s->create({.clusters = 5, .external = id})), errc::invalid);
    b.close();
    co_await l.devices.remove(l.name_of(made));
    // On the media such a clone may be: it is as one whose parent is not there.
    co_await l.external.add(name, 5 * cluster, 7);
    b = co_await s->open(made);
    co_await s->set_external_parent(b, id);
    b.close();
    blob_id other = co_await s->create({.clusters = 5, .thin = true});
    co_await s->unload();
    s.reset();
    co_await l.devices.remove(name);
    s = co_await store::load(l.devices, l.base(), {.externals = &v});
    co_await l.serve(*s, other);
    co_await on_top::add(l.devices, l.name_of(other), name);
    EXPECT_EQ(co_await code_of(s->attach_external(id)), errc::invalid);
    b = co_await s->open(made);
    EXPECT_TRUE(b.degraded());
    EXPECT_NE(b.degraded_reason().find("lies on base"), std::string::npos) << b.degraded_reason();
    b.close();
    co_await l.devices.remove(l.name_of(other));
    co_await l.external.add(name, 5 * cluster, 7);
    co_await s->attach_external(id);
    EXPECT_TRUE(co_await contents(l, *s, made) == bdev::pattern(5 * cluster, 7));
    co_await s->unload();
}

EXTERNAL_TEST(a_device_may_come_late) {
    auto s = co_await new_store(l, v);
    EXPECT_EQ(co_await code_of(s->create({.clusters = 5, .external = id})), errc::no_device);
    EXPECT_TRUE(s->blobs().empty());
    co_await l.external.add(name, 5 * cluster, 7);
    blob_id made = co_await s->create({.clusters = 5, .external = id});
    co_await write_pattern(l, *s, made, 0, 32, 'o');
    co_await s->unload();
    s.reset();
    co_await l.devices.remove(name);
    s = co_await store::load(l.devices, l.base(), {.externals = &v});
    EXPECT_TRUE((co_await s->open(made)).degraded());
    EXPECT_EQ(co_await code_of(contents(l, *s, made)), errc::no_device);
    auto d = co_await l.serve(*s, made);
    {
        auto io = d.channel();
        std::vector<std::byte> own(cluster);
        co_await bdev::read(*io, 0, own);
        EXPECT_TRUE(own == std::vector<std::byte>(cluster, std::byte{'o'}));
        EXPECT_EQ(co_await code_of(bdev::write(*io, 40, std::span(own).first(512))), errc::no_device);
        co_await bdev::write(*io, 3, std::span(own).first(512));
        EXPECT_EQ(co_await code_of(s->attach_external(id)), errc::no_device);
        EXPECT_EQ(co_await code_of(s->attach_external("something else")), errc::not_found);
        co_await l.external.add(name, 5 * cluster, 7);
        co_await s->attach_external(id);
        co_await s->attach_external(id);
        // The channel was open all the time.
        co_await bdev::read(*io, 32, own);
        EXPECT_TRUE(own == second_of(7));
    }
    d.close();
    co_await l.stop_serving(made);
    EXPECT_FALSE((co_await s->open(made)).degraded());
    co_await s->unload();
}

EXTERNAL_TEST(a_device_may_go_while_it_is_in_use) {
    co_await l.external.add(name, 5 * cluster, 7);
    auto s = co_await new_store(l, v);
    blob_id made = co_await s->create({.clusters = 5, .external = id});
    auto d = co_await l.serve(*s, made);
    {
        auto io = d.channel();
        std::vector<std::byte> one(cluster);
        co_await bdev::write(*io, 0, one);
        co_await bdev::read(*io, 32, one);
        co_await l.devices.remove(name);  // returns: nobody holds it
        EXPECT_EQ(v.lost, id);
        EXPECT_EQ(co_await code_of(bdev::read(*io, 32, one)), errc::no_device);
        co_await bdev::read(*io, 0, one);
        co_await s->create({.clusters = 1});
        co_await l.external.add(name, 5 * cluster, 8);
        co_await s->attach_external(id);
        co_await bdev::read(*io, 32, one);
        EXPECT_TRUE(one == second_of(8));
    }
    d.close();
    co_await l.stop_serving(made);
    co_await s->unload();
}

EXTERNAL_TEST(a_snapshot_takes_the_device_over_and_gives_it_back) {
    co_await l.external.add(name, 5 * cluster, 7);
    auto s = co_await new_store(l, v);
    blob_id made = co_await s->create({.clusters = 5, .external = id});
    co_await write_pattern(l, *s, made, 40, 3, 'w');
    auto expected = with(bdev::pattern(5 * cluster, 7), 40, 3, 'w');
    blob_ref b = co_await s->open(made);
    blob_id snapshot = co_await s->snapshot(b, {});
    b.close();
    co_await write_pattern(l, *s, made, 70, 3, 'x');
    auto later = with(expected, 70, 3, 'x');
    for (int pass = 0; pass < 2; ++pass) {
        EXPECT_TRUE(co_await contents(l, *s, made) == later);
        EXPECT_TRUE(co_await contents(l, *s, snapshot) == expected);
        b = co_await s->open(made);
        blob_ref below = co_await s->open(snapshot);
        EXPECT_TRUE(b.is_clone() && !b.is_external_clone());
        EXPECT_EQ(b.internal_xattrs().find("EXTSNAP"), nullptr);
        EXPECT_TRUE(below.is_external_clone());
        EXPECT_EQ(*below.internal_xattrs().find("EXTSNAP"), id);
        EXPECT_EQ(s->blobs_on_external(id).size(), 2u);
        b.close();
        below.close();
        co_await again(l, v, s);
    }
    co_await s->remove(snapshot);
    for (int pass = 0; pass < 2; ++pass) {
        EXPECT_TRUE(co_await contents(l, *s, made) == later);
        EXPECT_EQ((co_await s->open(made)).external_id(), id);
        co_await again(l, v, s);
    }
    co_await s->unload();
}

EXTERNAL_TEST(a_blob_that_needs_the_device_no_more_lets_go_of_it) {
    bdev::ram_device* outside = co_await l.external.add(name, 5 * cluster, 7);
    auto s = co_await new_store(l, v);
    auto is_free = [&]() -> task<bool> {
        co_await s->settle();
        co_return l.devices.open(outside->name(), bdev::open_mode::read_write, {}).has_value();
    };
    auto expected = bdev::pattern(5 * cluster, 7);
    for (bool all : {true, false}) {
        blob_id made = co_await s->create({.clusters = 5, .external = id});
        EXPECT_FALSE(co_await is_free());
        blob_ref b = co_await s->open(made);
        jobs::job j;
        co_await (all ? s->inflate(b, j) : s->decouple(b, j));
        EXPECT_EQ(j.done(), 5u);
        EXPECT_TRUE(!b.is_external_clone() && !b.thin());
        EXPECT_EQ(b.internal_xattrs().find("EXTSNAP"), nullptr);
        b.close();
        EXPECT_TRUE(co_await is_free());
        EXPECT_TRUE(co_await contents(l, *s, made) == expected);
        co_await s->remove(made);
    }
    for (bool detach : {false, true}) {
        blob_id made = co_await s->create({.clusters = 5, .external = id});
        EXPECT_FALSE(co_await is_free());
        if (detach) {
            blob_ref b = co_await s->open(made);
            co_await s->detach_parent(b);
            EXPECT_TRUE(b.thin() && !b.is_external_clone());
        } else {
            co_await s->remove(made);
        }
        EXPECT_TRUE(co_await is_free());
    }
    EXPECT_EQ(
        co_await code_of(s->create({.clusters = 50000, .xattrs = {{"x", std::string(5000, 'x')}}, .external = id})),
        errc::invalid);
    EXPECT_TRUE(co_await is_free());
    co_await s->unload();
}

EXTERNAL_TEST(parents_inside_and_outside_can_be_exchanged) {
    co_await l.external.add(name, 4 * cluster, 7);
    auto s = co_await new_store(l, v);
    blob_id base = co_await s->create({.clusters = 4, .thin = true});
    co_await write_pattern(l, *s, base, 0, 128, 'i');
    blob_ref b = co_await s->open(base);
    blob_id snapshot = co_await s->snapshot(b, {});
    b.close();
    const std::vector<std::byte> inside(4 * cluster, std::byte{'i'});
    co_await write_pattern(l, *s, base, 5, 1, 'o');
    for (int pass = 0; pass < 2; ++pass) {
        b = co_await s->open(base);
        co_await s->set_external_parent(b, id);
        EXPECT_EQ(co_await code_of(s->set_external_parent(b, id)), errc::exists);
        EXPECT_TRUE(b.is_external_clone() && !b.is_clone());
        EXPECT_EQ(b.internal_xattrs().find("SNAP"), nullptr);
        b.close();
        if (pass == 1) co_await again(l, v, s);
        auto now = co_await contents(l, *s, base);
        auto expected = bdev::pattern(4 * cluster, 7);
        std::ranges::fill(std::span(expected).first(cluster), std::byte{'i'});
        EXPECT_TRUE(now == with(expected, 5, 1, 'o'));
        b = co_await s->open(base);
        blob_ref below = co_await s->open(snapshot);
        EXPECT_FALSE(below.is_snapshot());
        co_await s->set_parent(b, below);
        EXPECT_TRUE(b.is_clone() && !b.is_external_clone());
        EXPECT_EQ(b.internal_xattrs().find("EXTSNAP"), nullptr);
        b.close();
        below.close();
        if (pass == 1) co_await again(l, v, s);
        EXPECT_TRUE(co_await contents(l, *s, base) == with(inside, 5, 1, 'o'));
    }
    EXPECT_TRUE(s->blobs_on_external(id).empty());
    co_await s->unload();
}

EXTERNAL_TEST(what_does_not_fit_is_refused) {
    const std::string big("22222222-2222-3333-4444-555555555555\0", 37),
        odd("33333333-2222-3333-4444-555555555555\0", 37);
    co_await l.external.add(big.substr(0, 36), 8 * cluster, 1, 4096);
    co_await l.external.add(odd.substr(0, 36), cluster + 512, 1);
    auto s = co_await new_store(l, v);
    EXPECT_EQ(co_await code_of(s->create({.clusters = 5, .external = big})), errc::invalid);
    blob_id thick = co_await s->create({.clusters = 1}), thin = co_await s->create({.clusters = 1, .thin = true});
    blob_ref a = co_await s->open(thick), b = co_await s->open(thin);
    EXPECT_EQ(co_await code_of(s->set_external_parent(a, odd)), errc::invalid);
    EXPECT_EQ(co_await code_of(s->set_external_parent(b, odd)), errc::invalid);
    EXPECT_EQ(co_await code_of(s->set_external_parent(b, big)), errc::invalid);
    EXPECT_EQ(co_await code_of(s->set_external_parent(b, id)), errc::no_device);
    EXPECT_EQ(co_await code_of(s->set_external_parent(b, "")), errc::invalid);
    EXPECT_EQ(co_await code_of(s->set_external_parent(b, std::string(5000, 'i'))), errc::invalid);
    EXPECT_FALSE(b.is_external_clone());
    a.close();
    b.close();
    co_await s->settle();
    for (const std::string& each : {big, odd}) {
        EXPECT_TRUE(l.devices.open(each.substr(0, 36), bdev::open_mode::read_write, {}));
    }
    co_await s->unload();
}

// Other threads read while the device comes and goes: what they get is right or an error, and removing it never hangs.
task<> comes_and_goes(bdev::bdev_system& s, unsigned rounds) {
    bdev::properties p;
    p.name = "base";
    p.block_size = 4096;
    p.num_blocks = 2048;
    p.offered = bdev::op_bit(bdev::op::read) | bdev::op_bit(bdev::op::write) | bdev::op_bit(bdev::op::flush) |
                bdev::op_bit(bdev::op::write_zeroes);
    outside external(s.devices);
    co_await external.add("golden", 8 * cluster, 3);
    auto st =
        co_await store::init(s.devices, *s.open(*co_await s.add(p)), {.cluster_size = cluster, .externals = &external});
    blob_id made = co_await st->create({.clusters = 8, .external = "golden"});
    auto served = std::make_unique<blob_device>(co_await st->open(made), "volume");
    blob_device* volume = served.get();
    co_await s.devices.add(std::move(served));
    volume->blob.serve_through(volume);
    auto d = *s.devices.open("volume", bdev::open_mode::read_write, {});
    thread::thread* others[2] = {*s.system.rt->create_thread("io0"), *s.system.rt->create_thread("io1")};
    auto reader = [](bdev::descriptor& from, unsigned times) -> task<> {
        auto io = from.channel();
        const auto expected = bdev::pattern(8 * cluster, 3);
        std::vector<std::byte> back(8192);
        for (unsigned n = 0; n < times; ++n) {
            uint64_t at = n * 7 % 31;
            auto outcome = co_await as_result(bdev::read(*io, at, back));
            if (outcome) EXPECT_TRUE(std::ranges::equal(back, std::span(expected).subspan(at * 4096, back.size())));
            if (!outcome) EXPECT_EQ(outcome.error().code(), errc::no_device);
        }
    };
    {
        crew load;
        for (thread::thread* t : others) load.start(call_on(*t, [&] { return reader(d, rounds); }));
        for (int i = 0; i < 3; ++i) {
            co_await s.devices.remove("golden");
            co_await external.add("golden", 8 * cluster, 3);
            co_await st->attach_external("golden");
            for (int turns = 0; turns < 20; ++turns) co_await yield();
        }
        jobs::job j;
        co_await st->inflate(volume->blob, j);
        co_await load.done();
    }
    co_await st->settle();
    EXPECT_TRUE(s.devices.open("golden", bdev::open_mode::read_write, {}));
    for (thread::thread* t : others) s.system.rt->destroy_thread(*t);
    d.close();
    co_await s.devices.remove("volume");
    co_await st->unload();
}
class external_threads : public thread::in_every_world {};
INSTANTIATE_TEST_SUITE_P(worlds, external_threads, thread::every_world(), thread::world_name);
TEST_P(external_threads, a_device_comes_and_goes_under_load) {
    bdev::bdev_system s(GetParam(), 2);
    s.run(comes_and_goes(s, 300));
}
TEST(external_threads_sim, a_device_comes_and_goes_under_load) {
    thread::for_each_seed(
        [] {
            bdev::bdev_system s(thread::world_kind::sim, 2);
            s.run(comes_and_goes(s, 60));
        },
        100);
}

}  // namespace
}  // namespace varve::blob
