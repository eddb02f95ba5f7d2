#include <gmock/gmock.h>

#include <functional>

#include "blob/check/journal.h"
#include "blob/check/report.h"
#include "blob/check/test_repair.h"
#include "json/write.h"

namespace varve::blob::check {
namespace {

using testing::HasSubstr;
using store = test_store;

TEST(blob_check, a_whole_store_is_clean) {
    store s;
    const auto found = check_of(s);
    EXPECT_TRUE(found.findings.empty()) << all_text(found);
    EXPECT_TRUE(found.loadable);
    EXPECT_EQ(found.blobs.size(), 7u);
    EXPECT_EQ(found.find(format::id_of_root_page(store::thick))->allocated, 5u);
    EXPECT_EQ(found.find(format::id_of_root_page(store::clone))->parent, format::id_of_root_page(store::snap2));
    EXPECT_TRUE(repair(s).empty());
}

TEST(blob_check, every_page_is_read_once) {
    store s;
    check_of(s);
    EXPECT_EQ(s.reads, 1 + 3 + s.layout().md.count);  // super block, masks of a page each, metadata
}

TEST(blob_check, a_store_that_was_not_unloaded_has_no_errors) {
    store s(false);
    s.clusters_used = format::bit_mask(s.layout().cluster_count);
    s.write_masks();
    EXPECT_EQ(check_of(s).errors(), 0u) << all_text(check_of(s));
    expect_repaired(s, {"not_unloaded note"}, 0);
    repair(s);
    EXPECT_TRUE(check_of(s).findings.empty());
}

TEST(blob_check, shared_clusters_set_both_owners_aside) {
    store s;
    const auto stolen = check_of(s).find(format::id_of_root_page(store::thick))->extents[0].clusters[2];
    s.poke(4, 16 + 9 + 4 * 7, le32(stolen));  // thin's first extent page
    expect_repaired(s, {"shared_clusters error", "belong to both blob 0x100000001 and blob 0x100000003"}, 0);
    repair(s);
    const auto after = check_of(s);
    for (uint32_t root : {store::thick, store::thin})
        EXPECT_EQ(after.find(format::id_of_root_page(root))->record.access(), format::blob_access::read_only);
    EXPECT_NE(
        after.find(format::id_of_root_page(store::thick))->record.flags.invalid & format::invalid_flag::internal_xattrs,
        0u);
    EXPECT_THAT(all_text(after), HasSubstr("set_aside note blob 0x100000001 (read only): was set aside: clusters"));
}

TEST(blob_check, a_cluster_twice_in_one_blob) {
    store s;
    s.poke(2, 16 + 9, le32(s.layout().first_data_cluster + 1));
    expect_repaired(s, {"blob 0x100000001: has clusters", "twice"}, 0);
}

TEST(blob_check, shared_extent_page) {
    store s;
    format::blob_record& r = s.record(store::clone);
    r.extent_pages = {{9, 1}};
    s.write(r);
    expect_repaired(s, {"shared_page error", "pages 9 belong to both", "they are kept until these are removed"}, 0);
}

TEST(blob_check, damaged_extent_page_sets_its_blob_aside) {
    store s;
    s.damage(4);
    expect_repaired(s, {"bad_page error blob 0x100000003: page 4: crc is"}, 0);
    repair(s);
    const auto after = check_of(s);
    const auto* thin = after.find(format::id_of_root_page(store::thin));
    EXPECT_EQ(thin->record.access(), format::blob_access::none);
    EXPECT_FALSE(thin->broken()) << thin->wrong;
    EXPECT_EQ(thin->allocated, 2u);
    EXPECT_TRUE(after.used_pages.test(4)) << "what may be restored stays";
}

TEST(blob_check, damaged_chain_page) {
    store s;
    s.damage(13);
    expect_repaired(s, {"bad_page error blob 0x10000000c: page 13: crc is"}, 0);
}

TEST(blob_check, stale_chain_page) {
    store s;
    s.poke(13, 12, le32(99));
    expect_repaired(s, {"page 13: stamp is 99", "of another time"}, 0);
    repair(s);
    const auto after = check_of(s);
    EXPECT_EQ(after.find(format::id_of_root_page(store::old))->record.pages.size(), 1u);
    EXPECT_FALSE(after.find(format::id_of_root_page(store::old))->broken()) << "the chain should end where it was cut";
}

TEST(blob_check, chains_that_lead_nowhere) {
    for (uint32_t next : {uint32_t{store::old}, 13u, 1u, 99999u}) {
        store s;
        s.poke(13, 4088, le32(next));
        expect_repaired(s, {"bad_page error blob 0x10000000c: page"}, 0);
    }
}

TEST(blob_check, clusters_outside_of_the_store) {
    store s;
    s.poke(2, 16 + 9 + 4, le32(64));
    expect_repaired(s, {"bad_page error blob 0x100000001: page 2: cluster 1 of the blob is at 64"}, 0);
    repair(s);
    const auto after = check_of(s);
    EXPECT_EQ(after.find(format::id_of_root_page(store::thick))->allocated, 4u);
    EXPECT_FALSE(after.find(format::id_of_root_page(store::thick))->broken());
}

TEST(blob_check, damaged_root_is_an_error_that_stays) {
    store s;
    s.damage(store::clone);
    expect_repaired(s, {"bad_root error page 10: should be the first page of blob 0x10000000a, and is damaged"}, 1);
    store dirty(false);
    dirty.damage(store::clone);
    expect_repaired(dirty, {"bad_root error page 10"}, 1);
}

TEST(blob_check, what_a_deletion_left) {
    store s;
    forget_in_masks(s, store::old);
    expect_repaired(s, {"stale_root error page 12"}, 0);
}

TEST(blob_check, missing_and_circular_parents) {
    store s;
    const format::page_bytes none{};
    s.put(store::snap1, none);
    s.put(7, none);
    s.ids_used.reset(store::snap1);
    s.write_masks();
    expect_repaired(s, {"missing_parent error blob 0x100000008: reads from snapshot 0x100000006", "(over its parents)"},
                    2);
    store round;
    const le64 id = format::id_of_root_page(store::clone);
    format::blob_record& r = round.record(store::snap1);
    r.internal_xattrs.set(format::xattr_parent, std::string_view(reinterpret_cast<const char*>(&id), 8));
    round.write(r);
    expect_repaired(round, {"its parents go in a circle"}, 3);
}

// As SPDK leaves the clone of a snapshot it removes, when that was itself a clone of an external snapshot.
TEST(blob_check, a_clone_of_an_external_snapshot_has_no_other_parent) {
    store s;
    const auto before = check_of(s);
    const auto& gone = before.find(format::id_of_root_page(store::snap2))->extents[0];
    s.clusters_used.reset(gone.clusters[1]);
    s.put(store::snap2, {});
    s.put(9, {});
    s.pages_used.reset(store::snap2);
    s.pages_used.reset(9);
    s.ids_used.reset(store::snap2);
    format::blob_record& r = s.record(store::clone);
    r.flags.invalid |= format::invalid_flag::external_snapshot;
    r.internal_xattrs.set(format::xattr_external_parent, std::string(36, 'u') + '\0');
    s.write(r);
    s.write_masks();
    const auto found = check_of(s);
    EXPECT_TRUE(found.findings.empty()) << all_text(found);
    EXPECT_FALSE(found.find(r.id)->parent);
}

TEST(blob_check, masks_that_lie) {
    store s;
    s.clusters_used.reset(s.layout().first_data_cluster);
    s.clusters_used.set(60);
    s.pages_used.reset(4);
    s.pages_used.set(40);
    s.ids_used.set(41);
    s.write_masks();
    expect_repaired(s,
                    {"unmarked error used_page_mask: pages 4 are in use, but marked as free",
                     "leaked error used_page_mask: pages 40", "unmarked error used_cluster_mask",
                     "leaked error used_cluster_mask: clusters 60", "leaked error used_blobid_mask: pages 41"},
                    0);
    store bad;
    bad.bytes[bad.layout().offset_of(bad.layout().cluster_mask)] = std::byte{7};
    expect_repaired(bad, {"bad_mask error used_cluster_mask: type is 7"}, 0);
}

TEST(blob_check, half_made_snapshots_may_share) {
    store s;
    format::blob_record& snap = s.record(store::snap2);
    const le64 id = format::id_of_root_page(store::clone);
    snap.internal_xattrs.set(format::xattr_in_progress, std::string_view(reinterpret_cast<const char*>(&id), 8));
    s.write(snap);
    const auto mine = check_of(s).find(format::id_of_root_page(store::snap2))->extents[0].clusters[1];
    s.poke(11, 16 + 9, le32(mine));
    const auto found = check_of(s);
    EXPECT_EQ(found.errors(), 0u) << all_text(found);
    EXPECT_THAT(all_text(found),
                HasSubstr("half_made_snapshot note blob 0x100000008: a crash while it was made a snapshot of"));
}

TEST(blob_check, volumes_need_names) {
    store s;
    format::blob_record& r = s.record(store::thin);
    r.xattrs.set("name", std::string("thick\0", 6));
    s.write(r);
    format::blob_record& old = s.record(store::old);
    old.xattrs.erase("name");
    s.write(old);
    format::blob_record& clone = s.record(store::clone);
    clone.xattrs.set("uuid", "nonsense");
    s.write(clone);
    const auto text = all_text(check_of(s));
    EXPECT_THAT(text, HasSubstr("bad_volume error blobs 0x100000001 and 0x100000003 are both named thick"));
    EXPECT_THAT(text, HasSubstr("bad_volume error blob 0x10000000c: has no name"));
    EXPECT_THAT(text, HasSubstr("bad_volume note blob 0x10000000a: its uuid"));
}

TEST(blob_check, super_blocks) {
    for (std::size_t at : {3, 40, 200}) {
        SCOPED_TRACE(at);
        store flipped;
        flipped.bytes[at] ^= std::byte{1};
        expect_repaired(flipped, {"flipped_bit error super block"}, 0);
    }
    store torn;
    torn.bytes[4000] ^= std::byte{1};  // page checksum wrong, first sector sealed
    expect_repaired(torn, {"torn_super error"}, 0);
    store gone;
    std::fill(gone.bytes.begin(), gone.bytes.end(), std::byte{0x55});
    const auto found = check_of(gone);
    EXPECT_FALSE(found.loadable);
    EXPECT_THAT(all_text(found), HasSubstr("bad_super error"));
    EXPECT_TRUE(repair(gone).empty());
}

TEST(blob_check, torn_pages_are_mended_from_the_double_write_area) {
    store s(false);
    const format::page_bytes whole = s.get(4);
    auto header = format::double_write_header{.sequence = 5,
                                              .flags = 0,
                                              .store = s.super.extension->store,
                                              .own_page = 50,
                                              .images = {{4, format::crc_of_image(whole)}}};
    s.put(50, format::encode_double_write(header));
    s.put(51, whole);
    s.damage(4);
    const auto found = check_of(s);
    EXPECT_EQ(found.errors(), 0u) << all_text(found);
    EXPECT_THAT(all_text(found), HasSubstr("torn_write note page 4: a write of it did not end; page 51 holds"));
    expect_repaired(s, {"torn_write"}, 0);
    repair(s);
    EXPECT_EQ(s.get(4), whole);

    store unloaded;  // nothing was under way when it was
    unloaded.put(50, format::encode_double_write(header));
    unloaded.put(51, whole);
    unloaded.damage(4);
    EXPECT_THAT(all_text(check_of(unloaded)), HasSubstr("bad_page error blob 0x100000003: page 4"));

    store foreign(false);  // SPDK recovered it since: its mask lacks the area
    foreign.put(50, format::encode_double_write(header));
    foreign.put(51, whole);
    foreign.damage(4);
    for (uint32_t page = 50; page < 64; ++page) foreign.pages_used.reset(page);
    foreign.write_masks();
    EXPECT_THAT(all_text(check_of(foreign)), HasSubstr("lost_double_write note"));
    expect_repaired(foreign, {"bad_page error blob 0x100000003: page 4"}, 0);
    repair(foreign);
    EXPECT_FALSE(inspect(foreign)->store()->extension->double_write.exists());
}

TEST(blob_check, a_double_write_area_that_others_use) {
    store s;
    format::blob_record& r = s.record(store::old);
    r.pages = {store::old, 52};
    s.write(r);
    s.put(13, {});
    s.pages_used.reset(13);
    s.write_masks();
    expect_repaired(
        s, {"lost_double_write note pages 52, where varve kept images", "leaked error used_page_mask: pages 50-51"}, 0);
    repair(s);
    EXPECT_FALSE(inspect(s)->store()->extension->double_write.exists());
}

TEST(blob_check, pages_that_cannot_be_read) {
    store s;
    s.bad_pages = {s.offset_of(4)};
    const auto found = check_of(s);
    EXPECT_THAT(all_text(found), HasSubstr("unreadable error page 4: Input/output error"));
    EXPECT_THAT(all_text(found), HasSubstr("bad_page error blob 0x100000003: page 4: Input/output error, should be"));
    EXPECT_EQ(found.blobs.size(), 7u);
}

TEST(blob_check, unknown_features_are_left_alone) {
    store s;
    format::blob_record& r = s.record(store::thin);
    r.unknown.push_back({77, "future"});
    r.flags.invalid |= 1 << 20;
    s.write(r);
    const auto text = all_text(check_of(s));
    EXPECT_THAT(text, HasSubstr("bad_blob error blob 0x100000003: has features this code does not know"));
    EXPECT_THAT(text,
                HasSubstr("bad_blob note blob 0x100000003: has 1 descriptors of unknown types, the first of type 77"));
    EXPECT_TRUE(repair(s).empty());
}

TEST(blob_check, journals_are_checked) {
    store s;
    s.damage(4);
    const std::string text = encode_journal(repair(s));
    EXPECT_TRUE(decode_journal(text));
    EXPECT_FALSE(decode_journal(text.substr(0, text.size() - 1)));
    EXPECT_FALSE(decode_journal("nothing"));
    std::string flipped = text;
    flipped[flipped.size() - 9] ^= 1;
    EXPECT_THAT(decode_journal(flipped).error().message(), HasSubstr("damaged"));
}

TEST(blob_check, no_name_makes_a_line_or_steers_a_terminal) {
    store s;
    format::blob_record& r = s.record(store::thin);
    r.xattrs.set("name", std::string("thick\nclean\x1b[2J\0", 16));
    s.write(r);
    s.record(store::old).xattrs.set("name", std::string("thick\nclean\x1b[2J\0", 16));
    s.write(s.record(store::old));
    evidence e = *inspect(s);
    const auto found = examine(e);
    for (const std::string& text : {in_words(e, found, plan_repair(e, found), true), dump_in_words(e, found)}) {
        EXPECT_THAT(text, HasSubstr(R"(thick\x0aclean\x1b[2J)"));
        EXPECT_EQ(text.find('\x1b'), std::string::npos);
        EXPECT_EQ(text.find("\nclean"), std::string::npos);
    }
}

TEST(blob_check, reports_and_dumps) {
    store s;
    s.damage(13);
    evidence e = *inspect(s);
    const auto found = examine(e);
    const auto json = json::write(as_json(e, found, plan_repair(e, found)));
    EXPECT_THAT(
        json,
        HasSubstr(R"("kind":"bad_page","severity":"error","repairable":true,"blobs":["0x10000000c"],"pages":[13])"));
    EXPECT_THAT(in_words(e, found, {}, true), HasSubstr("error: blob 0x10000000c: page 13"));
    const auto dump = json::write(dump_as_json(e, found));
    EXPECT_THAT(dump, HasSubstr(R"("name":"thin","access":"full","thin":true)"));
    EXPECT_THAT(dump_in_words(e, found), HasSubstr("map            none x 3, "));
}

// --- what a load sets aside, and what not

TEST(blob_check, a_blob_with_more_clusters_than_a_load_has_room_for) {
    for (bool too_large : {true, false}) {
        store s;
        format::blob_record& r = s.add(20, "large", {}, {}, true);
        r.cluster_count = (uint64_t{1} << 28) + (too_large ? 1 : 0);
        r.extent_pages = {{.page = 0, .count = static_cast<uint32_t>(r.extent_page_count())}};
        s.write(r);
        s.clusters_used.set(60);  // nobody's, unless a blob that is set aside has it
        s.write_masks();
        const auto found = check_of(s);
        if (too_large) {
            EXPECT_THAT(all_text(found), HasSubstr("bad_blob error blob 0x100000014: has 268435457 clusters, more"));
            EXPECT_THAT(all_text(found), HasSubstr("owners_unknown note used_cluster_mask: clusters 60"));
        } else {
            EXPECT_THAT(all_text(found), Not(HasSubstr("0x100000014")));
        }
        const auto root = s.get(20);
        repair(s);
        EXPECT_EQ(s.get(20), root);
        EXPECT_EQ(check_of(s).used_clusters.test(60), too_large);
        expect_settled(s, found);
    }
}

TEST(blob_check, a_clone_of_an_external_snapshot_says_of_which) {
    store s;
    format::blob_record& r = s.record(store::thin);
    r.flags.invalid |= format::invalid_flag::external_snapshot | format::invalid_flag::internal_xattrs;
    r.internal_xattrs.set(format::xattr_external_parent, "");
    s.write(r);
    expect_repaired(s, {"bad_blob error blob 0x100000003: is a clone of an external snapshot, and does not say of"}, 0);
}

// Nothing of a parent shows in a thick blob: a load serves it.
TEST(blob_check, a_thick_blob_has_no_use_for_a_parent) {
    store s;
    format::blob_record& external = s.record(store::thick);
    external.flags.invalid |= format::invalid_flag::external_snapshot | format::invalid_flag::internal_xattrs;
    external.internal_xattrs.set(format::xattr_external_parent, std::string(36, 'u') + '\0');
    s.write(external);
    format::blob_record& odd = s.record(store::old);
    odd.flags.invalid |= format::invalid_flag::internal_xattrs;
    odd.internal_xattrs.set(format::xattr_parent, "odd");
    s.write(odd);
    const auto found = check_of(s);
    EXPECT_EQ(found.errors(), 0u) << all_text(found);
    EXPECT_THAT(all_text(found), HasSubstr("bad_blob note blob 0x100000001: is a clone of an external snapshot, but"));
    EXPECT_TRUE(repair(s).empty());
}

}  // namespace
}  // namespace varve::blob::check
