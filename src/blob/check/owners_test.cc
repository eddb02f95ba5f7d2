// Whose clusters and pages are: sharers of all kinds, and what blobs that are set aside may have.
#include <gmock/gmock.h>

#include <algorithm>
#include <bit>

#include "blob/check/test_repair.h"

namespace varve::blob::check {
namespace {

using testing::HasSubstr;
using store = test_store;

constexpr uint32_t nobodys_cluster = 60, nobodys_page = 40;

std::string_view as_text(const le64& id) { return {reinterpret_cast<const char*>(&id), sizeof id}; }

// Marked as used in a store that was unloaded, and nobody's.
void leak(store& s) {
    s.clusters_used.set(nobodys_cluster);
    s.pages_used.set(nobodys_page);
    s.write_masks();
}
void name_in(store& s, uint32_t root, std::string_view internal_xattr, uint32_t other) {
    format::blob_record& r = s.record(root);
    const le64 id = format::id_of_root_page(other);
    r.internal_xattrs.set(internal_xattr, as_text(id));
    r.flags.invalid |= format::invalid_flag::internal_xattrs | format::invalid_flag::thin;
    s.write(r);
}
void expect_kept(store& s) {
    const auto found = check_of(s);
    EXPECT_THAT(all_text(found), HasSubstr("owners_unknown note used_cluster_mask: clusters 60 are marked as used"));
    EXPECT_THAT(all_text(found), HasSubstr("owners_unknown note used_page_mask: pages 40 are marked as used"));
    EXPECT_THAT(all_text(found), Not(HasSubstr("leaked")));
    repair(s);
    EXPECT_TRUE(check_of(s).used_clusters.test(nobodys_cluster));
    EXPECT_TRUE(check_of(s).used_pages.test(nobodys_page));
    expect_settled(s, found);
}

// --- what a load keeps because of blobs that it sets aside, it writes into the masks when it unloads the store

TEST(blob_owners, nothing_is_leaked_while_a_parent_is_missing) {
    store s;
    name_in(s, store::clone, format::xattr_parent, nobodys_page);
    leak(s);
    expect_kept(s);
    store round;
    name_in(round, store::snap1, format::xattr_parent, store::clone);
    leak(round);
    expect_kept(round);
}

TEST(blob_owners, nothing_is_leaked_while_blobs_share) {
    store s;
    const auto c = s.take(1);
    s.add(20, "one", c, {}, false, false);
    s.add(21, "two", c, {}, false, false);
    leak(s);
    expect_kept(s);
}

TEST(blob_owners, nothing_is_leaked_while_a_blob_has_features_nobody_knows) {
    store s;
    s.record(store::thick).flags.invalid |= uint64_t{1} << 40;
    s.write(s.record(store::thick));
    leak(s);
    expect_kept(s);
}

TEST(blob_owners, what_was_kept_is_free_when_the_reason_is_gone) {
    store s;
    s.record(store::thick).flags.data_read_only |= format::data_ro_flag::set_aside;
    s.write(s.record(store::thick));
    leak(s);
    EXPECT_THAT(all_text(check_of(s)), HasSubstr("leaked error used_cluster_mask: clusters 60"));
    repair(s);
    EXPECT_TRUE(check_of(s).findings.empty()) << all_text(check_of(s));
}

// --- sharers

bool is_sharer(const examination& found, uint32_t root) {
    return std::ranges::any_of(found.findings, [root](const finding& f) {
        return (f.what == problem::shared_clusters || f.what == problem::shared_page) &&
               std::ranges::find(f.blobs, format::id_of_root_page(root)) != f.blobs.end();
    });
}

// A snapshot that was being made may share with its blob; a third with neither.
TEST(blob_owners, a_third_beside_a_half_made_pair_shares_with_both) {
    constexpr uint32_t roots[] = {20, 21, 22};
    uint32_t order[] = {0, 1, 2};
    do {
        for (uint32_t count : {1u, 3u}) {
            SCOPED_TRACE(testing::Message() << order[0] << order[1] << order[2] << " clusters " << count);
            store s(false);
            const auto c = s.take(3);
            const uint32_t snapshot = roots[order[0]], blob = roots[order[1]], third = roots[order[2]];
            s.add(snapshot, "s", c, {}, true, false);
            s.add(blob, "b", c, {}, true, false);
            s.add(third, "t", {c.begin(), c.begin() + count}, {}, false, false);
            name_in(s, snapshot, format::xattr_in_progress, blob);
            const auto found = check_of(s);
            for (uint32_t root : roots) EXPECT_TRUE(is_sharer(found, root)) << root << '\n' << all_text(found);
            repair(s);
            for (uint32_t root : roots) EXPECT_TRUE(check_of(s).find(format::id_of_root_page(root))->aside()) << root;
            expect_settled(s, found);
        }
    } while (std::ranges::next_permutation(order).found);
}

TEST(blob_owners, a_third_shares_a_page_with_both) {
    store s(false);
    s.add(20, "s", s.take(1), {30}, false);
    name_in(s, 20, format::xattr_in_progress, 21);
    for (uint32_t root : {21u, 22u}) {
        format::blob_record r = s.record(20);
        r.id = format::id_of_root_page(root);
        r.pages = {root};
        r.internal_xattrs = {};
        s.records.push_back(r);
        s.write(r);
    }
    const auto found = check_of(s);
    for (uint32_t root : {20u, 21u, 22u}) EXPECT_TRUE(is_sharer(found, root)) << root << '\n' << all_text(found);
    store pair(false);
    pair.add(20, "s", pair.take(1), {}, true, false);
    pair.add(21, "b", {}, {}, true, false);
    pair.record(21).runs = pair.record(20).runs;
    pair.record(21).cluster_count = 1;
    pair.write(pair.record(21));
    name_in(pair, 20, format::xattr_in_progress, 21);
    EXPECT_FALSE(is_sharer(check_of(pair), 20)) << all_text(check_of(pair));
}

// Several that name the same blob: each shares with it, and none with another.
TEST(blob_owners, a_blob_of_several_half_made_snapshots) {
    store s(false);
    const auto c = s.take(2);
    s.add(20, "b", c, {}, true, false);
    for (uint32_t root : {21u, 22u, 23u}) {
        s.add(root, "s" + std::to_string(root), c, {}, true, false);
        name_in(s, root, format::xattr_in_progress, 20);
    }
    auto found = check_of(s);
    EXPECT_FALSE(is_sharer(found, 20)) << all_text(found);
    for (uint32_t root : {21u, 22u, 23u}) EXPECT_TRUE(is_sharer(found, root)) << root;
    s.add(24, "third", {c[1]}, {}, false, false);
    found = check_of(s);
    for (uint32_t root : {20u, 21u, 22u, 23u, 24u}) EXPECT_TRUE(is_sharer(found, root)) << root;
}

TEST(blob_owners, who_shares_with_many_is_set_aside_for_one_reason) {
    store s;
    const auto c = s.take(1);
    for (uint32_t root = 20; root < 40; ++root) s.add(root, "v" + std::to_string(root), c, {}, false, false);
    s.write_masks();
    const auto found = check_of(s);
    for (const change& change : repair(s).changes) EXPECT_LT(change.why.size(), 200u) << change.why;
    for (uint32_t root = 20; root < 40; ++root)
        EXPECT_TRUE(check_of(s).find(format::id_of_root_page(root))->aside()) << root;
    expect_settled(s, found);
}

TEST(blob_owners, not_all_reasons_are_told_why_a_page_is_changed) {
    store s;
    format::blob_record& r = s.add(20, "runs", s.take(1), {}, false, false);
    for (uint32_t i = 0; i < 40; ++i) r.runs.push_back({1000 + i * 10, 1});
    r.cluster_count += 40;
    s.write(r);
    const auto plan = repair(s);
    const auto page = std::ranges::find(plan.changes, s.offset_of(20), &change::offset);
    ASSERT_NE(page, plan.changes.end());
    EXPECT_LT(page->why.size(), 500u) << page->why;
    EXPECT_THAT(page->why, HasSubstr("cluster 1000 taken out"));
    EXPECT_THAT(page->why, HasSubstr("more changes"));
}

// --- the double-write area, when nothing tells whose it is but those who have its pages

// The mask of used pages is none, and SPDK wrote the super block last.
void lose_area(store& s) {
    s.bytes[s.layout().offset_of(s.layout().page_mask)] ^= std::byte{4};
    auto w = std::bit_cast<format::super_block_wire>(format::encode_super(s.super));
    w.clean = 0;
    w.crc = format::crc_of(std::bit_cast<format::page_bytes>(w));
    std::memcpy(s.bytes.data(), &w, sizeof w);
}

TEST(blob_owners, blobs_keep_the_pages_they_have_of_the_double_write_area) {
    for (int what : {0, 1, 2, 3}) {
        SCOPED_TRACE(what);
        store s;
        const uint32_t header = s.super.extension->double_write.header_page(0);
        uint32_t root = 20;
        if (what == 0 || what == 3) s.add(root = header, "late", s.take(1), {}, false, false);
        if (what == 1) s.add(root, "late", s.take(1), {header}, false);
        if (what == 2) {
            s.record(root = store::old).pages = {store::old, header};
            s.write(s.record(store::old));
            s.put(13, {});
        }
        s.write_masks();
        lose_area(s);
        if (what == 3) s.damage(header);  // may be restored
        const auto page = s.get(header);
        const auto found = check_of(s);
        if (what != 3) EXPECT_THAT(all_text(found), HasSubstr("lost_double_write note pages 50, where varve kept"));
        repair(s);
        EXPECT_EQ(s.get(header), page);
        if (what != 3) {
            const auto later = check_of(s);
            const auto* late = later.find(format::id_of_root_page(root));
            ASSERT_NE(late, nullptr);
            EXPECT_FALSE(late->broken()) << late->wrong;
            EXPECT_FALSE(inspect(s)->store()->extension->double_write.exists());
        }
        expect_settled(s, found);
    }
}

// --- who was set aside for what it shares

TEST(blob_owners, nobody_may_be_written_again_while_another_may_have_anything) {
    enum { unseen, bad_root, damaged, unreadable, cut };
    for (int what : {unseen, bad_root, damaged, unreadable, cut}) {
        SCOPED_TRACE(what);
        store s(what != unseen);
        s.record(store::thick).flags.data_read_only |= format::data_ro_flag::set_aside;
        s.write(s.record(store::thick));
        if (what == unseen) s.bad_pages = {s.offset_of(nobodys_page)};
        if (what == bad_root) s.damage(store::own);
        if (what == damaged) s.damage(4);
        if (what == unreadable) s.bad_pages = {s.offset_of(4)};
        if (what == cut) s.damage(13);
        const auto found = check_of(s);
        EXPECT_TRUE(found.restored.empty());
        repair(s);
        EXPECT_TRUE(check_of(s).find(format::id_of_root_page(store::thick))->aside());
        expect_settled(s, found);
        EXPECT_TRUE(check_of(s).find(format::id_of_root_page(store::thick))->aside()) << "nor by the next repair";
    }
}

}  // namespace
}  // namespace varve::blob::check
