// A store whose super block is lost: found again, or refused when what is left could be two.
#include "blob/check/rebuild.h"

#include <gmock/gmock.h>

#include "blob/check/test_repair.h"

namespace varve::blob::check {
namespace {

using testing::HasSubstr;

// A repair of a store that is looked for, and what it leaves.
examination found_in(test_store& s, const inspect_options& how = {.search = true}) {
    evidence e = *inspect(s, how);
    return examine(e);
}
void expect_found(test_store& s, std::string_view from, const inspect_options& how = {.search = true}) {
    const format::page_bytes lost = [&] {
        format::page_bytes page;
        std::copy_n(s.bytes.begin(), page.size(), page.begin());
        return page;
    }();
    evidence e = *inspect(s, how);
    ASSERT_NE(e.store(), nullptr) << e.why_no_store();
    EXPECT_EQ(e.rebuilt_from(), from);
    const format::geometry &is = e.layout(), &was = s.layout();
    EXPECT_EQ(is.size.value, was.size.value);
    EXPECT_EQ(is.cluster_size, was.cluster_size);
    EXPECT_EQ(is.io_unit_size, was.io_unit_size);
    EXPECT_EQ(is.md_page_size, was.md_page_size);
    EXPECT_EQ(is.md.first, was.md.first);
    EXPECT_EQ(is.md.count, was.md.count);
    EXPECT_EQ(is.cluster_mask.count, was.cluster_mask.count);
    EXPECT_EQ(is.blobid_mask.first, was.blobid_mask.first);
    EXPECT_EQ(e.store()->type_text(), "LVOLSTORE");
    EXPECT_EQ(e.store()->super_blob, s.super.super_blob);
    EXPECT_EQ(e.store()->version, 3u);
    EXPECT_FALSE(e.store()->clean);
    auto found = examine(e);
    EXPECT_TRUE(found.loadable);
    EXPECT_THAT(all_text(found), HasSubstr("lost_super error super block: it is damaged"));
    const auto plan = plan_repair(e, found);
    ASSERT_FALSE(plan.empty());
    const std::vector<std::byte> bytes_before = s.bytes;
    s.apply(plan);
    const auto left = check_of(s);
    EXPECT_TRUE(left.loadable);
    EXPECT_EQ(left.errors(), 0u) << all_text(left);
    EXPECT_EQ(left.blobs.size(), s.records.size());
    s.apply(*plan_undo(*decode_journal(encode_journal(plan)), s));
    EXPECT_EQ(s.bytes, bytes_before);
    EXPECT_TRUE(std::equal(lost.begin(), lost.end(), s.bytes.begin()));
}
void flip(test_store& s, std::initializer_list<std::size_t> bits) {
    for (std::size_t bit : bits) s.bytes[bit / 8] ^= std::byte{1} << bit % 8;
}
std::string refusal(test_store& s, const inspect_options& how = {.search = true}) {
    evidence e = *inspect(s, how);
    return e.store() == nullptr ? e.why_no_store() : "found in " + e.rebuilt_from();
}
void put_at(test_store& s, uint64_t offset, const format::page_bytes& page) {
    s.bytes.resize(s.shape().size.value);
    std::ranges::copy(page, s.bytes.begin() + static_cast<std::ptrdiff_t>(offset));
}
constexpr std::size_t field(std::size_t byte, unsigned bit) { return byte * 8 + bit; }

TEST(blob_rebuild, from_the_copy_whatever_happened_to_the_super_block) {
    const std::vector<void (*)(test_store&)> damages{
        [](test_store& s) { flip(s, {field(30, 1), field(48, 3)}); },
        [](test_store& s) { flip(s, {1, 77, 230, 300, 411, 502, 600, 3100, 3300, 4000}); },
        [](test_store& s) { std::fill_n(s.bytes.begin(), 512, std::byte{}); },
        [](test_store& s) { s.lose_super(); },
        [](test_store& s) { std::fill_n(s.bytes.begin(), 4096, std::byte{0xa5}); },
        [](test_store& s) {  // the sectors after the first, and the seal
            flip(s, {field(508, 0)});
            std::fill_n(s.bytes.begin() + 512, 3584, std::byte{0x11});
        },
    };
    for (bool clean : {true, false})
        for (const auto& damage : damages) {
            test_store s(clean);
            damage(s);
            expect_found(s, "the copy in page 49");
        }
}

TEST(blob_rebuild, the_first_page_that_begins_a_blob_may_be_wrong) {
    test_store s;
    s.poke(test_store::own, 0, le32(12));
    s.lose_super();
    EXPECT_EQ(refusal(s), "found in the copy in page 49");
}

TEST(blob_rebuild, a_store_of_spdks_from_masks_and_metadata) {
    test_store s;
    s.be_spdks();
    s.lose_super();
    expect_found(s, "masks and metadata");
    test_store two_bits;
    two_bits.be_spdks();
    flip(two_bits, {field(30, 0), field(49, 2)});
    expect_found(two_bits, "masks and metadata");
}

TEST(blob_rebuild, a_store_that_was_never_unloaded_from_what_is_left_of_its_super_block) {
    test_store s;
    s.be_spdks();
    s.never_unloaded();
    flip(s, {field(9, 0), field(30, 1), field(50, 2), field(85, 3), field(90, 1), field(1000, 0)});
    expect_found(s, "masks and metadata");
}

TEST(blob_rebuild, the_double_write_area_is_found_by_its_header) {
    test_store s(false);
    s.super.extension->double_write = {.first = 50, .slots = 1, .per_slot = 8};
    s.write_super();
    format::page_bytes image = s.get(test_store::thick);
    format::double_write_header h{.sequence = 5,
                                  .flags = format::double_write_flag::redo,
                                  .store = s.super.extension->store,
                                  .own_page = 50,
                                  .images = {{test_store::thick, format::crc_of_image(image)}}};
    s.put(50, format::encode_double_write(h));
    s.put(51, image);
    s.damage(test_store::thick);
    s.put(test_store::copy, {});
    s.lose_super();
    evidence e = *inspect(s, {.search = true});
    ASSERT_NE(e.store(), nullptr) << e.why_no_store();
    EXPECT_EQ(e.rebuilt_from(), "masks and metadata");
    const auto found = examine(e);
    EXPECT_EQ(found.mended.size(), 1u) << all_text(found);
    EXPECT_FALSE(found.find(format::id_of_root_page(test_store::thick))->broken());
}

TEST(blob_rebuild, two_that_fit_are_one_too_many) {
    test_store s;
    s.be_spdks();
    s.never_unloaded();
    s.lose_super();
    EXPECT_THAT(refusal(s), HasSubstr("--cluster-size decides"));
    expect_found(s, "masks and metadata", {.search = true, .cluster_size = test_store::cluster});
    EXPECT_THAT(refusal(s, {.search = true, .cluster_size = 4096}), HasSubstr("no layout fits"));
}

TEST(blob_rebuild, nothing_is_nothing) {
    test_store s;
    std::ranges::fill(s.bytes, std::byte{});
    EXPECT_THAT(refusal(s), HasSubstr("neither a copy of it, nor masks, nor metadata"));
    std::ranges::fill(s.bytes, std::byte{0x5a});
    EXPECT_THAT(refusal(s), HasSubstr("neither a copy of it"));
    EXPECT_FALSE(found_in(s).loadable);
}

TEST(blob_rebuild, only_a_trace_of_a_store_is_reason_to_search_unasked) {
    test_store clean;
    clean.lose_super();
    EXPECT_THAT(refusal(clean, {}), HasSubstr("found in the copy"));  // the masks
    test_store s;
    s.be_spdks();
    s.never_unloaded();
    s.lose_super();
    s.reads = 0;
    EXPECT_EQ(refusal(s, {}), "super block: its signature is not SPDKBLOB");
    EXPECT_LE(s.reads, 12u);
    test_store signature = s;
    std::ranges::copy(std::as_bytes(std::span(format::super_signature)), signature.bytes.begin());
    flip(signature, {3, 17});
    EXPECT_THAT(refusal(signature, {}), HasSubstr("--cluster-size decides"));
}

TEST(blob_rebuild, what_a_checksum_vouches_for_is_not_rebuilt_from_guesses) {
    test_store s;  // a device that has become shorter
    s.be_spdks();
    s.super.layout.size.value *= 2;
    s.write_super();
    EXPECT_THAT(refusal(s), HasSubstr("its checksum is right"));
    test_store later;
    later.super.version = 4;
    std::ranges::copy(format::encode_super(later.super), later.bytes.begin());
    EXPECT_THAT(refusal(later), HasSubstr("version is 4"));
    test_store impossible;
    format::super_block bad = impossible.super;
    bad.layout.md.count = 0;
    std::ranges::copy(format::encode_super(bad), impossible.bytes.begin());
    expect_found(impossible, "the copy in page 49");
}

TEST(blob_rebuild, a_store_in_a_volume_is_data) {
    const test_store inner;
    test_store s;
    const auto at = s.layout().offset_of_cluster(s.layout().first_data_cluster + 1);
    s.bytes.resize(s.shape().size.value);
    std::copy_n(inner.bytes.begin(), inner.bytes.size() - test_store::cluster,
                s.bytes.begin() + static_cast<std::ptrdiff_t>(at));
    s.lose_super();
    expect_found(s, "the copy in page 49");
    s.put(test_store::copy, {});
    evidence e = *inspect(s, {.search = true});
    ASSERT_NE(e.store(), nullptr) << e.why_no_store();
    EXPECT_EQ(e.rebuilt_from(), "masks and metadata");
    EXPECT_EQ(e.layout().md.first, s.layout().md.first);
}

// What a tenant may write who knows where its volume lies: metadata that reaches into its own clusters.
format::page_bytes forged(const test_store& s, uint32_t md_pages, uint64_t offset) {
    format::super_block super = s.super;
    super.layout = *format::plan_store(s.shape(), {.cluster_size = test_store::cluster, .md_page_count = md_pages});
    super.extension->sequence = 1000;
    super.extension->double_write = {};
    super.extension->copy_page =
        static_cast<uint32_t>((offset - super.layout.offset_of_md_page(0)) / super.layout.md_page_size);
    EXPECT_EQ(super.layout.md.first, s.layout().md.first);
    EXPECT_LT(super.extension->copy_page, md_pages);
    return format::encode_super_copy(super);
}

TEST(blob_rebuild, a_copy_in_data_is_not_believed) {
    test_store s;
    const auto in_volume = s.layout().offset_of_cluster(s.layout().first_data_cluster + 2);
    put_at(s, in_volume, forged(s, 300, in_volume));
    s.lose_super();
    expect_found(s, "the copy in page 49");
    test_store alone = s;  // not even when the real one is gone
    alone.put(test_store::copy, {});
    EXPECT_EQ(refusal(alone), "found in masks and metadata");
    for (auto region : {s.layout().page_mask, s.layout().cluster_mask, s.layout().blobid_mask})
        std::fill_n(alone.bytes.begin() + static_cast<std::ptrdiff_t>(s.layout().offset_of(region)), 4096, std::byte{});
    EXPECT_THAT(refusal(alone), testing::Not(HasSubstr("copy in page")));  // and masks tell nothing
}

TEST(blob_rebuild, a_copy_that_was_moved_is_not_believed) {
    test_store s;
    s.put(40, s.get(test_store::copy));
    s.put(test_store::copy, {});
    s.lose_super();
    EXPECT_EQ(refusal(s), "found in masks and metadata");
}

// The copy knows of the first half only; SPDK has let the store grow since.
TEST(blob_rebuild, a_store_that_grew_after_its_copy_was_written) {
    for (bool unloaded : {true, false}) {
        test_store s;
        format::super_block half = s.super;
        half.layout = *format::plan_store({.size = {s.shape().size.value / 2}, .block_size = 512},
                                          {.cluster_size = test_store::cluster, .md_page_count = 64});
        s.put(test_store::copy, format::encode_super_copy(half));
        s.poke(5, 16 + 5 + 4 + 4 * 6, le32(60));  // cluster 1030 of "thin"
        if (!unloaded) s.bytes[s.layout().offset_of(s.layout().cluster_mask) + 1] = std::byte{32};
        s.lose_super();
        evidence e = *inspect(s, {.search = true});
        ASSERT_NE(e.store(), nullptr) << e.why_no_store();
        EXPECT_EQ(e.layout().cluster_count, 64u);
        EXPECT_FALSE(examine(e).find(format::id_of_root_page(test_store::thin))->broken());
    }
}

TEST(blob_rebuild, of_two_copies_the_later_counts) {
    test_store s;
    format::super_block old = s.super;
    old.super_blob = format::no_blob;
    old.extension->copy_page = 44;
    s.put(44, format::encode_super_copy(old));
    s.super.extension->sequence = 9;
    s.write_super();
    s.lose_super();
    expect_found(s, "the copy in page 49");
}

TEST(blob_rebuild, a_copy_that_is_damaged_or_says_something_else_is_written_anew) {
    test_store s;
    s.at(test_store::copy)[100] ^= std::byte{3};
    expect_repaired(s, {"bad_copy error page 49: the copy of the super block is damaged"}, 0);
    format::super_block other = s.super;
    other.super_blob = format::no_blob;
    s.put(test_store::copy, format::encode_super_copy(other));
    expect_repaired(s, {"bad_copy note page 49: the copy of the super block says something else"}, 0);
    s.put(test_store::copy, {});
    expect_repaired(s, {"bad_copy error page 49"}, 0);
}

TEST(blob_rebuild, a_copy_that_spdk_does_not_know_of_is_none) {
    test_store s;
    s.pages_used.reset(test_store::copy);
    s.write_masks();
    EXPECT_THAT(all_text(check_of(s)), HasSubstr("lost_copy note page 49"));
    EXPECT_EQ(check_of(s).errors(), 0u);
    test_store taken;
    taken.put(test_store::copy, taken.get(2));
    EXPECT_THAT(all_text(check_of(taken)), HasSubstr("lost_copy note page 49"));
}

TEST(blob_rebuild, a_copy_that_cannot_be_read_is_nobodys_loss) {
    test_store s(false);
    s.bad_pages = {s.offset_of(test_store::copy)};
    const auto found = check_of(s);
    EXPECT_THAT(all_text(found), HasSubstr("it is of no blob"));
    EXPECT_TRUE(found.can_be_clean);
}

}  // namespace
}  // namespace varve::blob::check
