// A store whose device has become larger: all of it, or as before, wherever the power goes.
#include <gtest/gtest.h>

#include <algorithm>

#include "blob/test_check.h"
#include "blob/test_store.h"
#include "thread/test_world.h"

namespace varve::blob {
namespace {

constexpr uint32_t cluster = 16 * 1024;
constexpr uint64_t disk_bytes = 8 << 20, half = disk_bytes / 2 / 512;
const init_options small{.cluster_size = cluster, .type = "TEST", .trim = false};

struct growth {
    explicit growth(bool cached) : machine(1, disk_bytes, {.volatile_cache = cached}) {}

    // A store on the first half, then the device is made larger and the store, too. The number of the I/O at which that
    // begins, and of the one after it.
    std::pair<uint64_t, uint64_t> run(std::optional<uint64_t> cut, env::sim::cut_outcome how) {
        std::pair<uint64_t, uint64_t> numbers;
        auto outcome = machine.live([&](life& l) -> task<> {
            bdev::device& base = *l.devices.find("base");
            co_await l.devices.resize(base, half);
            auto s = co_await store::init(l.devices, l.base(), small);
            before = s->data_clusters();
            id = co_await s->create({.clusters = 5, .xattrs = {{"name", "first"}}});
            co_await write_pattern(l, *s, id, 0, 160, 'g');
            co_await l.devices.resize(base, 2 * half);
            numbers.first = machine.disk().ops_issued();
            if (cut) machine.disk().cut_power_at(numbers.first + *cut, how);
            auto grown = co_await as_result(s->grow());
            succeeded = grown.has_value();
            numbers.second = machine.disk().ops_issued();
            if (!cut) {
                EXPECT_EQ(s->data_clusters(), before + half * 512 / cluster);
                co_await s->create({.clusters = s->free_clusters()});
                expect_sound(*s);
                co_await s->unload();
            } else {
                co_await s->abandon();
            }
        });
        EXPECT_TRUE(outcome) << outcome.error().message();
        return numbers;
    }
    void look() {
        EXPECT_EQ(fsck(machine.disk(), false), "");
        auto outcome = machine.live([&](life& l) -> task<> {
            auto s = co_await store::load(l.devices, l.base(), {.trim = false});
            expect_sound(*s);
            const uint32_t after = before + half * 512 / cluster;
            if (succeeded) EXPECT_EQ(s->data_clusters(), after);
            EXPECT_TRUE(s->data_clusters() == before || s->data_clusters() == after) << s->data_clusters();
            EXPECT_EQ(*s->find(id)->record.xattrs.find("name"), "first");
            if (s->data_clusters() == before) co_await s->grow();
            EXPECT_EQ(s->data_clusters(), after);
            co_await s->unload();
        });
        EXPECT_TRUE(outcome) << outcome.error().message();
        EXPECT_EQ(fsck(machine.disk(), true), "");
    }

    sim_machine machine;
    blob_id id = 0;
    uint32_t before = 0;
    bool succeeded = false;
};

TEST(grow, takes_all_or_nothing_wherever_the_power_goes) {
    using env::sim::cut_outcome;
    for (bool cached : {false, true}) {
        auto [first, end] = growth(cached).run(std::nullopt, cut_outcome::keep_all);
        ASSERT_LT(first, end);
        for (uint64_t n = 0; n <= end - first; ++n) {
            for (auto how : {cut_outcome::lose_all, cut_outcome::keep_all, cut_outcome::tear_all, cut_outcome::drawn}) {
                SCOPED_TRACE("I/O " + std::to_string(n));
                growth g(cached);
                g.run(n, how);
                g.machine.disk().cut_power(how);
                g.look();
            }
        }
    }
}

// The mask of used clusters, and the room behind it, is what it was when the store was made.
TEST(grow, goes_as_far_as_the_metadata_has_room) {
    constexpr uint64_t clusters_max = (4096 - 5) * 8;  // one page of mask
    sim_machine machine(1, (clusters_max + 1) * 4096, {.volatile_cache = true});
    auto outcome = machine.live([](life& l) -> task<> {
        bdev::device& base = *l.devices.find("base");
        co_await l.devices.resize(base, 2048);
        auto s = co_await store::init(l.devices, l.base(), {.cluster_size = 4096, .md_page_count = 100, .trim = false});
        blob_id id = co_await s->create({.clusters = 5});
        const uint32_t clusters = s->data_clusters(), reserved = s->geometry().first_data_cluster;
        co_await l.devices.resize(base, (clusters_max + 1) * 8);
        for (int pass = 0; pass < 2; ++pass) {
            auto refused = co_await as_result(s->grow());
            EXPECT_EQ(refused.error().code(), errc::no_space);
            EXPECT_NE(refused.error().message().find("has room for 32728 clusters"), std::string::npos)
                << refused.error().message();
            EXPECT_EQ(s->data_clusters(), clusters);
            EXPECT_EQ(s->super().layout.size.value, 2048u * 512);
            expect_sound(*s);
            co_await s->unload();
            s.reset();
            s = co_await store::load(l.devices, l.base(), {.trim = false});
        }
        co_await l.devices.resize(base, clusters_max * 8);
        co_await s->grow();
        EXPECT_EQ(s->data_clusters(), clusters_max - reserved);
        co_await s->create({.clusters = s->free_clusters()});
        expect_sound(*s);
        co_await s->unload();
        s.reset();
        s = co_await store::load(l.devices, l.base(), {.trim = false});
        EXPECT_EQ(s->free_clusters(), 0u);
        EXPECT_EQ(s->find(id)->allocated, 5u);
        co_await s->abandon();
    });
    EXPECT_TRUE(outcome) << outcome.error().message();
}

TEST(grow, a_device_that_is_as_it_was_changes_nothing) {
    growth g(false);
    auto outcome = g.machine.live([](life& l) -> task<> {
        bdev::device& base = *l.devices.find("base");
        co_await l.devices.resize(base, 256);
        auto s = co_await store::init(l.devices, l.base(), {.cluster_size = 4096, .md_page_count = 8, .trim = false});
        const uint32_t clusters = s->data_clusters();
        co_await s->grow();
        EXPECT_EQ(s->data_clusters(), clusters) << "the device is as it was";
        co_await s->unload();
    });
    EXPECT_TRUE(outcome) << outcome.error().message();
}

// Only the mask knows of its clusters, and it is of the time before.
TEST(grow, gives_nobody_what_fsck_set_aside_after_a_crash) {
    sim_machine machine(1, disk_bytes, {.volatile_cache = false});
    blob_id id = 0;
    std::vector<uint32_t> mine;
    auto live = [&machine](auto body) {
        auto outcome = machine.live(body);
        EXPECT_TRUE(outcome) << outcome.error().message();
    };
    live([&](life& l) -> task<> {
        bdev::device& base = *l.devices.find("base");
        co_await l.devices.resize(base, half);
        auto s = co_await store::init(l.devices, l.base(), small);
        id = co_await s->create({.clusters = 5});
        for (uint64_t i = 0; i < 5; ++i) mine.push_back(s->find(id)->current->at(i));
        co_await s->unload();
        format::blob_record r;
        r.id = id;
        r.flags.invalid = format::invalid_flag::thin | format::invalid_flag::set_aside;
        r.pages = {format::root_page_of(id)};
        machine.disk().poke(s->geometry().offset_of_md_page(r.pages[0]), (*format::encode_chain(r))[0]);
        s = co_await store::load(l.devices, l.base(), {.trim = false});
        EXPECT_EQ(s->free_clusters(), s->data_clusters() - 5);
        co_await l.devices.resize(base, 2 * half);
        co_await s->grow();
        co_await s->abandon();
    });
    live([&](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), {.trim = false});
        EXPECT_GT(s->data_clusters(), half * 512 / cluster) << "it has not grown";
        EXPECT_EQ(s->free_clusters(), s->data_clusters() - 5);
        const blob_id all = co_await s->create({.clusters = s->free_clusters()});
        for (uint64_t i = 0; i < s->find(all)->current->size; ++i)
            EXPECT_EQ(std::ranges::count(mine, s->find(all)->current->at(i)), 0);
        co_await s->unload();
    });
}

}  // namespace
}  // namespace varve::blob
