// What a repair must not lose, and what it must not take for ever.
#include <gmock/gmock.h>

#include <algorithm>
#include <map>

#include "blob/check/test_repair.h"

namespace varve::blob::check {
namespace {

using testing::HasSubstr;
using store = test_store;

const examined_blob* blob_of(const examination& found, uint32_t root) {
    return found.find(format::id_of_root_page(root));
}
std::vector<uint32_t> clusters_of(store& s, uint32_t root) {
    std::vector<uint32_t> out;
    const auto found = check_of(s);
    for (const auto& run : blob_of(found, root)->owned)
        for (uint32_t i = 0; i < run.count; ++i) out.push_back(run.first + i);
    return out;
}

// --- masks have no checksums

TEST(blob_repair, a_bit_of_the_mask_of_blob_ids_deletes_nothing) {
    for (uint32_t root : {store::own, store::thick, store::thin, store::snap1, store::old}) {
        store s;
        const auto bytes = s.get(root);
        s.ids_used.reset(root);
        s.write_masks();
        expect_repaired(s, {"unmarked error used_blobid_mask: pages"}, 0);
        repair(s);
        EXPECT_EQ(s.get(root), bytes);
        EXPECT_NE(blob_of(check_of(s), root), nullptr);
    }
}

TEST(blob_repair, nor_makes_it_a_blob_of_a_clear_page) {
    store s;
    s.ids_used.set(20);
    s.write_masks();
    expect_repaired(s, {"leaked error used_blobid_mask: pages 20 are marked as first pages of blobs, and are not"}, 0);
    repair(s);
    EXPECT_TRUE(check_of(s).findings.empty()) << all_text(check_of(s));
}

TEST(blob_repair, nor_two_masks_when_the_clusters_are_nobody_elses) {
    store s;
    s.ids_used.reset(store::thick);
    s.pages_used.reset(store::thick);
    s.write_masks();
    expect_repaired(s, {"unmarked error used_blobid_mask: pages 1 ", "unmarked error used_page_mask: pages 1 "}, 0);
    repair(s);
    EXPECT_NE(blob_of(check_of(s), store::thick), nullptr);
}

TEST(blob_repair, a_deleted_blob_whose_clusters_others_have_is_stale) {
    store s;
    const auto clusters = clusters_of(s, store::old);
    forget_in_masks(s, store::old);
    s.poke(2, 16 + 9, le32(clusters[0]));  // thick has one of them now
    s.clusters_used.set(clusters[0]);
    s.write_masks();
    const auto found = check_of(s);
    EXPECT_EQ(found.stale_roots, std::vector<uint32_t>{store::old}) << all_text(found);
    EXPECT_THAT(all_text(found), Not(HasSubstr("shared_clusters")));
}

// A store that died before it was ever unloaded, or long after; then something makes it say that it was.
TEST(blob_repair, masks_that_know_of_no_blob_delete_none) {
    store s;
    std::vector<format::page_bytes> roots;
    for (uint32_t root : {store::own, store::thick, store::thin, store::snap1, store::snap2, store::clone, store::old})
        roots.push_back(s.get(root));
    s.pages_used = s.ids_used = format::bit_mask(s.layout().md.count);
    s.clusters_used = format::bit_mask(s.layout().cluster_count);
    s.pages_used.set(50, 14);
    s.clusters_used.set(0, s.layout().first_data_cluster);
    s.write_masks();
    expect_repaired(
        s, {"bad_mask error super block: says that the store was unloaded, but its masks do not know of any"}, 0);
    repair(s);
    for (uint32_t root : {store::own, store::thick, store::thin, store::snap1, store::snap2, store::clone, store::old})
        EXPECT_NE(blob_of(check_of(s), root), nullptr) << root;
    EXPECT_TRUE(inspect(s)->store()->clean);
    EXPECT_TRUE(check_of(s).findings.empty()) << all_text(check_of(s));
}

TEST(blob_repair, masks_that_do_not_know_of_the_super_blob_delete_none) {
    store s;
    forget_in_masks(s, store::own);
    forget_in_masks(s, store::old);
    expect_repaired(s, {"its masks do not know of its super blob (first pages 0)"}, 0);
    repair(s);
    EXPECT_NE(blob_of(check_of(s), store::own), nullptr);
    EXPECT_NE(blob_of(check_of(s), store::old), nullptr);
}

TEST(blob_repair, masks_delete_no_blob_that_was_written_after_the_super_block) {
    for (bool later : {true, false}) {
        store s;
        s.super.extension->next_stamp = later ? store::old : store::old + 1;
        s.write_super();
        forget_in_masks(s, store::old);
        EXPECT_EQ(check_of(s).stale_roots.empty(), later) << all_text(check_of(s));
    }
}

// --- what damaged blobs have

TEST(blob_repair, one_flipped_bit_is_put_right) {
    for (bool clean : {true, false})
        for (uint32_t page : {4u, 13u, uint32_t{store::old}, uint32_t{store::clone}})
            for (std::size_t byte : {0u, 5u, 8u, 40u, 300u, 4090u, 4095u}) {
                SCOPED_TRACE(testing::Message() << "page " << page << " byte " << byte << " clean " << clean);
                store s(clean);
                const auto whole = s.get(page);
                s.flip(page, byte, 3);
                expect_repaired(s, {"flipped_bit error page"}, 0);
                repair(s);
                EXPECT_EQ(s.get(page), whole);
                EXPECT_TRUE(check_of(s).findings.empty()) << all_text(check_of(s));
            }
}

// The masks of a store that died say nothing of what was allocated since.
void died_after_allocating(store& s) {
    s.clusters_used = format::bit_mask(s.layout().cluster_count);
    s.pages_used = format::bit_mask(s.layout().md.count);
    s.pages_used.set(50, 14);
    s.write_masks();
}

TEST(blob_repair, what_a_damaged_extent_page_names_stays_used) {
    for (bool clean : {true, false}) {
        store s(clean);
        if (!clean) died_after_allocating(s);
        const auto clusters = clusters_of(s, store::thick);
        s.damage(2);
        repair(s);
        const auto after = check_of(s);
        for (uint32_t c : clusters) EXPECT_TRUE(after.used_clusters.test(c)) << c;
        const auto* thick = blob_of(after, store::thick);
        EXPECT_EQ(thick->record.access(), format::blob_access::none);
        EXPECT_EQ(thick->extents[0].page, 2u) << "the page was taken out";
        EXPECT_EQ(clusters_of(s, store::thick), clusters);
        EXPECT_TRUE(after.used_pages.test(2));
    }
}

TEST(blob_repair, what_a_damaged_extent_page_seems_to_name_takes_nothing_from_others) {
    store s(false);
    died_after_allocating(s);
    const auto others = clusters_of(s, store::old);
    s.damage(2);
    const le32 stolen = others[0], nowhere = 60000;
    std::memcpy(s.at(2) + 16 + 9 + 4, &stolen, sizeof stolen);
    std::memcpy(s.at(2) + 16 + 9 + 8, &nowhere, sizeof nowhere);
    expect_repaired(s, {"bad_page error blob 0x100000001: page 2: crc is"}, 0);
    repair(s);
    const auto after = check_of(s);
    EXPECT_EQ(blob_of(after, store::old)->record.access(), format::blob_access::full);
    EXPECT_EQ(clusters_of(s, store::old), others);
    EXPECT_EQ(clusters_of(s, store::thick).size(), 3u);
}

TEST(blob_repair, nothing_is_free_when_what_a_blob_has_cannot_be_known) {
    auto expect_full = [](store& s, uint64_t errors_left) {
        const auto found = check_of(s);
        EXPECT_THAT(all_text(found), HasSubstr("owners_unknown note"));
        EXPECT_EQ(found.used_clusters.count(), s.layout().cluster_count);
        expect_repaired(s, {}, errors_left);
        repair(s);
        EXPECT_EQ(check_of(s).used_clusters.count(), s.layout().cluster_count);
    };
    store extents(false);
    died_after_allocating(extents);
    std::fill_n(extents.at(2), 4096, std::byte{0x5a});
    expect_full(extents, 0);
    store chain(false);
    died_after_allocating(chain);
    chain.damage(13);
    expect_full(chain, 0);
    store root(false);
    died_after_allocating(root);
    root.damage(store::clone);
    expect_full(root, 1);
    store lost(false);  // only the mask of the last unload says that a blob began there
    died_after_allocating(lost);
    std::fill_n(lost.at(store::clone), 4096, std::byte{0x5a});
    expect_full(lost, 1);

    store clean;  // its masks say it
    clean.damage(13);
    EXPECT_LT(check_of(clean).used_clusters.count(), clean.layout().cluster_count);
}

// --- SPDK shortens a blob, not its extent page

TEST(blob_repair, surplus_entries_are_not_the_blobs) {
    store s;
    const auto clusters = clusters_of(s, store::thick);
    format::blob_record& r = s.record(store::thick);
    r.cluster_count = 3;
    s.write(r);
    for (std::size_t i = 3; i < 5; ++i) s.clusters_used.reset(clusters[i]);
    s.write_masks();
    const auto found = check_of(s);
    EXPECT_EQ(found.errors(), 0u) << all_text(found);
    EXPECT_THAT(all_text(found), HasSubstr("unfinished_resize note blob 0x100000001"));
    for (std::size_t i = 3; i < 5; ++i) EXPECT_FALSE(found.used_clusters.test(clusters[i]));
    EXPECT_TRUE(repair(s).empty());
}

// --- set aside, and no more

TEST(blob_repair, who_shared_with_one_that_is_gone_may_be_written_again) {
    store s;
    const auto stolen = clusters_of(s, store::thick)[2];
    s.poke(4, 16 + 9 + 4 * 7, le32(stolen));  // thin's first extent page
    repair(s);
    EXPECT_TRUE(repair(s).empty()) << "while both are there";
    // Somebody deletes thin.
    for (uint32_t c : clusters_of(s, store::thin)) s.clusters_used.reset(c);
    s.clusters_used.set(stolen);
    for (uint32_t page : {3u, 4u, 5u}) {
        s.put(page, {});
        s.pages_used.reset(page);
    }
    s.ids_used.reset(store::thin);
    s.write_masks();
    EXPECT_EQ(check_of(s).errors(), 0u) << all_text(check_of(s));
    expect_repaired(s, {"set_aside note blob 0x100000001: what it was set aside for is gone"}, 0);
    repair(s);
    const auto after = check_of(s);
    EXPECT_TRUE(after.findings.empty()) << all_text(after);
    const auto& record = blob_of(after, store::thick)->record;
    EXPECT_EQ(record.access(), format::blob_access::full);
    EXPECT_EQ(record.internal_xattrs.find(format::xattr_set_aside), nullptr);
    EXPECT_EQ(record.flags.invalid & format::invalid_flag::internal_xattrs, 0u) << "it has none any more";
    EXPECT_EQ(*record.xattrs.find("name"), std::string("thick\0", 6));
}

TEST(blob_repair, who_only_seems_to_share_with_a_damaged_blob_is_left_alone) {
    store s;
    s.poke(store::thick, 127, uint8_t{store::snap1});  // its extent page: a root of another
    expect_repaired(s, {"bad_page error blob 0x100000001: page 6: not an extent page"}, 0);
    repair(s);
    EXPECT_EQ(blob_of(check_of(s), store::snap1)->record.access(), format::blob_access::read_only);
    EXPECT_FALSE(blob_of(check_of(s), store::snap1)->aside());
}

// --- the double-write area

TEST(blob_repair, no_round_is_repeated_over_a_repair) {
    for (bool can_be_clean : {true, false}) {
        store s(false);
        if (!can_be_clean) {  // as versions 1 and 2
            auto raw = format::encode_super(s.super);
            const le32 none = 0;
            std::memcpy(raw.data() + 76, &none, sizeof none);
            s.super.raw = raw;
            s.super.layout.blobid_mask = {};
            s.write_super();
        }
        // A page that was whole when it was written, and contradicts another.
        s.poke(2, 16 + 9, le32(s.layout().first_data_cluster + 6));
        const format::page_bytes image = s.get(store::thick);
        auto header = format::double_write_header{.sequence = 5,
                                                  .flags = format::double_write_flag::redo,
                                                  .store = s.super.extension->store,
                                                  .own_page = 50,
                                                  .images = {{store::thick, format::crc_of_image(image)}}};
        s.put(50, format::encode_double_write(header));
        s.put(51, image);
        format::page_bytes old = image;
        old[40] ^= std::byte{1};
        s.put(store::thick, old);
        const auto plan = repair(s);
        ASSERT_GE(plan.changes.size(), 3u);
        EXPECT_THAT(plan.changes[0].why, HasSubstr("page 1: mended from page 51"));
        EXPECT_EQ(plan.changes[1].why, "page 50: what it says is written");
        EXPECT_NE(s.get(store::thick), image) << "it was to be set aside";
        const auto after = check_of(s);
        EXPECT_TRUE(after.mended.empty()) << all_text(after);
        EXPECT_NE(blob_of(after, store::thick)->record.access(), format::blob_access::full);
        EXPECT_EQ(inspect(s)->store()->clean, can_be_clean);
    }
}

// --- what cannot be read

TEST(blob_repair, an_unreadable_mask_is_said_and_the_store_stays_what_it_was) {
    for (bool clean : {true, false}) {
        store s(clean);
        s.damage(4);
        s.bad_pages = {s.layout().offset_of(s.layout().cluster_mask)};
        const auto found = check_of(s);
        EXPECT_THAT(all_text(found), HasSubstr("unreadable error used_cluster_mask: Input/output error"));
        repair(s);
        EXPECT_EQ(inspect(s)->store()->clean, clean);
        EXPECT_TRUE(repair(s).empty());
        for (const auto& f : check_of(s).findings) EXPECT_FALSE(f.repairable) << f.text;
    }
}

TEST(blob_repair, a_store_with_unreadable_pages_is_not_marked_clean) {
    store s(false);
    s.bad_pages = {s.offset_of(5)};
    repair(s);
    EXPECT_FALSE(inspect(s)->store()->clean);
    EXPECT_EQ(check_of(s).used_clusters.count(), s.layout().cluster_count);
    EXPECT_TRUE(repair(s).empty());
}

// --- taking a repair back

TEST(blob_repair, half_a_repair_and_half_an_undo_can_be_taken_back) {
    store s(false);
    s.damage(4);
    s.damage(13);
    const auto before = s.bytes;
    const auto found = inspect(s);
    repair_plan plan;
    {
        evidence e = *inspect(s);
        const auto all = examine(e);
        plan = plan_repair(e, all);
    }
    ASSERT_GE(plan.changes.size(), 4u);
    for (std::size_t done = 0; done <= plan.changes.size(); ++done) {
        s.bytes = before;
        repair_plan part{.changes = {plan.changes.begin(), plan.changes.begin() + static_cast<std::ptrdiff_t>(done)}};
        s.apply(part);
        if (done < plan.changes.size()) {  // and the next was torn
            const change& next = plan.changes[done];
            std::memcpy(s.bytes.data() + next.offset + 512, next.after.data() + 512, 1024);
        }
        const auto undo = plan_undo(plan, s);
        ASSERT_TRUE(undo) << undo.error().message();
        for (std::size_t taken_back = 0; taken_back <= undo->changes.size(); ++taken_back) {
            store half = s;
            repair_plan first{
                .changes = {undo->changes.begin(), undo->changes.begin() + static_cast<std::ptrdiff_t>(taken_back)}};
            half.apply(first);
            half.apply(*plan_undo(plan, half));
            EXPECT_EQ(half.bytes, before);
        }
    }
}

TEST(blob_repair, an_undo_that_does_not_fit_changes_nothing) {
    store s;
    s.damage(4);
    const auto plan = repair(s);
    ASSERT_GE(plan.changes.size(), 2u);
    s.bytes[plan.changes[0].offset + 700] ^= std::byte{1};
    const auto undo = plan_undo(plan, s);
    ASSERT_FALSE(undo);
    EXPECT_EQ(undo.error().code(), errc::busy);
    s.bytes[plan.changes[0].offset + 700] ^= std::byte{1};
    s.bad_pages = {plan.changes.back().offset};
    EXPECT_EQ(plan_undo(plan, s).error().code(), errc::io);
}

// --- hostile images: what they cost is in proportion to what they hold

struct sparse_store final : storage {
    sparse_store(uint64_t size, uint32_t cluster, uint32_t md_pages)
        : shape_of{.size = {size}, .block_size = 512},
          layout(*format::plan_store(shape_of, {.cluster_size = cluster, .md_page_count = md_pages})) {
        const auto super = format::encode_super(format::new_super(layout, "LVOLSTORE"));
        at[0] = super;
    }
    format::device_shape shape() const noexcept override { return shape_of; }
    void read(std::span<piece> pieces) override {
        for (piece& p : pieces) {
            std::ranges::fill(p.bytes, std::byte{0});
            for (auto found = at.lower_bound(p.offset); found != at.end(); ++found) {
                if (found->first >= p.offset + p.bytes.size()) break;
                std::ranges::copy(found->second,
                                  p.bytes.begin() + static_cast<std::ptrdiff_t>(found->first - p.offset));
            }
        }
    }
    void put(uint32_t page, uint64_t id, uint32_t sequence, std::string_view descriptors, uint32_t next) {
        format::md_page_wire w{};
        w.id = id;
        w.sequence = sequence;
        w.next = next;
        std::ranges::transform(descriptors, w.descriptors, [](char c) { return static_cast<uint8_t>(c); });
        w.crc = format::crc_of(std::bit_cast<format::page_bytes>(w));
        at[layout.offset_of_md_page(page)] = std::bit_cast<format::page_bytes>(w);
    }
    format::device_shape shape_of;
    format::geometry layout;
    std::map<uint64_t, format::page_bytes> at;
};

std::string descriptor(uint8_t type, std::initializer_list<uint64_t> longs, std::span<const uint32_t> words) {
    std::string out(1, static_cast<char>(type));
    auto add = [&out](auto number) { out.append(reinterpret_cast<const char*>(&number), sizeof number); };
    add(static_cast<uint32_t>(longs.size() * 8 + words.size() * 4));
    for (uint64_t n : longs) add(n);
    for (uint32_t n : words) add(n);
    return out;
}

std::string text(uint64_t number) { return {reinterpret_cast<const char*>(&number), sizeof number}; }

examination check_of(sparse_store& s) {
    evidence e = *inspect(s);
    auto found = examine(e);
    (void)plan_repair(e, found);
    return found;
}

TEST(blob_repair, rings_and_chains_of_roots_are_left_where_they_cease_to_be_the_blobs) {
    constexpr uint32_t pages = 16384;
    const std::string flags = descriptor(3, {1, 0, 0}, {});
    sparse_store ring(uint64_t{1} << 30, 1 << 20, pages);
    for (uint32_t i = 0; i < pages; ++i) ring.put(i, format::id_of_root_page(i), 0, flags, (i + 1) % pages);
    const auto found = check_of(ring);
    EXPECT_EQ(found.blobs.size(), pages);
    for (const auto& b : found.blobs) EXPECT_EQ(b.record.pages.size(), 1u);
    sparse_store chain(uint64_t{1} << 30, 1 << 20, pages);
    constexpr uint32_t half = pages / 2;
    for (uint32_t i = 0; i < half; ++i) chain.put(i, format::id_of_root_page(i), 0, flags, half);
    for (uint32_t i = half; i < pages; ++i)
        chain.put(i, format::id_of_root_page(0), i - half + 1, {}, i + 1 < pages ? i + 1 : format::no_page);
    EXPECT_EQ(check_of(chain).find(format::id_of_root_page(0))->record.pages.size(), half + 1);
}

TEST(blob_repair, ways_up_to_the_last_ancestor_are_gone_once) {
    constexpr uint32_t pages = 16384, last = pages - 2;
    for (bool circle : {false, true}) {
        sparse_store s(uint64_t{1} << 30, 1 << 20, pages);
        for (uint32_t i = 0; i <= last; ++i) {
            const uint64_t above = format::id_of_root_page(i < last ? i + 1 : circle ? 0 : last + 1);
            const std::string parent = std::string("\4\0\x08\0SNAP", 8) + text(above);
            std::string all = descriptor(3, {3, 0, 0}, {}) + '\4';
            const auto length = static_cast<uint32_t>(parent.size());
            all.append(reinterpret_cast<const char*>(&length), sizeof length);
            s.put(i, format::id_of_root_page(i), 0, all + parent, format::no_page);
        }
        const auto found = check_of(s);
        EXPECT_EQ(std::ranges::count(found.findings, problem::missing_parent, &finding::what), last + 1) << circle;
    }
}

TEST(blob_repair, runs_that_overlap_are_not_counted_one_by_one) {
    sparse_store s(uint64_t{1} << 32, 4096, 64);
    std::vector<uint32_t> runs;
    for (int i = 0; i < 480; ++i) {
        runs.push_back(2000);
        runs.push_back(s.layout.cluster_count - 2000);
    }
    const std::string all = descriptor(3, {1, 0, 0}, {}) + descriptor(1, {}, runs);
    for (uint32_t page = 0; page < 3; ++page) s.put(page, format::id_of_root_page(page), 0, all, format::no_page);
    const auto found = check_of(s);
    const std::vector<format::cluster_run> shared{{2000, s.layout.cluster_count - 2000}};
    unsigned pairs = 0;
    for (const auto& f : found.findings) {
        if (f.what != problem::shared_clusters) continue;
        ++pairs;
        EXPECT_EQ(f.clusters, shared) << f.text;
    }
    EXPECT_EQ(pairs, 5u) << "each with itself, and two with the first: " << all_text(found);
}

TEST(blob_repair, an_extent_page_in_thousands_of_places_is_read_twice) {
    constexpr uint32_t pages = 4096, chain = 1000, extents = pages - 1;
    sparse_store s(uint64_t{1} << 28, 4096, pages);
    std::vector<uint32_t> table;
    for (int i = 0; i < 500; ++i) {
        table.push_back(extents);
        table.push_back(1);
    }
    const std::string part = descriptor(5, {0xffffffff}, table);
    for (uint32_t i = 0; i < chain; ++i)
        s.put(i, format::id_of_root_page(0), i, (i == 0 ? descriptor(3, {5, 0, 0}, {}) : "") + part,
              i + 1 < chain ? i + 1 : format::no_page);
    s.put(extents, format::id_of_root_page(0), 0, descriptor(6, {}, std::vector<uint32_t>(513, 0)), format::no_page);
    const auto found = check_of(s);
    std::size_t read = 0;
    for (const auto& use : found.blobs[0].extents) read += use.clusters.size() / 512;
    EXPECT_LE(read, 2u);
    EXPECT_TRUE(found.blobs[0].broken());
}

// --- who has used the store since

TEST(blob_repair, is_not_taken_back_when_the_store_was_used_since) {
    for (int what : {0, 1, 2, 3}) {
        SCOPED_TRACE(what);
        store s;
        s.super.extension.reset();  // SPDK's: the repair does not change its super block
        s.write_super();
        s.flip(4, 40, 1);
        const auto journal = *decode_journal(encode_journal(repair(s)));
        EXPECT_TRUE(plan_undo(journal, s));
        if (what == 0) s.super.clean = false;
        if (what == 1) s.pages_used.set(30);
        if (what == 2) s.clusters_used.set(60);
        if (what == 3) s.ids_used.set(30);
        s.write_super();
        s.write_masks();
        const auto undo = plan_undo(journal, s);
        ASSERT_FALSE(undo);
        EXPECT_EQ(undo.error().code(), errc::busy);
    }
}

TEST(blob_repair, says_when_it_cut_off_what_may_have_named_a_parent) {
    for (uint32_t root : {uint32_t{store::clone}, uint32_t{store::thin}, uint32_t{store::old}}) {
        store s;
        format::blob_record& r = s.record(root);
        if (root == store::old) {
            s.damage(13);  // thick: it had no parent
        } else {
            r.xattrs.set("note", std::string(3800, 'n'));
            r.xattrs.set("more", std::string(2000, 'm'));
            r.pages = {root, 30};
            s.write(r);
            s.write_masks();
            s.damage(30);
        }
        ASSERT_EQ(blob_of(check_of(s), root)->parent, std::nullopt);
        repair(s);
        const auto flags = blob_of(check_of(s), root)->record.flags.invalid;
        EXPECT_TRUE(flags & format::invalid_flag::set_aside);
        EXPECT_EQ((flags & format::invalid_flag::parent_lost) != 0, root != store::old) << root;
    }
}

}  // namespace
}  // namespace varve::blob::check
