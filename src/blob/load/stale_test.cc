// What a deletion left in a piece of the metadata that a load does not read: no load takes it for a blob, also after
// crashes; and no blob is taken for such.
#include "blob/load/test_doubt.h"

namespace varve::blob {
namespace {

constexpr uint32_t pages = 800, far = 400;  // of the metadata; a page in a piece without used ones
const blob_id ghost = format::id_of_root_page(far);

// A store with a blob, unloaded; then what is left of a blob far away from it.
struct haunted {
    haunted() : machine(1, 8 << 20, {.volatile_cache = false}) {
        live([this](life& l) -> task<> {
            auto s = co_await store::init(l.devices, l.base(),
                                          {.cluster_size = cluster, .md_page_count = pages, .trim = false});
            g = s->geometry();
            old = co_await s->create({.clusters = 3});
            blob_id gone = co_await s->create({.clusters = 2});
            co_await s->settle();  // it is in its place, not in the double-write area alone
            machine.disk().peek(g.offset_of_md_page(format::root_page_of(gone)), root);
            area = s->super().extension->double_write;
            co_await s->remove(gone);
            co_await s->unload();
        });
    }
    template <class Body>
    void live(Body body) {
        auto outcome = machine.live(body);
        EXPECT_TRUE(outcome) << outcome.error().message();
    }
    // The page of blob `gone`, as the first of another.
    void put_root(uint32_t page, std::optional<uint32_t> stamp = {}) {
        auto w = std::bit_cast<format::md_page_wire>(root);
        w.id = format::id_of_root_page(page);
        if (stamp) w.stamp = *stamp;
        w.crc = format::crc_of(std::bit_cast<format::page_bytes>(w));
        machine.disk().poke(g.offset_of_md_page(page), std::bit_cast<format::page_bytes>(w));
    }
    format::page_bytes page(uint32_t number) {
        format::page_bytes out;
        machine.disk().peek(g.offset_of_md_page(number), out);
        return out;
    }
    void set_in_mask(format::page_range mask, uint32_t bit, bool to) {
        const uint64_t at = g.offset_of(mask) + sizeof(format::mask_header_wire) + bit / 8;
        std::byte b;
        machine.disk().peek(at, {&b, 1});
        const std::byte only{static_cast<uint8_t>(1u << bit % 8)};
        if (((b & only) != std::byte{0}) != to) machine.disk().flip_bit(at, bit % 8);
    }
    static task<> change(store& s, blob_id id) {
        blob_ref b = co_await s.open(id);
        co_await s.set_xattr(b, "changed", std::string(1 + b.xattrs().size(), 'x'));
    }
    // The store is changed, and dies.
    void change_and_die() {
        live([this](life& l) -> task<> {
            auto s = co_await store::load(l.devices, l.base(), plain);
            EXPECT_EQ(s->find(ghost), nullptr);
            co_await change(*s, old);
            co_await s->settle();
            co_await s->abandon();
        });
    }
    void expect_ghost(bool is_there) {
        live([&](life& l) -> task<> {
            auto s = co_await store::load(l.devices, l.base(), plain);
            EXPECT_EQ(s->find(ghost) != nullptr, is_there);
            EXPECT_EQ(s->free_clusters(), s->data_clusters() - (is_there ? 5 : 3));
            expect_sound(*s);
            co_await s->abandon();
        });
    }
    // As SPDK's recovery does before it changes anything.
    void recover_as_spdk_does() {
        for (uint32_t p = 0; p < area.page_count(); ++p) set_in_mask(g.page_mask, area.first + p, false);
    }

    sim_machine machine;
    format::geometry g;
    format::double_write_area area;
    format::page_bytes root;
    blob_id old = 0;
};

TEST(stale, what_no_load_has_read_does_not_come_back_after_a_crash) {
    for (bool of_spdk : {false, true}) {
        SCOPED_TRACE(of_spdk);
        haunted h;
        h.put_root(far, of_spdk ? std::optional<uint32_t>(0) : std::nullopt);
        h.change_and_die();
        ASSERT_FALSE(format::is_clear(h.page(far))) << "it was read: nothing is tested";
        for (int i = 0; i < 3; ++i) h.expect_ghost(false);
        EXPECT_FALSE(format::is_clear(h.page(far))) << "nothing was changed";
        h.change_and_die();
        EXPECT_TRUE(format::is_clear(h.page(far)));
        h.live([&h](life& l) -> task<> {
            auto s = co_await store::load(l.devices, l.base(), plain);
            expect_sound(*s);
            co_await haunted::change(*s, h.old);
            co_await s->unload();
        });
        EXPECT_EQ(fsck(h.machine.disk(), true), "");
    }
}

// Not even when its page has become part of the double-write area.
TEST(stale, what_lies_in_the_double_write_area_is_nobodys) {
    haunted h;
    h.change_and_die();
    h.put_root(h.area.first + h.area.page_count() - 1);
    h.live([&h](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), plain);
        EXPECT_EQ(s->blobs().size(), 1u);
        EXPECT_EQ(s->super().extension->double_write.first, h.area.first);
        expect_sound(*s);
        co_await s->abandon();
    });
}

TEST(stale, who_repairs_a_store_that_died_clears_it) {
    haunted h;
    h.put_root(far);
    h.change_and_die();
    struct contents final : check::storage {
        explicit contents(const env::sim::disk& d) : disk(d) {}
        format::device_shape shape() const noexcept override { return {{disk.size()}, 512}; }
        void read(std::span<check::piece> pieces) override {
            for (check::piece& p : pieces) disk.peek(p.offset, p.bytes);
        }
        const env::sim::disk& disk;
    } reader(h.machine.disk());
    auto evidence = check::inspect(reader);
    ASSERT_TRUE(evidence);
    EXPECT_EQ(check::examine(*evidence).stale_roots, std::vector<uint32_t>{far});
}

// --- no blob is taken for one

TEST(stale, who_came_after_the_masks_stays) {
    haunted h;
    blob_id young = 0;
    h.live([&](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), plain);
        young = co_await s->create({.clusters = 2});
        co_await s->set_super_blob(young);  // another super block, with the masks as they were
        co_await s->abandon();
    });
    for (bool changed : {false, true}) {
        h.live([&](life& l) -> task<> {
            auto s = co_await store::load(l.devices, l.base(), plain);
            EXPECT_NE(s->find(young), nullptr);
            expect_sound(*s);
            if (changed) co_await s->create({.clusters = 1});
            co_await s->abandon();
        });
    }
}

// A blob is there of which a mask does not know, for one bit.
TEST(stale, one_bit_loses_no_blob) {
    for (bool ids : {false, true}) {
        haunted h;
        h.change_and_die();
        h.put_root(far);
        h.set_in_mask(ids ? h.g.blobid_mask : h.g.page_mask, far, true);
        h.expect_ghost(true);
    }
}

// SPDK's blobs have no stamps. It recovers the store, or opens it after it was unloaded, and dies.
TEST(stale, what_spdk_made_since_stays) {
    for (int way : {0, 1, 2, 3}) {
        SCOPED_TRACE(way);
        haunted h;
        if (way != 1) h.change_and_die();
        if (way == 0) h.recover_as_spdk_does();
        if (way == 1) {  // it writes the super block anew
            format::super_block_wire w = super_of(h.machine.disk());
            w.clean = 0;
            w.crc = format::crc_of(std::bit_cast<format::page_bytes>(w));
            h.machine.disk().poke(0, std::bit_cast<format::page_bytes>(w));
        }
        if (way == 2) {  // it uses the pages of the area; an extent page of nobody in the first
            format::page_bytes extents = format::encode_extent_page({.id = ghost, .clusters = {0}});
            h.machine.disk().poke(h.g.offset_of_md_page(h.area.first), extents);
        }
        h.put_root(far, way == 3 ? std::nullopt : std::optional<uint32_t>(0));
        h.expect_ghost(way != 3);
    }
}

TEST(stale, a_stamp_from_long_ago_tells_nothing) {
    haunted h;
    h.change_and_die();
    const uint32_t then = format::header_of(h.page(format::root_page_of(h.old))).stamp;
    h.put_root(far, then + (uint32_t{1} << 30));
    for (uint32_t known : {0u, 1u}) {
        h.live([&](life& l) -> task<> {
            auto s = co_await store::load(l.devices, l.base(), plain);
            EXPECT_NE(s->find(ghost), nullptr);
            if (known == 0) {
                EXPECT_NE(s->super().extension->masks_stamp, 0u);
                for (int i = 0; i < 3; ++i) co_await haunted::change(*s, h.old);
                EXPECT_EQ(s->super().extension->masks_stamp, 0u);
            }
            co_await (known == 0 ? s->abandon() : s->unload());
        });
    }
}

// What one load believes because it could not read the masks, the next one believes as well.
TEST(stale, who_was_served_once_stays) {
    for (bool unloaded : {false, true}) {
        SCOPED_TRACE(unloaded);
        haunted h;
        if (!unloaded) h.change_and_die();
        h.put_root(far);
        const uint64_t mask = h.g.offset_of(h.g.blobid_mask);
        h.machine.disk().inject({.kind = env::file_op_kind::read, .first = mask, .end = mask + 4096, .times = 1000});
        h.live([&](life& l) -> task<> {
            auto s = co_await store::load(l.devices, l.base(), plain);
            EXPECT_NE(s->find(ghost), nullptr);
            co_await haunted::change(*s, h.old);
            co_await s->abandon();
        });
        h.machine.disk().clear_faults();
        h.expect_ghost(true);
    }
}

// While nobody knows what a damaged blob has, pages that hold something are kept for it: not those.
TEST(stale, it_is_not_kept_for_the_damaged) {
    haunted h;
    h.live([&](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), plain);
        co_await s->create({.clusters = 1});
        co_await s->abandon();
    });
    h.put_root(far);
    const uint64_t young = h.g.offset_of_md_page(format::root_page_of(h.old) + 2);
    for (uint64_t byte : {300, 301, 2000}) h.machine.disk().flip_bit(young + byte, 3);
    for (int i = 0; i < 2; ++i) {
        h.live([&](life& l) -> task<> {
            auto s = co_await store::load(l.devices, l.base(), plain);
            EXPECT_EQ(s->find(ghost), nullptr);
            EXPECT_FALSE(s->room().page_used(far));
            co_await haunted::change(*s, h.old);
            co_await s->unload();
        });
    }
}

}  // namespace
}  // namespace varve::blob
