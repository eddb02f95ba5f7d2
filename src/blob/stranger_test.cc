// Stores as others left them: SPDK between two lives of ours, and images with numbers that nobody would write.
#include <gtest/gtest.h>

#include <bit>
#include <cstring>

#include "accel/crc32c.h"
#include "blob/format/wire.h"
#include "blob/test_check.h"
#include "blob/test_store.h"

namespace varve::blob {
namespace {

constexpr uint32_t cluster = 8 * 1024;
const init_options small{.cluster_size = cluster, .md_page_count = 120, .trim = false};

template <class Body>
void live(sim_machine& m, Body body) {
    auto outcome = m.live(body);
    ASSERT_TRUE(outcome) << outcome.error().message();
}

template <class Change>
void change_super(env::sim::disk& d, Change change, bool seal) {
    format::page_bytes bytes;
    d.peek(0, bytes);
    auto w = std::bit_cast<format::super_block_wire>(bytes);
    format::super_extension_wire e;
    std::memcpy(&e, w.extension, sizeof e);
    change(w, e);
    std::memcpy(w.extension, &e, sizeof e);
    if (seal) e.sector_crc = accel::crc32c(std::as_bytes(std::span(&w, 1)).first(508));
    std::memcpy(w.extension, &e, sizeof e);
    w.crc = accel::crc32c(std::as_bytes(std::span(&w, 1)).first(4092));
    d.poke(0, std::bit_cast<format::page_bytes>(w));
}

// SPDK opens the store, says that it is in use, and is killed before it changes anything else; or the power goes while
// it says so. What varve commits then is found again although it did not get to its place.
TEST(store_stranger, who_only_opened_it_costs_no_commit) {
    enum class by : uint8_t { nobody, killed, torn };
    for (by what : {by::nobody, by::killed, by::torn}) {
        sim_machine m(1, 2 << 20, {.volatile_cache = true});
        blob_id id = 0;
        live(m, [&](life& l) -> task<> {
            auto s = co_await store::init(l.devices, l.base(), small);
            id = co_await s->create({.clusters = 2, .xattrs = {{"name", "1"}}});
            co_await s->unload();
        });
        if (what == by::killed) change_super(m.disk(), [](auto& w, auto&) { w.clean = 0; }, false);
        if (what == by::torn) {  // the last sector, with the checksum, is as it was
            data_bytes sector(512);
            m.disk().peek(0, sector);
            sector[offsetof(format::super_block_wire, clean)] = std::byte{0};
            m.disk().poke(0, sector);
        }
        uint64_t root_at = 0;
        data_bytes root(4096);
        live(m, [&](life& l) -> task<> {
            auto s = co_await store::load(l.devices, l.base(), {.trim = false});
            root_at = s->geometry().offset_of_md_page(format::root_page_of(id));
            m.disk().peek(root_at, root);
            blob_ref b = co_await s->open(id);
            co_await s->set_xattr(b, "name", "2");
            b.close();
            co_await s->settle();
            co_await s->abandon();
        });
        m.disk().cut_power(env::sim::cut_outcome::lose_all);
        m.disk().poke(root_at, root);  // the page in place did not get there
        live(m, [&](life& l) -> task<> {
            auto s = co_await store::load(l.devices, l.base(), {.trim = false});
            EXPECT_EQ(*s->find(id)->record.xattrs.find("name"), "2") << static_cast<int>(what);
            co_await s->abandon();
        });
    }
}

TEST(store_stranger, metadata_pages_may_be_as_large_as_64_KiB) {
    sim_machine m(1, 64 << 20, {.volatile_cache = true});
    blob_id id = 0;
    live(m, [&](life& l) -> task<> {
        auto s = co_await store::init(
            l.devices, l.base(),
            {.cluster_size = 1 << 20, .md_page_count = 30, .md_page_size = 64 * 1024, .trim = false});
        id = co_await s->create({.clusters = 2, .thin = true});
        co_await s->unload();
    });
    live(m, [&](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), {.trim = false});
        expect_sound(*s);
        EXPECT_NE(s->find(id), nullptr);
        co_await s->unload();
    });
}

// A commit takes two pages at least.
TEST(store_stranger, a_double_write_area_for_one_image_is_none) {
    sim_machine m(1, 2 << 20, {.volatile_cache = true});
    blob_id id = 0;
    live(m, [&](life& l) -> task<> {
        auto s = co_await store::init(l.devices, l.base(), small);
        id = co_await s->create({.clusters = 20, .thin = true});
        co_await s->unload();
    });
    change_super(m.disk(), [](auto&, auto& e) { e.double_write_per_slot = 2; }, true);
    for (bool change : {true, false}) {
        live(m, [&](life& l) -> task<> {
            auto s = co_await store::load(l.devices, l.base(), {.trim = false});
            EXPECT_GE(s->super().extension->double_write.per_slot, 3u);
            if (change) co_await write_pattern(l, *s, id, 0, 16, 'a');
            expect_sound(*s);
            EXPECT_EQ(s->find(id)->allocated, 1u);
            co_await s->unload();
        });
        EXPECT_EQ(fsck(m.disk(), true), "");
    }
}

// A root page that says a blob of so many clusters begins here, none of them with a place.
void make_a_blob(env::sim::disk& d, const store& s, blob_id id, uint64_t clusters, uint32_t extent_page = 0) {
    format::blob_record r;
    r.id = id;
    r.uses_extent_table = true;
    r.cluster_count = clusters;
    r.flags.invalid = format::invalid_flag::extent_table | format::invalid_flag::thin;
    r.extent_pages = {{0, static_cast<uint32_t>(r.extent_page_count())}};
    if (extent_page != 0) {
        --r.extent_pages[0].count;
        r.extent_pages.insert(r.extent_pages.begin(), {extent_page, 1});
    }
    r.pages = {format::root_page_of(id)};
    auto chain = format::encode_chain(r);
    ASSERT_TRUE(chain) << chain.error().message();
    d.poke(s.geometry().offset_of_md_page(format::root_page_of(id)), (*chain)[0]);
}

// It is set aside, and what it says it has is nobody else's.
TEST(store_stranger, a_blob_of_more_clusters_than_there_is_memory_for_harms_nobody) {
    sim_machine m(1, 2 << 20, {.volatile_cache = true});
    blob_id small_one = 0, huge = 0;
    uint32_t its_page = 0, its_cluster = 0;
    live(m, [&](life& l) -> task<> {
        auto s = co_await store::init(l.devices, l.base(), small);
        co_await s->unload();
        s.reset();
        s = co_await store::load(l.devices, l.base(), {.trim = false});  // the masks know of nothing
        small_one = co_await s->create({.clusters = 20, .thin = true});
        co_await write_pattern(l, *s, small_one, 0, 16, 's');
        huge = co_await s->create({.clusters = 20, .thin = true});
        co_await write_pattern(l, *s, huge, 0, 16, 'h');
        blob_ref b = co_await s->open(small_one);
        co_await s->set_xattr(b, "last", "round");
        b.close();
        co_await s->settle();
        its_page = s->find(huge)->extent_pages[0];
        its_cluster = s->find(huge)->current->at(0);
        co_await s->abandon();
        make_a_blob(m.disk(), *s, huge, UINT32_MAX, its_page);
    });
    fsck(m.disk(), false);
    live(m, [&](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), {.trim = false});
        EXPECT_TRUE(s->find(huge)->set_aside());
        EXPECT_FALSE(s->find(small_one)->set_aside());
        EXPECT_TRUE(s->room().page_used(its_page));
        EXPECT_TRUE(s->room().cluster_used(its_cluster));
        co_await write_pattern(l, *s, small_one, 16, 16, 't');
        co_await s->remove(huge);
        co_await s->settle();
        EXPECT_FALSE(s->room().page_used(its_page));
        EXPECT_FALSE(s->room().cluster_used(its_cluster));
        expect_sound(*s);
        co_await s->unload();
    });
    EXPECT_EQ(fsck(m.disk(), true), "");
}

#if !__has_feature(thread_sanitizer)  // it keeps a shadow of every byte
// Many of the largest there may be: memory and time go with what they have, not with what they could.
TEST(store_stranger, many_large_blobs_cost_little) {
    sim_machine m(1, 2 << 20, {.volatile_cache = true});
    live(m, [&](life& l) -> task<> {
        auto s = co_await store::init(l.devices, l.base(), small);
        co_await s->abandon();
        for (uint32_t page = 0; page < 40; ++page) {
            make_a_blob(m.disk(), *s, format::id_of_root_page(page), clusters_max);
        }
    });
    live(m, [&](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), {.trim = false});
        EXPECT_EQ(s->blobs().size(), 40u);
        for (blob_id id : s->blobs()) EXPECT_FALSE(s->find(id)->set_aside()) << s->find(id)->damage;
        co_await s->abandon();
    });
}
#endif

// A snapshot that was being merged into a clone of which nothing is left.
void clone_is_lost(bool its_clusters_are_others) {
    sim_machine m(1, 2 << 20, {.volatile_cache = true});
    blob_id clone = 0, snapshot = 0;
    std::string before;
    live(m, [&](life& l) -> task<> {
        auto s = co_await store::init(l.devices, l.base(), small);
        clone = co_await s->create({.clusters = 4, .thin = true});
        co_await write_pattern(l, *s, clone, 0, 32, 's');
        blob_ref b = co_await s->open(clone);
        snapshot = co_await s->snapshot(b, {{"name", "s"}});
        b = co_await s->open(snapshot);
        b.state().record.internal_xattrs.set(format::xattr_pending_removal, text_of(clone));
        co_await s->change_xattrs(b, {});
        const uint32_t its = b.cluster_at(0);
        b.close();
        if (its_clusters_are_others) {
            const blob_id other = co_await s->create({.clusters = 1});
            co_await s->settle();
            m.disk().poke(s->geometry().offset_of_md_page(s->find(other)->extent_pages[0]),
                          format::encode_extent_page({.id = other, .first_cluster = 0, .clusters = {its}}));
        }
        co_await s->settle();
        before = co_await describe(l, *s);
        co_await s->abandon();
        m.disk().poke(s->geometry().offset_of_md_page(format::root_page_of(clone)), format::page_bytes{});
    });
    for (bool again : {false, true}) {
        live(m, [&](life& l) -> task<> {
            auto s = co_await store::load(l.devices, l.base(), {.trim = false});
            EXPECT_EQ(s->find(clone), nullptr);
            expect_sound(*s);
            if (its_clusters_are_others) {
                EXPECT_EQ(s->find(snapshot), nullptr);
            } else if (s->find(snapshot) == nullptr) {
                ADD_FAILURE() << "the snapshot is lost";
            } else {
                EXPECT_TRUE(s->find(snapshot)->read_only());
                EXPECT_EQ(s->find(snapshot)->record.internal_xattrs.find(format::xattr_pending_removal), nullptr);
                const std::string now = co_await describe(l, *s);
                EXPECT_TRUE(before.ends_with(now.substr(now.find('\n') + 1))) << now;
            }
            if (again) {
                co_await s->unload();
            } else {
                co_await s->abandon();
            }
        });
    }
    EXPECT_EQ(fsck(m.disk(), true), "");
}
TEST(store_stranger, a_snapshot_whose_clone_is_lost_keeps_what_it_has) { clone_is_lost(false); }
TEST(store_stranger, a_snapshot_whose_clone_is_lost_goes_when_others_have_what_it_had) { clone_is_lost(true); }

}  // namespace
}  // namespace varve::blob
