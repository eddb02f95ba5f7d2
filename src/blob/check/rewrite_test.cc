// Pages that cannot be read: what may be in them, and what it takes to write them anew.
#include <gmock/gmock.h>

#include <algorithm>

#include "blob/check/descriptors.h"
#include "blob/check/test_repair.h"

namespace varve::blob::check {
namespace {

using testing::HasSubstr;
using store = test_store;

constexpr uint32_t nobodys = 20;

repair_plan give_up(store& s) {
    evidence e = *inspect(s);
    const auto found = examine(e, {.give_up_unreadable = true});
    auto plan = plan_repair(e, found);
    s.apply(plan);
    return plan;
}
bool loses_anything(const repair_plan& plan) { return std::ranges::any_of(plan.changes, &change::lost); }

TEST(blob_rewrite, a_page_nobody_names_is_given_up_when_that_is_asked_for) {
    store s(false);
    s.bad_pages = {s.offset_of(nobodys)};
    const auto found = check_of(s);
    EXPECT_THAT(all_text(found), HasSubstr("unreadable error page 20: Input/output error; no blob names it"));
    EXPECT_THAT(all_text(found), HasSubstr("owners_unknown note"));
    EXPECT_FALSE(loses_anything(repair(s)));
    EXPECT_EQ(s.bad_pages.size(), 1u);

    const auto before = s.bytes;
    const auto plan = give_up(s);
    ASSERT_TRUE(loses_anything(plan));
    EXPECT_THAT(plan.changes[0].why, HasSubstr("page 20: written anew, since it cannot be read (Input/output error)"));
    EXPECT_TRUE(check_of(s).findings.empty()) << all_text(check_of(s));
    EXPECT_TRUE(inspect(s)->store()->clean);
    EXPECT_LT(check_of(s).used_clusters.count(), s.layout().cluster_count);

    const auto journal = *decode_journal(encode_journal(plan));
    EXPECT_TRUE(journal.changes[0].lost);
    EXPECT_EQ(std::ranges::count(journal.changes, true, &change::lost), 1);
    EXPECT_EQ(journal.changes[0].why, plan.changes[0].why);
    s.apply(*plan_undo(journal, s));
    EXPECT_EQ(s.bytes, before) << "all but that page is as it was, and it was clear here";
}

TEST(blob_rewrite, a_repair_that_ended_before_the_page_was_written_can_be_taken_back) {
    store s(false);
    s.bad_pages = {s.offset_of(nobodys)};
    evidence e = *inspect(s);
    const auto plan = plan_repair(e, examine(e, {.give_up_unreadable = true}));
    const auto undo = plan_undo(plan, s);
    ASSERT_TRUE(undo) << undo.error().message();
    EXPECT_TRUE(undo->empty());
}

TEST(blob_rewrite, pages_of_blobs_are_not_given_up) {
    for (bool clean : {true, false}) {
        for (uint32_t page : {4u, 13u, uint32_t{store::thin}}) {  // an extent page, of a chain, a root
            SCOPED_TRACE(testing::Message() << page << " clean " << clean);
            store s(clean);
            s.bad_pages = {s.offset_of(page)};
            const auto whole = s.get(page);
            EXPECT_FALSE(loses_anything(give_up(s)));
            EXPECT_EQ(s.get(page), whole);
            EXPECT_GT(check_of(s).errors(), 0u);
        }
    }
}

TEST(blob_rewrite, a_page_of_the_double_write_area_hides_no_blob) {
    store s(false);
    s.bad_pages = {s.offset_of(55)};
    const auto found = check_of(s);
    EXPECT_LT(found.used_clusters.count(), s.layout().cluster_count) << all_text(found);
    EXPECT_THAT(all_text(found), HasSubstr("unreadable error page 55: Input/output error; it is of no blob"));
    repair(s);
    EXPECT_TRUE(inspect(s)->store()->clean);
    store lost(false);  // unless others have it
    for (uint32_t page = 50; page < 64; ++page) lost.pages_used.reset(page);
    lost.write_masks();
    lost.bad_pages = {lost.offset_of(55)};
    EXPECT_EQ(check_of(lost).used_clusters.count(), lost.layout().cluster_count);
}

TEST(blob_rewrite, a_clean_store_tells_which_pages_are_free) {
    store s;
    s.bad_pages = {s.offset_of(nobodys)};
    s.clusters_used.set(60);
    s.write_masks();
    EXPECT_THAT(all_text(check_of(s)), HasSubstr("leaked error used_cluster_mask: clusters 60"));
    s.pages_used.set(nobodys);
    s.write_masks();
    EXPECT_THAT(all_text(check_of(s)), Not(HasSubstr("leaked"))) << "a blob in that page may have it";
}

TEST(blob_rewrite, what_fails_once_is_read_again) {
    store s;
    s.bad_pages = {s.layout().offset_of(s.layout().cluster_mask)};
    s.bad_times = 1;
    EXPECT_EQ(check_of(s).errors(), 0u);
    s.bad_pages = {s.offset_of(4)};
    s.bad_times = 2;  // with others, and alone
    EXPECT_EQ(check_of(s).errors(), 0u);
}

TEST(blob_rewrite, what_a_page_should_be_is_written_over_what_cannot_be_read) {
    store s(false);
    const auto image = s.get(store::thick);
    s.put(50, format::encode_double_write({.sequence = 5,
                                           .flags = format::double_write_flag::redo,
                                           .store = s.super.extension->store,
                                           .own_page = 50,
                                           .images = {{store::thick, format::crc_of_image(image)}}}));
    s.put(51, image);
    s.put(store::thick, {});
    s.bad_pages = {s.offset_of(store::thick)};
    const auto found = check_of(s);
    EXPECT_EQ(found.errors(), 0u) << all_text(found);
    const auto plan = repair(s);
    ASSERT_FALSE(plan.empty());
    EXPECT_TRUE(plan.changes[0].lost);
    EXPECT_EQ(s.get(store::thick), image);
    EXPECT_TRUE(check_of(s).findings.empty()) << all_text(check_of(s));
}

// The last round rewrote a root, and cleared another, which cannot be read: nothing of it is known, and nothing is
// lost.
TEST(blob_rewrite, a_page_that_was_cleared_and_cannot_be_read_is_written_anew) {
    store s(false);
    const auto image = s.get(store::thick);
    s.put(50, format::encode_double_write({.sequence = 5,
                                           .flags = format::double_write_flag::redo,
                                           .store = s.super.extension->store,
                                           .own_page = 50,
                                           .images = {{store::thick, format::crc_of_image(image)},
                                                      {nobodys, format::crc_of_image(format::page_bytes{})}}}));
    s.put(51, image);
    s.record(store::thick).xattrs.set("older", "yes");
    s.write(s.record(store::thick));
    s.bad_pages = {s.offset_of(nobodys)};
    EXPECT_THAT(all_text(check_of(s)), HasSubstr("unreadable note page 20: Input/output error; what it should be"));
    const auto plan = repair(s);
    for (const change& c : plan.changes) EXPECT_EQ(c.lost, c.offset == s.offset_of(nobodys)) << c.why;
    EXPECT_TRUE(s.bad_pages.empty());
    EXPECT_EQ(s.get(store::thick), image);
    EXPECT_TRUE(check_of(s).findings.empty()) << all_text(check_of(s));
    EXPECT_TRUE(plan_undo(plan, s));
}

// --- blobs of which a page cannot be read

TEST(blob_rewrite, a_blob_is_not_changed_for_what_cannot_be_read) {
    for (bool clean : {true, false}) {
        // Extent pages of a thick and a thin one, a page of a chain, a root.
        for (uint32_t page : {2u, 4u, 13u, uint32_t{store::clone}}) {
            SCOPED_TRACE(testing::Message() << page << " clean " << clean);
            store s(clean);
            std::vector<format::page_bytes> before;
            for (uint32_t p = 0; p < 50; ++p) before.push_back(s.get(p));
            s.bad_pages = {s.offset_of(page)};
            const auto found = check_of(s);
            EXPECT_GT(found.errors(), 0u);
            for (const finding& f : found.findings) EXPECT_FALSE(f.repairable && !f.blobs.empty()) << f.text;
            if (page != store::clone) EXPECT_THAT(all_text(found), HasSubstr("left as it is while it cannot be read"));
            const auto plan = repair(s);
            for (const change& c : plan.changes) EXPECT_THAT(c.why, Not(HasSubstr("block: unloaded")));
            s.bad_pages.clear();
            for (uint32_t p = 0; p < 50; ++p) EXPECT_EQ(s.get(p), before[p]) << p;
            repair(s);
            EXPECT_TRUE(check_of(s).findings.empty()) << all_text(check_of(s));
        }
    }
}

TEST(blob_rewrite, a_super_block_says_what_it_is_changed_to) {
    store s(false);
    s.bad_pages = {s.offset_of(nobodys)};
    s.flip(4, 40, 1);
    const auto plan = repair(s);
    EXPECT_TRUE(std::ranges::any_of(plan.changes, [](const change& c) {
        return c.why == "super block: a new sequence number; the store stays not unloaded";
    }));
    EXPECT_FALSE(inspect(s)->store()->clean);
}

// --- masks that cannot be read

TEST(blob_rewrite, a_store_that_was_unloaded_stays_so_when_a_mask_cannot_be_read) {
    for (auto type :
         {format::mask_type::used_pages, format::mask_type::used_clusters, format::mask_type::used_blobids}) {
        SCOPED_TRACE(format::name_of(type));
        store s;
        s.damage(store::old);  // a first page
        s.flip(4, 40, 1);
        const auto masks = [&s] {
            const auto at = s.bytes.begin() + static_cast<std::ptrdiff_t>(s.layout().offset_of(s.layout().blobid_mask));
            return std::vector<std::byte>(at, at + 4096);
        };
        const auto ids = masks();
        s.bad_pages = {s.layout().offset_of(region_of(type, s.layout()))};
        const auto plan = repair(s);
        ASSERT_FALSE(plan.empty());
        EXPECT_TRUE(inspect(s)->store()->clean);
        EXPECT_EQ(std::ranges::count(plan.changes, "super block: a new sequence number", &change::why), 1);
        EXPECT_TRUE(repair(s).empty());
        EXPECT_EQ(masks(), ids) << "a blob that may come back was dropped from the mask";
        s.bad_pages.clear();
        EXPECT_THAT(all_text(check_of(s)), HasSubstr("bad_root error page 12"));
        EXPECT_TRUE(check_of(s).can_be_clean);
    }
}

// --- whether there was a last change

struct with_a_round : store {
    explicit with_a_round(bool in_place) : store(false), image(get(thick)), other(get(thin)) {
        put(50, format::encode_double_write(
                    {.sequence = 5,
                     .flags = format::double_write_flag::redo,
                     .store = super.extension->store,
                     .own_page = 50,
                     .images = {{thick, format::crc_of_image(image)}, {thin, format::crc_of_image(other)}}}));
        put(51, image);
        put(52, other);
        if (in_place) return;
        format::blob_record& r = record(thick);
        r.xattrs.set("older", "yes");
        write(r);
    }
    const format::page_bytes image, other;
};

TEST(blob_rewrite, a_change_that_cannot_be_read_is_given_up_only_when_that_is_asked_for) {
    for (uint32_t page : {50u, 51u}) {
        SCOPED_TRACE(page);
        with_a_round s(false);
        const auto old = s.get(store::thick);
        s.bad_pages = {s.offset_of(page)};
        s.damage(13);
        const auto found = check_of(s);
        EXPECT_FALSE(found.loadable);
        EXPECT_THAT(all_text(found), HasSubstr("may hold the last change before the store died"));
        for (const finding& f : found.findings) EXPECT_FALSE(f.repairable) << f.text;
        EXPECT_TRUE(repair(s).empty());
        const auto plan = give_up(s);
        EXPECT_TRUE(loses_anything(plan));
        EXPECT_EQ(s.get(store::thick), old) << "a part of the change was made";
        EXPECT_TRUE(check_of(s).loadable);
        EXPECT_EQ(check_of(s).errors(), 0u) << all_text(check_of(s));
        EXPECT_TRUE(check_of(s).mended.empty());
        EXPECT_TRUE(inspect(s)->store()->clean);
    }
}

TEST(blob_rewrite, a_change_that_lies_in_place_need_not_be_read) {
    with_a_round s(true);
    s.bad_pages = {s.offset_of(51)};
    EXPECT_TRUE(check_of(s).loadable) << all_text(check_of(s));
    with_a_round half(false);  // the other one is not
    half.damage(store::thin);
    half.bad_pages = {half.offset_of(52)};
    EXPECT_FALSE(check_of(half).loadable);
    with_a_round uncommitted(false);  // an image was not written, and nothing in place
    uncommitted.bad_pages = {uncommitted.offset_of(51)};
    uncommitted.damage(52);
    uncommitted.record(store::thin).xattrs.set("older", "yes");
    uncommitted.write(uncommitted.record(store::thin));
    EXPECT_TRUE(check_of(uncommitted).loadable) << all_text(check_of(uncommitted));
}

// --- of which a bit flipped

TEST(blob_rewrite, a_flipped_bit_hides_no_change_that_was_committed) {
    for (int which : {0, 1, 2, 3, 4}) {
        SCOPED_TRACE(which);
        with_a_round s(false);
        const auto mask = s.layout().offset_of(s.layout().page_mask);
        if (which == 0) s.bytes[mask + 1] ^= std::byte{4};           // header of the mask of used pages
        if (which == 1) s.bytes[mask + 5 + 50 / 8] ^= std::byte{4};  // its bit of page 50
        if (which == 2) s.flip(50, 70, 3);
        if (which == 3) s.flip(51, 700, 3);
        if (which == 4) s.flip(52, 700, 3);  // lies in place
        const auto found = check_of(s);
        EXPECT_THAT(all_text(found), HasSubstr("page 1: a write of it did not end; page 51 holds what it should be"));
        EXPECT_THAT(all_text(found), Not(HasSubstr("recovered by SPDK")));
        if (which == 0) EXPECT_THAT(all_text(found), HasSubstr("bad_mask error used_page_mask"));
        if (which == 1) EXPECT_THAT(all_text(found), HasSubstr("unmarked error used_page_mask: pages 50"));
        repair(s);
        EXPECT_EQ(s.get(store::thick), s.image);
        EXPECT_TRUE(check_of(s).findings.empty()) << all_text(check_of(s));
        EXPECT_TRUE(inspect(s)->store()->extension->double_write.exists());
    }
}

TEST(blob_rewrite, a_change_that_is_damaged_is_given_up_only_when_that_is_asked_for) {
    for (bool header : {true, false}) {
        SCOPED_TRACE(header);
        with_a_round s(false);
        const auto old = s.get(store::thick);
        if (header)
            s.at(50)[2] ^= std::byte{0x11};
        else
            s.damage(51);  // the other lies in place: it was committed
        const auto found = check_of(s);
        EXPECT_FALSE(found.loadable);
        EXPECT_THAT(all_text(found), HasSubstr("may hold the last change before the store died, and is damaged"));
        EXPECT_TRUE(repair(s).empty());
        give_up(s);
        EXPECT_EQ(s.get(store::thick), old);
        EXPECT_TRUE(check_of(s).findings.empty()) << all_text(check_of(s));
    }
}

// --- marks that no crash left

TEST(blob_rewrite, a_mark_of_a_snapshot_with_other_clones_is_taken_out) {
    for (std::string_view mark : {format::xattr_in_progress, format::xattr_pending_removal}) {
        for (uint32_t named : {uint32_t{store::thick}, uint32_t{store::snap1}, 40u}) {
            SCOPED_TRACE(testing::Message() << mark << named);
            store s;
            format::blob_record& r = s.record(store::snap1);
            r.flags.data_read_only = 0;
            const le64 id = format::id_of_root_page(named);
            r.internal_xattrs.set(mark, std::string_view(reinterpret_cast<const char*>(&id), sizeof id));
            r.flags.invalid |= format::invalid_flag::internal_xattrs;
            s.write(r);
            expect_repaired(s, {"half_made_snapshot error blob 0x100000006"}, 0);
            repair(s);
            const auto now = check_of(s);
            const auto* snapshot = now.find(r.id);
            EXPECT_EQ(snapshot->record.flags.data_read_only, format::data_ro_flag::read_only) << "as every snapshot";
        }
    }
}

// --- what hostile metadata says twice

TEST(blob_rewrite, a_mark_that_is_there_twice_is_taken_out_at_once) {
    store s;
    format::blob_record& r = s.record(store::snap1);
    const le64 id = r.id;
    for (int i = 0; i < 3; ++i) {
        r.internal_xattrs.append(
            {std::string(format::xattr_in_progress), std::string(reinterpret_cast<const char*>(&id), sizeof id)});
        r.xattrs.append({.name = "between", .value = "them"});
    }
    r.flags.invalid |= format::invalid_flag::internal_xattrs;
    s.write(r);
    expect_repaired(s, {"half_made_snapshot error blob 0x100000006"}, 0);
}

// The last flags of a chain count.
struct with_later_flags : store {
    explicit with_later_flags(uint64_t data_read_only) {
        const std::size_t end = for_each_descriptor(get(13), [](auto, auto, auto) {});
        poke(13, end,
             format::flags_wire{
                 .header = {.type = static_cast<uint8_t>(format::descriptor_type::flags), .length = 3 * sizeof(le64)},
                 .invalid = 0,
                 .data_read_only = data_read_only,
                 .md_read_only = 0});
    }
    const examined_blob& its(const examination& found) { return *found.find(format::id_of_root_page(old)); }
};

TEST(blob_rewrite, flags_in_a_later_page_are_changed_too) {
    with_later_flags shares(0);
    shares.add(20, "other", {shares.record(store::old).runs[0].first}, {}, false, false);
    shares.write_masks();
    expect_repaired(shares, {"shared_clusters error"}, 0);
    repair(shares);
    EXPECT_TRUE(shares.its(check_of(shares)).aside());

    with_later_flags damaged(0);
    const format::page_bytes root = damaged.get(store::old);
    const std::size_t end = for_each_descriptor(root, [](auto, auto, auto) {});
    damaged.poke(store::old, end, format::descriptor_header_wire{.type = 4, .length = 1});  // no attribute
    expect_repaired(damaged, {"bad_page error blob 0x10000000c"}, 0);
    repair(damaged);
    EXPECT_EQ(damaged.its(check_of(damaged)).record.access(), format::blob_access::none);

    with_later_flags restored(format::data_ro_flag::set_aside);
    expect_repaired(restored, {"what it was set aside for is gone"}, 0);
    repair(restored);
    EXPECT_EQ(restored.its(check_of(restored)).record.access(), format::blob_access::full);
}

}  // namespace
}  // namespace varve::blob::check
