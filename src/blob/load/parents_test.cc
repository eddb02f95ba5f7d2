// Clones that are set aside still need what they are clones of: it is not removed under them, whether it is known whose
// clones they are or not.
#include <gmock/gmock.h>

#include "blob/load/test_doubt.h"

namespace varve::blob {
namespace {

using testing::HasSubstr;

// "old" is a snapshot, "young" and "other" are its clones. "young" has attributes on several pages, and the id of its
// parent behind them.
struct family : doubtful {
    family() {
        live([this](life& l) -> task<> {
            auto s = co_await store::load(l.devices, l.base(), plain);
            blob_ref b = co_await s->open(old);
            co_await s->set_read_only(b);
            young = co_await s->clone(b, {{"x", std::string(3900, 'x')}, {"y", std::string(3900, 'y')}});
            other = co_await s->clone(b, {});
            b.close();
            co_await write_pattern(l, *s, young, 0, blocks, 'y');
            pages = s->find(young)->record.pages;
            extent_page = s->find(young)->extent_pages[0];
            co_await s->unload();
        });
    }
    void ruin(uint32_t page) {  // more than a bit
        flip(page, 700);
        flip(page, 701);
        flip(page, 1702);
    }
    // What fsck leaves of a blob whose chain it cut behind the first page.
    void cut_by_fsck(uint64_t more_flags) {
        format::blob_record r;
        r.id = young;
        r.flags.invalid = format::invalid_flag::thin | format::invalid_flag::set_aside | more_flags;
        r.pages = {pages[0]};
        r.internal_xattrs.set(format::xattr_set_aside, "its second page is damaged");
        machine.disk().poke(g.offset_of_md_page(pages[0]), (*format::encode_chain(r))[0]);
    }
    task<std::string> why_not_removed(store& s, blob_id id) {
        result<> outcome = co_await as_result(s.remove(id));
        if (outcome) co_return "it was removed";
        EXPECT_EQ(outcome.error().code(), errc::busy);
        co_return outcome.error().message();
    }
    // One clone goes, the other one is damaged.
    void expect_kept(std::string_view why) {
        live([&](life& l) -> task<> {
            auto s = co_await store::load(l.devices, l.base(), plain);
            EXPECT_TRUE(s->find(young)->set_aside());
            EXPECT_FALSE(s->find(old)->set_aside());
            EXPECT_FALSE(s->find(other)->set_aside());
            EXPECT_NE(co_await why_not_removed(*s, old), "it was removed");
            co_await s->remove(other);
            EXPECT_THAT(co_await why_not_removed(*s, old), HasSubstr(std::string(why)));
            co_await s->remove(young);
            co_await s->remove(old);
            expect_sound(*s);
            EXPECT_EQ(s->free_clusters(), s->data_clusters());
            co_await s->unload();
        });
        EXPECT_EQ(fsck(machine.disk(), true), "");
    }
};

// Of whom nobody can see, they are not the parents: he was there before the load.
task<> expect_new_ones_go(store& s) {
    const uint32_t free = s.room().free_pages();
    blob_id origin = co_await s.create({.clusters = 1, .thin = true});
    for (bool clone_first : {false, true}) {
        blob_ref b = co_await s.open(origin);
        blob_id made = co_await s.snapshot(b, {});
        b.close();
        if (clone_first) co_await s.remove(origin);
        co_await s.remove(made);
    }
    EXPECT_EQ(s.room().free_pages(), free);
}

TEST(parents, a_snapshot_stays_for_a_clone_that_is_damaged) {
    family f;
    f.ruin(f.extent_page);
    f.expect_kept("is needed by its clone");
}

TEST(parents, a_snapshot_stays_for_a_blob_whose_parent_is_lost) {
    for (uint32_t page : {0u, 1u}) {  // the flags, or attributes, are in it
        SCOPED_TRACE(page);
        family f;
        ASSERT_EQ(f.pages.size(), 2u);
        f.ruin(f.pages[page]);
        f.expect_kept("may be a clone of snapshot");
    }
}

TEST(parents, a_snapshot_stays_for_a_blob_whose_parent_cannot_be_read) {
    for (uint32_t page : {0u, 1u}) {
        SCOPED_TRACE(page);
        family f;
        f.cannot_read(f.g.offset_of_md_page(f.pages[page]));
        f.live([&f](life& l) -> task<> {
            auto s = co_await store::load(l.devices, l.base(), plain);
            co_await s->remove(f.other);
            EXPECT_THAT(co_await f.why_not_removed(*s, f.old), HasSubstr("may be a clone of snapshot"));
            co_await s->abandon();
        });
        f.machine.disk().clear_faults();
        f.live([&f](life& l) -> task<> {
            auto s = co_await store::load(l.devices, l.base(), plain);
            EXPECT_FALSE(s->find(f.young)->set_aside());
            EXPECT_EQ(s->find(f.young)->parent, s->find(f.old));
            co_await s->unload();
        });
    }
}

TEST(parents, a_snapshot_stays_while_a_clone_may_begin_where_nothing_can_be_read) {
    family f;
    f.live([](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), plain);
        co_await s->create({.clusters = 1});
        co_await s->abandon();
    });
    f.cannot_read(f.g.offset_of_md_page(30));
    f.live([&f](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), plain);
        co_await s->remove(f.other);
        EXPECT_THAT(co_await f.why_not_removed(*s, f.old), HasSubstr("may begin in metadata page 30"));
        co_await expect_new_ones_go(*s);
        co_await s->abandon();
    });
}

TEST(parents, what_fsck_cut_off_may_have_named_a_parent) {
    family f;
    f.cut_by_fsck(format::invalid_flag::parent_lost);
    f.expect_kept("may be a clone of snapshot");
    family known;  // that it had none
    known.cut_by_fsck(0);
    known.live([&known](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), plain);
        co_await s->remove(known.other);
        co_await s->remove(known.old);
        co_await s->abandon();
    });
}

TEST(parents, what_fsck_set_aside_says_why) {
    family f;
    f.cut_by_fsck(0);
    f.live([&f](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), plain);
        EXPECT_EQ(s->find(f.young)->damage, "varve fsck set it aside: its second page is damaged");
        co_await s->abandon();
    });
}

TEST(parents, the_reason_is_that_of_who_began_it) {
    family f;
    f.live([&f](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), plain);
        for (int i = 0; i < 3; ++i) {
            blob_ref b = co_await s->open(f.other);
            co_await s->snapshot(b, {});
        }
        f.extent_page = s->find(f.old)->extent_pages[0];
        co_await s->unload();
    });
    f.ruin(f.extent_page);
    f.live([&f](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), plain);
        for (blob_id id : s->blobs()) {
            const std::string& why = s->find(id)->damage;
            if (id == f.old) continue;
            EXPECT_EQ(why, "its ancestor 0x100000000 is set aside: " + s->find(f.old)->damage);
        }
        co_await s->abandon();
    });
}

// Whoever got it would be read through the clones. No mask has it for used.
TEST(parents, the_id_of_one_that_is_gone_is_nobody_elses) {
    family f;
    blob_id volume = 0, snapshot = 0;
    f.live([&](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), plain);
        volume = co_await s->create({.clusters = 1, .thin = true});
        blob_ref b = co_await s->open(volume);
        snapshot = co_await s->snapshot(b, {});
        b.close();
        co_await s->create({.clusters = 0});  // a round of its own
        co_await s->settle();
        co_await s->abandon();
    });
    const std::vector<std::byte> nothing(format::page_size);
    f.machine.disk().poke(f.g.offset_of_md_page(format::root_page_of(snapshot)), nothing);
    f.live([&](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), plain);
        EXPECT_EQ(s->find(snapshot), nullptr);
        EXPECT_TRUE(s->find(volume)->set_aside());
        unsigned more = 0;
        for (auto made = co_await as_result(s->create({.clusters = 0})); made;
             made = co_await as_result(s->create({.clusters = 0}))) {
            EXPECT_NE(*made, snapshot);
            ++more;
        }
        EXPECT_GT(more, 10u);
        co_await s->abandon();
    });
}

// --- marks of snapshots that were being made or removed

// The snapshot's record as it is, and the mark.
void mark(doubtful& d, format::blob_record r, std::string_view how, blob_id named) {
    const le64 id = named;
    r.internal_xattrs.set(how, std::string_view(reinterpret_cast<const char*>(&id), sizeof id));
    r.flags.invalid |= format::invalid_flag::internal_xattrs;
    const auto chain = *format::encode_chain(r);
    ASSERT_EQ(chain.size(), r.pages.size());
    for (std::size_t i = 0; i < chain.size(); ++i) d.machine.disk().poke(d.g.offset_of_md_page(r.pages[i]), chain[i]);
}
format::blob_record record_of(store& s, blob_id id) {
    format::blob_record r = s.find(id)->record;
    r.extent_pages.clear();
    if (r.uses_extent_table) r.extent_pages = s.find(id)->extent_pages.runs();
    return r;
}

TEST(parents, a_snapshot_that_others_read_from_is_not_dropped_for_a_mark) {
    for (std::string_view how : {format::xattr_in_progress, format::xattr_pending_removal}) {
        for (int named : {0, 1, 2}) {  // itself, a blob that is no clone, nobody
            SCOPED_TRACE(testing::Message() << how << named);
            family f;
            format::blob_record old;
            blob_id stranger = 0;
            f.live([&](life& l) -> task<> {
                auto s = co_await store::load(l.devices, l.base(), plain);
                stranger = co_await s->create({.clusters = 1});
                old = record_of(*s, f.old);
                co_await s->unload();
            });
            mark(f, old, how, named == 0 ? f.old : named == 1 ? stranger : format::id_of_root_page(90));
            for (bool again : {false, true}) {
                f.live([&](life& l) -> task<> {
                    auto s = co_await store::load(l.devices, l.base(), plain);
                    EXPECT_NE(s->find(f.old), nullptr);
                    if (s->find(f.old) == nullptr) co_return co_await s->abandon();
                    EXPECT_FALSE(s->find(f.young)->set_aside());
                    EXPECT_EQ(s->find(f.old)->record.internal_xattrs.find(how), nullptr);
                    co_await f.expect_contents(l, *s, f.other, 'o');
                    co_await (again ? s->unload() : s->abandon());
                });
            }
            EXPECT_EQ(fsck(f.machine.disk(), true), "");
        }
    }
}

TEST(parents, a_store_without_a_free_page_is_opened_with_a_half_made_snapshot) {
    doubtful d;
    format::blob_record made;
    blob_id snapshot = 0;
    d.live([&](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), plain);
        blob_ref b = co_await s->open(d.old);
        snapshot = co_await s->snapshot(b, {{"x", std::string(3900, 'x')}, {"y", std::string(3900, 'y')}});
        b.close();
        made = record_of(*s, snapshot);
        while (co_await as_result(s->create({.clusters = 0}))) continue;
        co_await s->abandon();
    });
    ASSERT_GT(made.pages.size(), 1u);
    mark(d, made, format::xattr_in_progress, d.old);
    for (bool again : {false, true}) {
        d.live([&](life& l) -> task<> {
            auto s = co_await store::load(l.devices, l.base(), plain);
            EXPECT_NE(s->find(snapshot), nullptr);
            co_await d.expect_contents(l, *s, d.old, 'o');
            co_await (again ? s->unload() : s->abandon());
        });
    }
    EXPECT_EQ(fsck(d.machine.disk(), true), "");
}

// The mark says whose the snapshot was to be. When he has got another parent, it would say that nobody's it is.
TEST(parents, a_mark_that_could_not_be_taken_out_drops_nothing_later) {
    sim_machine m(1, 2 << 20, {.volatile_cache = false});
    blob_id volume = 0, snapshot = 0;
    auto live = [&m](auto body) {
        auto outcome = m.live(body);
        EXPECT_TRUE(outcome) << outcome.error().message();
    };
    live([&](life& l) -> task<> {  // without a double-write area
        auto s = co_await store::init(l.devices, l.base(), {.cluster_size = 8192, .md_page_count = 20, .trim = false});
        volume = co_await s->create({.clusters = 4, .thin = true});
        co_await write_pattern(l, *s, volume, 0, 16, 'o');
        blob_ref b = co_await s->open(volume);
        snapshot = co_await s->snapshot(b, {{"x", std::string(3900, 'x')}, {"y", std::string(3900, 'y')}});
        b.close();
        format::blob_record r = record_of(*s, snapshot);
        while (co_await as_result(s->create({.clusters = 0}))) continue;
        co_await s->settle();
        const format::geometry g = s->geometry();
        co_await s->abandon();
        r.internal_xattrs.set(format::xattr_in_progress, text_of(volume));
        r.flags.invalid |= format::invalid_flag::internal_xattrs;
        const auto chain = *format::encode_chain(r);
        EXPECT_EQ(chain.size(), r.pages.size());
        for (std::size_t i = 0; i < chain.size(); ++i) m.disk().poke(g.offset_of_md_page(r.pages[i]), chain[i]);
    });
    live([&](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), {.trim = false});
        EXPECT_NE(s->find(snapshot), nullptr);
        for (blob_id each : s->blobs()) {
            if (s->find(each)->record.cluster_count == 0) co_await s->remove(each);
        }
        blob_ref b = co_await s->open(volume);
        co_await s->detach_parent(b);
        b.close();
        co_await s->settle();
        co_await s->abandon();
    });
    live([&](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), {.trim = false});
        EXPECT_NE(s->find(snapshot), nullptr);
        co_await s->unload();
    });
    EXPECT_EQ(fsck(m.disk(), true), "");
}

}  // namespace
}  // namespace varve::blob
