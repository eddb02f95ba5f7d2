// What a load makes of masks that lie, of pages that are damaged or cannot be read, and of hostile metadata: no blob is
// lost by it, and nobody gets what a blob has that cannot be understood.
#include "blob/load/test_doubt.h"

namespace varve::blob {
namespace {

// --- masks

TEST(doubt, a_bit_of_a_mask_loses_no_blob) {
    for (int which : {0, 1, 2, 3}) {
        SCOPED_TRACE(which);
        doubtful d;
        d.allocate_more(true);
        const uint32_t root = format::root_page_of(d.young);
        if (which == 0) d.flip_in_mask(d.g.blobid_mask, root);
        if (which == 1) d.flip_in_mask(d.g.page_mask, root);
        if (which == 2) d.flip_in_mask(d.g.page_mask, d.extent_page);
        if (which == 3) {
            d.flip_in_mask(d.g.blobid_mask, root);
            d.flip_in_mask(d.g.page_mask, root);
        }
        d.live([&d](life& l) -> task<> {
            auto s = co_await store::load(l.devices, l.base(), plain);
            if (s->find(d.young) == nullptr) co_await fail(errc::not_found, "the blob is lost");
            expect_sound(*s);
            co_await d.expect_contents(l, *s, d.young, 'y');
            co_await d.expect_kept(*s);
            co_await s->unload();
        });
        EXPECT_EQ(fsck(d.machine.disk(), true), "");
    }
}

TEST(doubt, a_bit_of_the_mask_of_blob_ids_makes_no_blob) {
    doubtful d;
    d.allocate_more(true);
    constexpr uint32_t nobodys = 30;
    d.flip_in_mask(d.g.blobid_mask, nobodys);
    d.live([&d](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), plain);
        EXPECT_EQ(s->find(format::id_of_root_page(nobodys)), nullptr);
        expect_sound(*s);
        blob_ref b = co_await s->open(d.old);
        co_await s->set_xattr(b, "changed", "yes");
        b.close();
        co_await s->unload();
    });
    EXPECT_EQ(fsck(d.machine.disk(), true), "") << "the mask was not corrected";
    d.flip_in_mask(d.g.blobid_mask, nobodys);
    d.flip_in_mask(d.g.page_mask, nobodys);  // two agree: whatever it was is lost, and is said to be
    d.live([](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), plain);
        if (s->find(format::id_of_root_page(nobodys)) == nullptr) co_await fail(errc::not_found, "it is not told of");
        EXPECT_TRUE(s->find(format::id_of_root_page(nobodys))->set_aside());
        co_await s->abandon();
    });
}

// It died, and something makes its super block say that it was unloaded.
void call_unloaded(env::sim::disk& on) {
    format::page_bytes page;
    on.peek(0, page);
    format::super_block s = *format::decode_super(page, {{on.size()}, 512});
    s.clean = true;
    on.poke(0, format::encode_super(s));
}

TEST(doubt, masks_that_know_of_no_blob_delete_none) {
    for (bool change : {false, true}) {
        SCOPED_TRACE(change);
        sim_machine m(1, 4 << 20, {.volatile_cache = false});
        blob_id id = 0;
        auto made = m.live([&id](life& l) -> task<> {
            auto s = co_await store::init(l.devices, l.base(), small);
            id = co_await s->create({.clusters = 3});
            co_await write_pattern(l, *s, id, 0, 3 * blocks, 'a');
            co_await s->abandon();
        });
        EXPECT_TRUE(made) << made.error().message();
        call_unloaded(m.disk());
        auto outcome = m.live([&](life& l) -> task<> {
            auto s = co_await store::load(l.devices, l.base(), plain);
            if (s->find(id) == nullptr) co_await fail(errc::not_found, "the blob is lost");
            expect_sound(*s);
            if (change) co_await s->create({.clusters = 1});
            co_await s->unload();
        });
        EXPECT_TRUE(outcome) << outcome.error().message();
        EXPECT_EQ(fsck(m.disk(), true), "");
    }
}

// The power goes at each operation of the first change of such a store.
TEST(doubt, such_masks_are_right_before_the_store_is_changed) {
    bool over = false;
    for (uint64_t n = 0; !over; ++n) {
        SCOPED_TRACE(testing::Message() << "power cut at operation " << n);
        sim_machine m(1, 4 << 20, {.volatile_cache = false});
        blob_id id = 0;
        auto made = m.live([&id](life& l) -> task<> {
            auto s = co_await store::init(l.devices, l.base(), small);
            id = co_await s->create({.clusters = 3});
            co_await s->abandon();
        });
        EXPECT_TRUE(made) << made.error().message();
        call_unloaded(m.disk());
        auto changed = m.live([&](life& l) -> task<> {
            auto s = co_await store::load(l.devices, l.base(), plain);
            const uint64_t cut = m.disk().ops_issued() + n;
            m.disk().cut_power_at(cut, env::sim::cut_outcome::tear_all);
            co_await as_result(s->create({.clusters = 1}));
            over = m.disk().ops_issued() <= cut;
            m.disk().cut_power_at(UINT64_MAX);
            co_await s->abandon();
        });
        EXPECT_TRUE(changed) << changed.error().message();
        auto outcome = m.live([&](life& l) -> task<> {
            auto s = co_await store::load(l.devices, l.base(), plain);
            if (s->find(id) == nullptr) co_await fail(errc::not_found, "the blob is lost");
            EXPECT_FALSE(s->find(id)->set_aside());
            expect_sound(*s);
            co_await s->unload();
        });
        EXPECT_TRUE(outcome) << outcome.error().message();
    }
}

TEST(doubt, masks_delete_no_blob_that_was_written_after_the_super_block) {
    doubtful d;
    d.allocate_more(false);
    call_unloaded(d.machine.disk());
    d.live([&d](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), plain);
        if (s->find(d.young) == nullptr) co_await fail(errc::not_found, "the blob is lost");
        expect_sound(*s);
        co_await d.expect_contents(l, *s, d.young, 'y');
        co_await d.expect_kept(*s);
        co_await s->unload();
    });
    EXPECT_EQ(fsck(d.machine.disk(), true), "");
}

TEST(doubt, what_a_deletion_left_stays_deleted) {
    doubtful d;
    d.allocate_more(true);
    format::page_bytes root;
    d.machine.disk().peek(d.g.offset_of_md_page(d.pages[0]), root);
    d.live([&d](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), plain);
        co_await s->remove(d.young);
        co_await s->unload();
    });
    d.machine.disk().poke(d.g.offset_of_md_page(d.pages[0]), root);
    for (bool masks_fit : {true, false}) {
        if (!masks_fit) d.flip_in_mask(d.g.page_mask, 40);
        d.live([&d](life& l) -> task<> {
            auto s = co_await store::load(l.devices, l.base(), plain);
            EXPECT_EQ(s->find(d.young), nullptr);
            expect_sound(*s);
            co_await s->unload();
        });
    }
}

// A load after a crash has no masks to believe, and would take it for a blob. The power goes at any of the first
// change's operations, or after them.
TEST(doubt, what_a_deletion_left_goes_before_the_store_is_changed) {
    bool over = false;
    for (uint64_t n = 0; !over; ++n) {
        SCOPED_TRACE(testing::Message() << "power cut at operation " << n);
        doubtful d;
        d.allocate_more(true);
        format::page_bytes root;
        const uint64_t at = d.g.offset_of_md_page(d.pages[0]);
        d.machine.disk().peek(at, root);
        d.live([&d](life& l) -> task<> {
            auto s = co_await store::load(l.devices, l.base(), plain);
            co_await s->remove(d.young);
            co_await s->unload();
        });
        d.machine.disk().poke(at, root);
        if (n % 2 == 0) d.flip_in_mask(d.g.page_mask, 40);  // all is read
        d.live([&](life& l) -> task<> {
            auto s = co_await store::load(l.devices, l.base(), plain);
            EXPECT_EQ(s->find(d.young), nullptr);
            expect_sound(*s);
            const uint64_t cut = d.machine.disk().ops_issued() + n / 2;
            d.machine.disk().cut_power_at(cut, env::sim::cut_outcome::tear_all);
            blob_ref b = co_await s->open(d.old);
            co_await as_result(s->set_xattr(b, "changed", "yes"));
            b.close();
            over = d.machine.disk().ops_issued() <= cut;
            d.machine.disk().cut_power_at(UINT64_MAX);
            co_await s->abandon();
        });
        d.live([&](life& l) -> task<> {
            auto s = co_await store::load(l.devices, l.base(), plain);
            EXPECT_EQ(s->find(d.young), nullptr) << "it is back";
            expect_sound(*s);
            co_await d.expect_contents(l, *s, d.old, 'o');
            blob_ref b = co_await s->open(d.old);
            co_await s->set_xattr(b, "changed", "again");
            b.close();
            co_await s->unload();
        });
        EXPECT_EQ(fsck(d.machine.disk(), true), "");
    }
}

// --- damaged pages of a store that died

TEST(doubt, what_a_page_with_a_flipped_bit_names_is_kept) {
    struct place {
        int page;  // of the chain; -1: the extent page
        uint64_t byte;
    };
    // The id, a cluster number, the checksum; the id of a root, which it was found by.
    for (place at : {place{-1, 4}, place{-1, 25}, place{-1, 29}, place{-1, 4093}, place{0, 2}, place{0, 8},
                     place{0, 500}, place{1, 500}}) {
        SCOPED_TRACE(testing::Message() << "page " << at.page << " byte " << at.byte);
        doubtful d;
        d.allocate_more(false);
        d.flip(at.page < 0 ? d.extent_page : d.pages[static_cast<std::size_t>(at.page)], at.byte);
        d.live([&d](life& l) -> task<> {
            auto s = co_await store::load(l.devices, l.base(), plain);
            if (s->find(d.young) == nullptr) co_await fail(errc::not_found, "the blob is lost");
            EXPECT_TRUE(s->find(d.young)->set_aside());
            EXPECT_EQ(s->find(d.young)->allocated, 3u);
            EXPECT_EQ(s->free_clusters(), s->data_clusters() - 8);
            co_await d.expect_kept(*s);
            co_await d.expect_contents(l, *s, d.old, 'o');
            co_await s->remove(d.young);
            EXPECT_EQ(s->free_clusters(), s->data_clusters() - 5);
            co_await s->unload();
        });
        EXPECT_EQ(fsck(d.machine.disk(), true), "");
    }
}

TEST(doubt, nothing_is_free_while_it_is_not_known_what_a_blob_has) {
    for (int which : {0, 1, 2}) {  // a root, a page of a chain, an extent page
        SCOPED_TRACE(which);
        doubtful d;
        d.allocate_more(false);
        const uint32_t page = which == 2 ? d.extent_page : d.pages[static_cast<std::size_t>(which)];
        for (uint64_t byte : {300, 301, 2000}) d.flip(page, byte);
        d.live([&d](life& l) -> task<> {
            auto s = co_await store::load(l.devices, l.base(), plain);
            EXPECT_TRUE(s->find(d.young)->set_aside());
            EXPECT_EQ(s->free_clusters(), 0u);
            auto refused = co_await as_result(s->create({.clusters = 1}));
            EXPECT_EQ(refused.error().code(), errc::no_space);
            EXPECT_NE(refused.error().message().find("set aside"), std::string::npos) << refused.error().message();
            co_await d.expect_contents(l, *s, d.old, 'o');
            co_await write_pattern(l, *s, d.old, 0, 3 * blocks, 'n');  // the rest is served
            blob_ref b = co_await s->open(d.old);
            co_await s->set_xattr(b, "changed", "yes");
            b.close();
            co_await s->unload();
        });
        d.live([&d](life& l) -> task<> {  // the masks say so now
            auto s = co_await store::load(l.devices, l.base(), plain);
            EXPECT_EQ(s->free_clusters(), 0u);
            co_await s->remove(d.young);
            EXPECT_EQ(s->free_clusters(), s->data_clusters() - 5);
            co_await d.expect_contents(l, *s, d.old, 'n');
            co_await s->unload();
        });
        EXPECT_EQ(fsck(d.machine.disk(), true), "");
    }
}

TEST(doubt, a_root_page_of_which_only_the_last_masks_know) {
    doubtful d;
    d.allocate_more(false);
    format::page_bytes garbage;
    garbage.fill(std::byte{0x55});
    d.machine.disk().poke(d.g.offset_of_md_page(format::root_page_of(d.old)), garbage);
    d.live([&d](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), plain);
        if (s->find(d.old) == nullptr) co_await fail(errc::not_found, "the blob is lost");
        EXPECT_TRUE(s->find(d.old)->set_aside());
        EXPECT_EQ(s->free_clusters(), 0u);
        co_await d.expect_contents(l, *s, d.young, 'y');
        co_await s->abandon();
    });
}

// --- what cannot be read

TEST(doubt, a_page_that_cannot_be_read_sets_its_blob_aside) {
    for (bool unloaded : {true, false}) {
        for (int which : {0, 1, 2}) {
            SCOPED_TRACE(testing::Message() << "page " << which << " unloaded " << unloaded);
            doubtful d;
            d.allocate_more(true);
            if (!unloaded) {
                d.live([&d](life& l) -> task<> {
                    auto s = co_await store::load(l.devices, l.base(), plain);
                    blob_ref b = co_await s->open(d.other);
                    co_await s->set_xattr(b, "changed", "yes");
                    b.close();
                    co_await s->abandon();
                });
            }
            d.cannot_read(d.g.offset_of_md_page(which == 2 ? d.extent_page : d.pages[static_cast<std::size_t>(which)]));
            d.live([&d](life& l) -> task<> {
                auto s = co_await store::load(l.devices, l.base(), plain);
                if (s->find(d.young) == nullptr) co_await fail(errc::not_found, "the blob is lost");
                EXPECT_NE(s->find(d.young)->damage.find("cannot be read"), std::string::npos);
                EXPECT_FALSE(s->find(d.other)->set_aside());
                co_await d.expect_kept(*s);
                co_await d.expect_contents(l, *s, d.old, 'o');
                blob_ref b = co_await s->open(d.old);
                co_await s->set_xattr(b, "changed", "yes");
                b.close();
                co_await s->unload();
            });
            EXPECT_NE(fsck(d.machine.disk(), true).find("not_unloaded"), std::string::npos);
        }
    }
}

TEST(doubt, a_mask_that_cannot_be_read_is_made_anew) {
    for (int which : {0, 1, 2}) {
        doubtful d;
        d.allocate_more(true);
        d.cannot_read(d.g.offset_of(which == 0 ? d.g.page_mask : which == 1 ? d.g.cluster_mask : d.g.blobid_mask));
        d.live([&d](life& l) -> task<> {
            auto s = co_await store::load(l.devices, l.base(), plain);
            expect_sound(*s);
            co_await d.expect_contents(l, *s, d.young, 'y');
            blob_ref b = co_await s->open(d.old);
            co_await s->set_xattr(b, "changed", "yes");
            b.close();
            co_await s->unload();
        });
        EXPECT_NE(fsck(d.machine.disk(), true).find("not_unloaded"), std::string::npos) << which;
    }
}

// --- others

// SPDK leaves an extent page as it is when a blob becomes shorter within it.
TEST(doubt, clusters_a_blob_lost_do_not_come_back_when_it_grows) {
    doubtful d;
    d.live([&d](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), plain);
        d.young = co_await s->create({.clusters = 3, .thin = true});
        co_await write_pattern(l, *s, d.young, 0, 3 * blocks, 'y');
        for (uint64_t i = 0; i < 3; ++i) d.clusters.push_back(s->find(d.young)->current->at(i));
        d.extent_page = s->find(d.young)->extent_pages[0];
        co_await s->unload();
    });
    auto longer = d.clusters;
    longer.push_back(longer.back() + 1);
    longer.push_back(longer.back() + 1);
    d.machine.disk().poke(d.g.offset_of_md_page(d.extent_page),
                          format::encode_extent_page({.id = d.young, .first_cluster = 0, .clusters = longer}));
    for (bool grown : {false, true}) {
        d.live([&d, grown](life& l) -> task<> {
            auto s = co_await store::load(l.devices, l.base(), plain);
            expect_sound(*s);
            EXPECT_EQ(s->find(d.young)->allocated, 3u);
            if (!grown) {
                blob_ref b = co_await s->open(d.young);
                co_await s->resize(b, 5);
                b.close();
            }
            EXPECT_EQ(s->find(d.young)->current->at(3), no_cluster);
            EXPECT_EQ(s->find(d.young)->current->at(4), no_cluster);
            co_await s->unload();
        });
    }
    EXPECT_EQ(fsck(d.machine.disk(), true), "");
}

TEST(doubt, a_ring_of_roots_is_no_work) {
    constexpr static uint32_t pages = 8192;
    sim_machine m(1, 128 << 20, {.volatile_cache = false});
    format::geometry g;
    auto make = m.live([&g](life& l) -> task<> {
        auto s =
            co_await store::init(l.devices, l.base(), {.cluster_size = cluster, .md_page_count = pages, .trim = false});
        g = s->geometry();
        co_await s->abandon();
    });
    ASSERT_TRUE(make);
    static constexpr uint32_t used = pages - 600;  // not the double-write area
    for (uint32_t i = 0; i < used; ++i) {
        format::md_page_wire w{};
        w.id = format::id_of_root_page(i);
        w.next = (i + 1) % used;
        w.crc = format::crc_of(std::bit_cast<format::page_bytes>(w));
        m.disk().poke(g.offset_of_md_page(i), std::bit_cast<format::page_bytes>(w));
    }
    auto outcome = m.live([](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), plain);
        EXPECT_EQ(s->blobs().size(), used);
        for (blob_id id : s->blobs()) EXPECT_TRUE(s->find(id)->set_aside());
        co_await s->abandon();
    });
    EXPECT_TRUE(outcome) << outcome.error().message();
}

}  // namespace
}  // namespace varve::blob
