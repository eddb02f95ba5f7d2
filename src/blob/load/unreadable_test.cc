// Metadata that cannot be read: no more is kept from others than what may be somebody's, it is said why, and it ends.
#include <gmock/gmock.h>

#include "blob/load/test_doubt.h"

namespace varve::blob {
namespace {

using testing::HasSubstr;

constexpr uint32_t nobodys = 30;

TEST(unreadable, a_page_of_nobody_in_a_store_that_died_may_be_anybodys) {
    doubtful d;
    d.allocate_more(false);
    d.cannot_read(d.g.offset_of_md_page(nobodys));
    d.live([&d](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), plain);
        EXPECT_EQ(s->free_clusters(), 0u);
        EXPECT_THAT(s->trouble(), HasSubstr("metadata pages 30 cannot be read"));
        EXPECT_THAT(s->trouble(), HasSubstr("--rewrite-unreadable"));
        co_await d.expect_contents(l, *s, d.young, 'y');
        co_await s->abandon();
    });
    d.machine.disk().clear_faults();
    d.live([](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), plain);
        EXPECT_EQ(s->free_clusters(), s->data_clusters() - 8);
        EXPECT_EQ(s->trouble(), "");
        co_await s->unload();
    });
    EXPECT_EQ(fsck(d.machine.disk(), true), "");
}

TEST(unreadable, the_masks_of_a_store_that_was_unloaded_tell_of_a_page_of_nobody) {
    doubtful d;
    d.allocate_more(true);
    d.flip_in_mask(d.g.page_mask, nobodys);  // so that all is read
    d.cannot_read(d.g.offset_of_md_page(nobodys + 1));
    d.live([](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), plain);
        EXPECT_EQ(s->free_clusters(), s->data_clusters() - 8);
        EXPECT_EQ(s->trouble(), "");
        co_await s->unload();
    });
}

TEST(unreadable, what_fails_once_is_read_again) {
    doubtful d;
    d.allocate_more(false);
    d.cannot_read(d.g.offset_of_md_page(nobodys), 2);  // with others, and alone
    d.live([](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), plain);
        EXPECT_EQ(s->free_clusters(), s->data_clusters() - 8);
        expect_sound(*s);
        co_await s->unload();
    });
    EXPECT_EQ(fsck(d.machine.disk(), true), "");
}

TEST(unreadable, a_page_of_the_double_write_area_is_nobodys) {
    doubtful d;
    d.allocate_more(false);
    const format::double_write_area area = d.area;
    d.cannot_read(d.g.offset_of_md_page(area.first + area.page_count() - 1));
    d.live([&d](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), plain);
        EXPECT_EQ(s->free_clusters(), s->data_clusters() - 8);
        expect_sound(*s);
        co_await d.expect_kept(*s);
        co_await s->unload();
    });
    EXPECT_EQ(fsck(d.machine.disk(), true), "");
}

// When the blob goes whose pages could not be read, everything is known, and readable.
TEST(unreadable, pages_of_a_blob_trouble_nobody_any_more_when_it_is_removed) {
    for (int which : {0, 1, 2}) {  // a page of its chain, its last, its extent page
        SCOPED_TRACE(which);
        doubtful d;
        d.allocate_more(false);
        const uint32_t page = which == 0 ? d.pages[1] : which == 1 ? d.pages.back() : d.extent_page;
        d.cannot_read(d.g.offset_of_md_page(page));
        d.live([&d](life& l) -> task<> {
            auto s = co_await store::load(l.devices, l.base(), plain);
            EXPECT_TRUE(s->find(d.young)->set_aside());
            EXPECT_EQ(s->free_clusters(), 0u);
            EXPECT_THAT(s->trouble(), HasSubstr("before the blobs are removed"));
            d.machine.disk().clear_faults();  // as a medium does where it is written
            co_await s->remove(d.young);
            EXPECT_EQ(s->free_clusters(), s->data_clusters() - 5);
            EXPECT_EQ(s->trouble(), "");
            expect_sound(*s);
            co_await s->unload();
        });
        EXPECT_EQ(fsck(d.machine.disk(), true), "");
        format::page_bytes now;
        d.machine.disk().peek(d.g.offset_of_md_page(page), now);
        EXPECT_TRUE(format::is_clear(now));
    }
}

TEST(unreadable, what_stays_unreadable_is_not_taken_for_written) {
    doubtful d;
    d.allocate_more(false);
    d.cannot_read(d.g.offset_of_md_page(d.extent_page));
    d.live([&d](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), plain);
        co_await s->remove(d.young);
        EXPECT_EQ(s->free_clusters(), s->data_clusters() - 5);
        co_await s->unload();
        EXPECT_FALSE(s->super().clean);
    });
}

// --- the double-write area

// "old" has been changed; its root lies in place, or is as it was before.
void change_old(doubtful& d, bool in_place) {
    d.allocate_more(true);
    format::page_bytes before;
    const uint64_t root = d.g.offset_of_md_page(format::root_page_of(d.old));
    d.machine.disk().peek(root, before);
    d.live([&d](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), plain);
        blob_ref b = co_await s->open(d.old);
        co_await s->set_xattr(b, "changed", "yes");
        b.close();
        co_await s->abandon();
    });
    if (!in_place) d.machine.disk().poke(root, before);
}

void expect_change(doubtful& d, bool there) {
    d.live([&d, there](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), plain);
        EXPECT_EQ(s->find(d.old)->record.xattrs.find("changed") != nullptr, there);
        expect_sound(*s);
        co_await s->abandon();
    });
}

TEST(unreadable, the_last_change_is_not_given_up) {
    for (uint32_t page : {0u, 1u}) {  // its header, an image
        SCOPED_TRACE(page);
        doubtful d;
        change_old(d, false);
        d.cannot_read(d.g.offset_of_md_page(d.area.first + page));
        auto outcome = d.machine.live([](life& l) -> task<> {
            auto s = co_await store::load(l.devices, l.base(), plain);
            co_await s->abandon();
        });
        if (outcome) FAIL() << "what was committed was given up";
        EXPECT_EQ(outcome.error().code(), errc::io);
        EXPECT_THAT(outcome.error().message(), HasSubstr("may hold the last change before the store died"));
        EXPECT_THAT(outcome.error().message(), HasSubstr("varve fsck --repair --rewrite-unreadable"));
        d.machine.disk().clear_faults();
        expect_change(d, true);
    }
}

TEST(unreadable, the_last_change_need_not_be_read_where_it_lies_in_place) {
    doubtful d;
    change_old(d, true);
    d.cannot_read(d.g.offset_of_md_page(d.area.first + 1));
    expect_change(d, true);
}

TEST(unreadable, the_last_change_is_read_again) {
    for (uint32_t page : {0u, 1u}) {
        doubtful d;
        change_old(d, false);
        d.cannot_read(d.g.offset_of_md_page(d.area.first + page), 3);
        expect_change(d, true);
    }
}

TEST(unreadable, a_store_that_was_unloaded_has_no_last_change) {
    doubtful d;
    d.allocate_more(true);
    d.cannot_read(d.g.offset_of_md_page(d.area.first));
    d.live([&d](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), plain);
        expect_sound(*s);
        co_await d.expect_contents(l, *s, d.old, 'o');
        blob_ref b = co_await s->open(d.old);
        co_await s->set_xattr(b, "changed", "yes");
        b.close();
        co_await s->unload();
        EXPECT_TRUE(s->super().clean);
    });
    EXPECT_EQ(fsck(d.machine.disk(), true), "");
}

// --- of which a bit flipped

TEST(unreadable, a_flipped_bit_hides_no_change_that_was_committed) {
    for (int which : {0, 1, 2, 3, 4}) {
        SCOPED_TRACE(which);
        doubtful d;
        change_old(d, which == 4);
        if (which == 0) d.machine.disk().flip_bit(d.g.offset_of(d.g.page_mask) + 1, 2);
        if (which == 1) d.flip_in_mask(d.g.page_mask, d.area.first);
        if (which == 2) d.flip(d.area.first, 70);
        if (which == 3) d.flip(d.area.first + 1, 700);
        if (which == 4) d.machine.disk().poke(d.g.offset_of_md_page(d.area.first + 1), format::page_bytes{});
        expect_change(d, true);
    }
}

TEST(unreadable, a_damaged_header_is_not_taken_for_none) {
    doubtful d;
    change_old(d, false);
    d.flip(d.area.first, 2);
    d.flip(d.area.first, 3);
    auto outcome = d.machine.live([](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), plain);
        co_await s->abandon();
    });
    if (outcome) FAIL() << "what was committed was given up";
    EXPECT_EQ(outcome.error().code(), errc::bad_sequence);
    EXPECT_THAT(outcome.error().message(), HasSubstr("is damaged, and may hold the last change before the store died"));
}

}  // namespace
}  // namespace varve::blob
