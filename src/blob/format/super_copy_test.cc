#include "blob/format/super_copy.h"

#include <gmock/gmock.h>

#include <cstring>

#include "blob/format/page.h"

namespace varve::blob::format {
namespace {

const device_shape device{.size = {100 << 20}, .block_size = 512};

super_block a_super() {
    super_block s = new_super(*plan_store(device, {}), "LVOLSTORE");
    s.super_blob = id_of_root_page(3);
    s.extension = super_extension{.store = uuid::from_random(1, 2), .sequence = 7, .next_stamp = 12, .copy_page = 90};
    s.extension->double_write = {.first = 91, .slots = 1, .per_slot = 9};
    return s;
}

TEST(blob_super_copy, has_all_but_what_changes_all_the_time) {
    const super_block s = a_super();
    const page_bytes page = encode_super_copy(s);
    auto copy = decode_super_copy(page, device);
    ASSERT_TRUE(copy) << copy.error().message();
    EXPECT_EQ(copy->own_page, 90u);
    EXPECT_EQ(copy->sequence, 7u);
    EXPECT_FALSE(copy->super.clean);
    EXPECT_EQ(copy->super.super_blob, s.super_blob);
    EXPECT_EQ(copy->super.type_text(), "LVOLSTORE");
    EXPECT_EQ(copy->super.layout.md.first, s.layout.md.first);
    EXPECT_EQ(copy->super.extension->double_write.first, 91u);
    EXPECT_EQ(copy->super.extension->store, s.extension->store);
    EXPECT_EQ(encode_super_copy(copy->super), page);
    auto super = decode_super(encode_super(copy->super), device);
    ASSERT_TRUE(super);
    EXPECT_EQ(super->origin, super_origin::whole);
}

TEST(blob_super_copy, says_the_same_whenever_it_was_written) {
    super_block s = a_super();
    const page_bytes page = encode_super_copy(s);
    s.clean = true;
    ++s.extension->sequence;
    ++s.extension->next_stamp;
    EXPECT_TRUE(says_the_same(page, s));
    EXPECT_FALSE(says_the_same(page_bytes{}, s));
    for (auto change : std::vector<void (*)(super_block&)>{
             [](super_block& b) { b.super_blob = no_blob; }, [](super_block& b) { b.layout.size.value -= 4096; },
             [](super_block& b) { b.type[0] = 'X'; }, [](super_block& b) { b.extension->copy_page = 89; },
             [](super_block& b) { b.extension->double_write = {}; }, [](super_block& b) { b.extension.reset(); }}) {
        super_block other = s;
        change(other);
        EXPECT_FALSE(says_the_same(page, other));
    }
}

TEST(blob_super_copy, spdk_never_takes_it_for_metadata) {
    const page_bytes page = encode_super_copy(a_super());
    EXPECT_FALSE(crc_right(page));
    EXPECT_NE(header_of(page).sequence, 0u);
    EXPECT_FALSE(is_blob_id(header_of(page).id));
    EXPECT_EQ(look_at(page, 90).content, page_content::super_copy);
}

TEST(blob_super_copy, one_wrong_byte_makes_it_none) {
    const page_bytes page = encode_super_copy(a_super());
    for (std::size_t at = 0; at < page.size(); ++at) {
        page_bytes bad = page;
        bad[at] ^= std::byte{0x10};
        EXPECT_FALSE(decode_super_copy(bad, device)) << at;
    }
    EXPECT_FALSE(decode_super_copy(page, {.size = {99 << 20}, .block_size = 512}));
    EXPECT_FALSE(is_copy_of(page, a_super().extension->store, 89));
    EXPECT_FALSE(is_copy_of(page, uuid::from_random(3, 4), 90));
    EXPECT_TRUE(is_copy_of(page, a_super().extension->store, 90));
}

TEST(blob_super_copy, the_super_block_names_its_page) {
    super_block s = a_super();
    EXPECT_EQ(decode_super(encode_super(s), device)->extension->copy_page, 90u);
    s.extension->copy_page = 95;  // in the area
    EXPECT_EQ(decode_super(encode_super(s), device)->extension->copy_page, 0u);
    s.extension->copy_page = s.layout.md.count;
    EXPECT_EQ(decode_super(encode_super(s), device)->extension->copy_page, 0u);
}

TEST(blob_super_copy, goes_to_the_last_free_page_of_a_store_that_has_enough) {
    bit_mask used(30);
    used.set(28, 2);
    EXPECT_EQ(place_super_copy(used), 27u);
    used.set(1, 29);
    EXPECT_EQ(place_super_copy(used), std::nullopt);  // not page 0
    EXPECT_EQ(place_super_copy(bit_mask(23)), std::nullopt);
}

}  // namespace
}  // namespace varve::blob::format
