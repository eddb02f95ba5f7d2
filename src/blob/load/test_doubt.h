// For tests of loading: a machine whose store is damaged between its lives.
#pragma once

#include <gtest/gtest.h>

#include <vector>

#include "blob/format/mask.h"
#include "blob/test_check.h"
#include "blob/test_store.h"
#include "thread/awaits.h"

namespace varve::blob {

inline constexpr uint32_t cluster = 16 * 1024, blocks = cluster / 512;
inline const init_options small{.cluster_size = cluster, .md_page_count = 100, .trim = false};
inline const load_options plain{.trim = false};

// A machine whose store has volumes "old" (before it was unloaded), and "young" and "other" (after).
struct doubtful {
    doubtful() : machine(1, 4 << 20, {.volatile_cache = false}) {
        live([this](life& l) -> task<> {
            auto s = co_await store::init(l.devices, l.base(), small);
            g = s->geometry();
            old = co_await s->create({.clusters = 3});
            co_await write_pattern(l, *s, old, 0, 3 * blocks, 'o');
            area = s->super().extension->double_write;
            co_await s->unload();
        });
    }
    void allocate_more(bool unload) {
        live([this, unload](life& l) -> task<> {
            auto s = co_await store::load(l.devices, l.base(), plain);
            young = co_await s->create(
                {.clusters = 3, .xattrs = {{"x", std::string(3900, 'x')}, {"y", std::string(3900, 'y')}}});
            other = co_await s->create({.clusters = 2});
            co_await write_pattern(l, *s, young, 0, 3 * blocks, 'y');
            for (uint64_t i = 0; i < 3; ++i) clusters.push_back(s->find(young)->current->at(i));
            pages = s->find(young)->record.pages;
            extent_page = s->find(young)->extent_pages[0];
            co_await (unload ? s->unload() : s->abandon());
        });
    }
    template <class Body>
    void live(Body body) {
        auto outcome = machine.live(body);
        EXPECT_TRUE(outcome) << outcome.error().message();
    }
    void flip_in_mask(format::page_range mask, uint32_t bit) {
        machine.disk().flip_bit(g.offset_of(mask) + sizeof(format::mask_header_wire) + bit / 8, bit % 8);
    }
    void flip(uint32_t page, uint64_t byte) { machine.disk().flip_bit(g.offset_of_md_page(page) + byte, 3); }
    void cannot_read(uint64_t offset, uint64_t times = uint64_t{1} << 40) {
        machine.disk().inject({.kind = env::file_op_kind::read, .first = offset, .end = offset + 4096, .times = times});
    }
    task<> expect_contents(life& l, store& s, blob_id id, char c) {
        std::vector<std::byte> back(3 * cluster);
        auto d = co_await l.serve(s, id);
        {
            auto io = d.channel();
            co_await bdev::read(*io, 0, back);
        }
        d.close();
        co_await l.stop_serving(id);
        EXPECT_TRUE(back == std::vector<std::byte>(back.size(), static_cast<std::byte>(c)));
    }
    // Nobody gets the clusters of "young", whatever is asked for.
    task<> expect_kept(store& s) {
        blob_id all = co_await s.create({.clusters = s.free_clusters()});
        for (uint64_t i = 0; i < s.find(all)->current->size; ++i) {
            uint32_t c = s.find(all)->current->at(i);
            EXPECT_EQ(std::ranges::count(clusters, c), 0) << "cluster " << c << " was given away";
        }
        co_await s.remove(all);
    }

    sim_machine machine;
    format::geometry g;
    format::double_write_area area;
    blob_id old = 0, young = 0, other = 0;
    std::vector<uint32_t> clusters, pages;
    uint32_t extent_page = 0;
};

}  // namespace varve::blob
