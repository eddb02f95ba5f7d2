// Metadata made to cost its reader much: what a load looks at is in proportion to it.
#include "blob/load/test_doubt.h"

namespace varve::blob {
namespace {

constexpr uint32_t pages = 8192, group = 1000;

struct hostile {
    hostile() : machine(1, 128 << 20, {.volatile_cache = false}) {
        auto made = machine.live([this](life& l) -> task<> {
            auto s = co_await store::init(l.devices, l.base(),
                                          {.cluster_size = cluster, .md_page_count = pages, .trim = false});
            g = s->geometry();
            co_await s->abandon();
        });
        EXPECT_TRUE(made);
    }
    void put(uint32_t root, std::vector<format::cluster_run> runs, std::string_view mark, blob_id marked,
             blob_id parent) {
        format::blob_record r;
        r.id = format::id_of_root_page(root);
        r.flags.invalid = format::invalid_flag::thin | format::invalid_flag::internal_xattrs;
        if (parent != 0) r.internal_xattrs.set(format::xattr_parent, text_of(parent));
        if (marked != 0) r.internal_xattrs.set(mark, text_of(marked));
        for (const auto& run : runs) r.cluster_count += run.count;
        r.runs = std::move(runs);
        r.pages = {root};
        machine.disk().poke(g.offset_of_md_page(root), (*format::encode_chain(r))[0]);
    }
    void put(const format::blob_record& r) {
        machine.disk().poke(g.offset_of_md_page(r.pages[0]), (*format::encode_chain(r))[0]);
    }
    uint64_t steps_of_a_load() {
        uint64_t steps = 0;
        auto outcome = machine.live([&steps](life& l) -> task<> {
            auto s = co_await store::load(l.devices, l.base(), {.trim = false, .steps = &steps});
            co_await s->abandon();
        });
        EXPECT_TRUE(outcome) << outcome.error().message();
        return steps;
    }
    uint64_t all() const { return g.md.count + g.cluster_count; }
    sim_machine machine;
    format::geometry g;
};

// Each asks whether others have what it has, since its clone is nowhere.
TEST(hostile, drafts_without_clones) {
    hostile h;
    for (uint32_t i = 0; i < group; ++i) {
        h.put(i, {{h.g.first_data_cluster + i, 1}}, format::xattr_in_progress, format::id_of_root_page(pages - 1), 0);
    }
    EXPECT_LT(h.steps_of_a_load(), 4 * h.all());
}

// All are dropped, and each is the parent of another.
TEST(hostile, drafts_that_came_to_nothing) {
    hostile h;
    for (uint32_t i = 0; i < group; ++i) {
        h.put(i, {}, format::xattr_in_progress, format::id_of_root_page((i + 1) % group),
              format::id_of_root_page((i + 5) % group));
    }
    EXPECT_LT(h.steps_of_a_load(), 4 * h.all());
}

TEST(hostile, ancestors_without_end) {
    // The last has no parent, one that is not there, or one of those below.
    for (blob_id end : {blob_id{0}, format::id_of_root_page(pages - 1), format::id_of_root_page(0)}) {
        hostile h;
        for (uint32_t i = 0; i < group; ++i) h.put(i, {}, {}, 0, i + 1 < group ? format::id_of_root_page(i + 1) : end);
        EXPECT_LT(h.steps_of_a_load(), 4 * h.all()) << end;
    }
}

TEST(hostile, blobs_that_name_every_cluster) {
    hostile h;
    const uint32_t first = h.g.first_data_cluster;
    for (uint32_t i = 0; i < group; ++i) h.put(i, {{first, h.g.cluster_count - first}}, {}, 0, 0);
    EXPECT_LT(h.steps_of_a_load(), 8 * h.all());
}

// 2^32 times what the store has, in eight bytes.
TEST(hostile, an_extent_table_without_end) {
    for (uint64_t clusters : {uint64_t{0}, uint64_t{1}, uint64_t{5000}}) {
        hostile h;
        format::blob_record r;
        r.id = format::id_of_root_page(7);
        r.flags.invalid = format::invalid_flag::thin | format::invalid_flag::extent_table;
        r.uses_extent_table = true;
        r.cluster_count = clusters;
        r.extent_pages.assign(400, {0, UINT32_MAX});
        r.pages = {7};
        h.put(r);
        auto outcome = h.machine.live([&r](life& l) -> task<> {
            auto s = co_await store::load(l.devices, l.base(), plain);
            EXPECT_TRUE(s->find(r.id)->set_aside());
            EXPECT_EQ(s->find(r.id)->extent_pages.size(), r.extent_page_count());
            co_await s->abandon();
        });
        EXPECT_TRUE(outcome) << outcome.error().message();
    }
}

#if !__has_feature(thread_sanitizer)  // it keeps a shadow of every byte
// As large as can be, and thin: they have nothing, and cost next to nothing.
TEST(hostile, blobs_that_are_as_large_as_can_be) {
    hostile h;
    for (uint32_t i = 0; i < group / 10; ++i) {
        format::blob_record r;
        r.id = format::id_of_root_page(i);
        r.flags.invalid = format::invalid_flag::thin | format::invalid_flag::extent_table;
        r.uses_extent_table = true;
        r.cluster_count = clusters_max;
        r.extent_pages.assign(1, {0, static_cast<uint32_t>(r.extent_page_count())});
        r.pages = {i};
        h.put(r);
    }
    EXPECT_LT(h.steps_of_a_load(), 4 * h.all());
}
#endif

// Others on its thread have their turns while the clusters of a large blob are counted.
TEST(hostile, a_large_blob_keeps_nobody_waiting) {
    sim_machine m(1, uint64_t{2} << 30, {.volatile_cache = false});
    constexpr static uint64_t clusters = 300'000;
    auto made = m.live([](life& l) -> task<> {
        auto s =
            co_await store::init(l.devices, l.base(), {.cluster_size = 4096, .md_page_count = 1000, .trim = false});
        co_await s->create({.clusters = clusters});
        co_await s->abandon();
    });
    ASSERT_TRUE(made) << made.error().message();
    auto outcome = m.live([](life& l) -> task<> {
        uint64_t steps = 0, turns = 0;
        bool over = false;
        auto watch = [](const uint64_t& counted, uint64_t& changes, const bool& end) -> task<> {
            uint64_t seen = 0;
            do {
                co_await yield();
                changes += std::exchange(seen, counted) != counted;
            } while (!end);
        };
        crew watching;
        watching.start(watch(steps, turns, over));
        auto s = co_await store::load(l.devices, l.base(), {.trim = false, .steps = &steps});
        over = true;
        co_await watching.done();
        EXPECT_GT(steps, clusters);
        EXPECT_GT(turns, clusters / 65536);
        co_await s->abandon();
    });
    EXPECT_TRUE(outcome) << outcome.error().message();
}

TEST(hostile, others_have_their_turn_among_damaged_pages) {
    hostile h;
    format::page_bytes garbage;
    garbage.fill(std::byte{0x5a});
    for (uint32_t i = 0; i < group; ++i) h.machine.disk().poke(h.g.offset_of_md_page(i), garbage);
    uint64_t steps = 0, before = 0, most = 0;
    bool over = false;
    auto watch = [&]() -> task<> {
        while (!over) {
            most = std::max(most, steps - before);
            before = steps;
            co_await yield();
        }
    };
    auto outcome = h.machine.live([&](life& l) -> task<> {
        crew others;
        others.start(watch());
        auto s = co_await as_result(store::load(l.devices, l.base(), {.trim = false, .steps = &steps}));
        over = true;
        co_await others.done();
        if (s) co_await (*s)->abandon();
    });
    EXPECT_TRUE(outcome) << outcome.error().message();
    EXPECT_GE(steps, uint64_t{group});
    EXPECT_LT(most, 100u);
}

// What a super block says of the size of its store costs nothing: the region is a hole.
TEST(hostile, masks_that_no_memory_holds) {
    hostile h;
    format::geometry g = h.g;
    EXPECT_TRUE(format::check_memory(g));
    g.md.count = 0xfffffff0;
    auto refused = format::check_memory(g);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), errc::no_memory);
}

// A store that died is read with all that its metadata holds: not on a machine that has no room for it.
TEST(hostile, more_metadata_than_the_machine_has_memory) {
    hostile h;
    for (uint32_t i = 0; i < group; ++i) h.put(i, {{h.g.first_data_cluster + i, 1}}, {}, 0, 0);
    for (uint64_t kib : {group * 4 * 2 - 100, group * 4 * 2 + 100}) {
        auto outcome = h.machine.live([&](life& l) -> task<> {
            co_await l.devices.world().write_text(
                "/proc/meminfo", fmt::format("MemTotal: 9999 kB\nMemAvailable:   {} kB\nBuffers: 1 kB\n", kib));
            auto s = co_await as_result(store::load(l.devices, l.base(), {.trim = false}));
            EXPECT_EQ(s.has_value(), kib > group * 4 * 2) << (s ? "" : s.error().message());
            if (s) co_return co_await (*s)->abandon();
            EXPECT_EQ(s.error().code(), errc::no_memory);
        });
        EXPECT_TRUE(outcome) << outcome.error().message();
    }
}

}  // namespace
}  // namespace varve::blob
