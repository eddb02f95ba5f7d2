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

}  // namespace
}  // namespace varve::blob
