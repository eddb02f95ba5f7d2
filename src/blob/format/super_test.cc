#include "blob/format/super.h"

#include <gmock/gmock.h>

#include <cstring>

#include "accel/crc32c.h"
#include "blob/format/mask.h"

namespace varve::blob::format {
namespace {

using testing::HasSubstr;

const device_shape device{.size = {100 << 20}, .block_size = 512};

super_block a_store(bool extended) {
    super_block s = new_super(*plan_store(device, {}), "LVOLSTORE");
    s.super_blob = id_of_root_page(0);
    if (extended)
        s.extension = super_extension{.store = uuid::from_random(1, 2),
                                      .sequence = 9,
                                      .double_write = {.first = 80, .slots = 1, .per_slot = 20},
                                      .next_stamp = 77};
    return s;
}

// What `before` and `after` leave when only the sectors of `mask` of the second reached the disk.
page_bytes torn(const page_bytes& before, const page_bytes& after, unsigned mask) {
    page_bytes out = before;
    for (std::size_t i = 0; i < 8; ++i)
        if ((mask >> i & 1) != 0) std::memcpy(out.data() + i * 512, after.data() + i * 512, 512);
    return out;
}

// What SPDK does with a super block it has read: sets a field, and the CRC.
page_bytes rewritten_by_spdk(const page_bytes& page, uint32_t clean) {
    auto w = std::bit_cast<super_block_wire>(page);
    w.clean = clean;
    w.crc = accel::crc32c(std::as_bytes(std::span(&w, 1)).first(4092));
    return std::bit_cast<page_bytes>(w);
}

TEST(blob_format_super, only_one_says_that_it_was_unloaded) {
    for (uint32_t word : {0u, 1u, 2u, 0x100u, 0x80000001u}) {
        auto back = decode_super(rewritten_by_spdk(encode_super(a_store(true)), word), device);
        ASSERT_TRUE(back) << back.error().message();
        EXPECT_EQ(back->clean, word == 1) << word;
    }
}

TEST(blob_format_super, round_trip) {
    for (bool extended : {false, true}) {
        super_block s = a_store(extended);
        s.clean = true;
        auto back = decode_super(encode_super(s), device);
        ASSERT_TRUE(back) << back.error().message();
        EXPECT_EQ(back->origin, super_origin::whole);
        EXPECT_TRUE(back->clean);
        EXPECT_TRUE(back->masks_are_true());
        EXPECT_EQ(back->super_blob, s.super_blob);
        EXPECT_EQ(back->type_text(), "LVOLSTORE");
        EXPECT_EQ(back->version, 3u);
        EXPECT_EQ(back->layout.md.first, s.layout.md.first);
        EXPECT_EQ(back->extension.has_value(), extended);
        if (extended) {
            EXPECT_EQ(back->extension->store, s.extension->store);
            EXPECT_EQ(back->extension->sequence, 9u);
            EXPECT_EQ(back->extension->next_stamp, 77u);
            EXPECT_EQ(back->extension->double_write.first, 80u);
            EXPECT_EQ(back->extension->double_write.page_count(), 20u);
        }
        EXPECT_EQ(encode_super(*back), encode_super(s));
    }
}

TEST(blob_format_super, bytes_where_spdk_has_them) {
    const page_bytes p = encode_super(a_store(false));
    auto at = [&](std::size_t offset) {
        le32 v;
        std::memcpy(&v, p.data() + offset, sizeof v);
        return v.get();
    };
    EXPECT_EQ(std::memcmp(p.data(), "SPDKBLOB", 8), 0);
    EXPECT_EQ(at(8), 3u);
    EXPECT_EQ(at(12), 4096u);
    EXPECT_EQ(at(20), 0u);  // id 0x100000000, low half
    EXPECT_EQ(at(24), 1u);
    EXPECT_EQ(at(28), 1u << 20);
    EXPECT_EQ(at(48), 4u);
    EXPECT_EQ(at(52), 100u);
    EXPECT_EQ(at(88), 512u);
    EXPECT_EQ(at(92), 4096u);
    EXPECT_EQ(at(4092), accel::crc32c(std::span(p).first(4092)));
}

TEST(blob_format_super, every_tear_of_our_own_write_reads_as_before_or_after) {
    super_block s = a_store(true);
    const page_bytes before = encode_super(s);
    s.clean = true;
    s.extension->sequence = 10;
    const page_bytes after = encode_super(s);
    for (unsigned mask = 0; mask < 256; ++mask) {
        auto back = decode_super(torn(before, after, mask), device);
        ASSERT_TRUE(back) << mask << back.error().message();
        EXPECT_EQ(back->clean, (mask & 1) != 0);
        EXPECT_EQ(back->extension->sequence, (mask & 1) != 0 ? 10u : 9u);
        EXPECT_EQ(encode_super(*back), (mask & 1) != 0 ? after : before);
    }
}

TEST(blob_format_super, a_torn_change_of_spdks_clean_flag_reads_as_not_clean) {
    const page_bytes clean = rewritten_by_spdk(encode_super(a_store(false)), 1);
    const page_bytes dirty = rewritten_by_spdk(clean, 0);
    for (const auto& p : {torn(clean, dirty, 1), torn(clean, dirty, 0x80), torn(dirty, clean, 0x7f)}) {
        auto back = decode_super(p, device);
        ASSERT_TRUE(back) << back.error().message();
        EXPECT_EQ(back->origin, super_origin::clean_flag_torn);
        EXPECT_FALSE(back->clean);
    }
}

TEST(blob_format_super, a_flipped_bit_is_put_right) {
    for (bool extended : {false, true}) {
        const page_bytes whole =
            extended ? encode_super(a_store(true)) : rewritten_by_spdk(encode_super(a_store(true)), 1);
        const std::string type = decode_super(whole, device)->type_text();
        for (std::size_t bit = 0; bit < page_size * 8; ++bit) {
            page_bytes one = whole;
            one[bit / 8] ^= std::byte{1} << bit % 8;
            auto back = decode_super(one, device);
            ASSERT_TRUE(back) << bit << ": " << back.error().message();
            EXPECT_EQ(back->layout.md.first, decode_super(whole, device)->layout.md.first);
            EXPECT_EQ(back->super_blob, decode_super(whole, device)->super_blob);
            if (back->flipped) {
                EXPECT_FALSE(back->clean);
                EXPECT_EQ(back->raw, whole) << bit;
            }
        }
        page_bytes two = whole;
        two[70] ^= std::byte{0x21};
        EXPECT_FALSE(decode_super(two, device));
    }
}

TEST(blob_format_super, spdk_breaks_the_seal_but_keeps_the_extension) {
    const page_bytes ours = encode_super(a_store(true));
    auto back = decode_super(rewritten_by_spdk(ours, 1), device);
    ASSERT_TRUE(back);
    EXPECT_EQ(back->origin, super_origin::foreign);
    EXPECT_EQ(back->extension->double_write.first, 80u);
    EXPECT_EQ(decode_super(rewritten_by_spdk(ours, 0), device)->origin, super_origin::whole);
}

TEST(blob_format_super, reserved_bytes_survive) {
    super_block s = a_store(true);
    s.raw[200] = std::byte{0x5a};
    s.raw[1000] = std::byte{0xa5};
    auto back = decode_super(encode_super(s), device);
    ASSERT_TRUE(back);
    const page_bytes again = encode_super(*back);
    EXPECT_EQ(again[200], std::byte{0x5a});
    EXPECT_EQ(again[1000], std::byte{0xa5});

    page_bytes later = again;  // by a later varve, which uses reserved bytes of the extension
    later[460] = std::byte{0x11};
    auto newer = decode_super(rewritten_by_spdk(later, 0), device);
    ASSERT_TRUE(newer);
    EXPECT_EQ(encode_super(*newer)[460], std::byte{0x11});
}

TEST(blob_format_super, stores_of_old_versions) {
    auto w = std::bit_cast<super_block_wire>(encode_super(a_store(false)));
    w.version = 1;
    w.size = 0;
    w.io_unit_size = 0;
    w.md_page_size = 0;
    w.used_blobid_mask_start = 0;
    w.used_blobid_mask_length = 0;
    w.crc = accel::crc32c(std::as_bytes(std::span(&w, 1)).first(4092));
    auto back = decode_super(rewritten_by_spdk(std::bit_cast<page_bytes>(w), 1), device);
    ASSERT_TRUE(back) << back.error().message();
    EXPECT_EQ(back->layout.size.value, device.size.value);
    EXPECT_EQ(back->layout.io_unit_size, 4096u);
    EXPECT_EQ(back->layout.md_page_size, 4096u);
    EXPECT_TRUE(back->clean);
    EXPECT_FALSE(back->masks_are_true());
}

TEST(blob_format_super, refusals) {
    const page_bytes good = encode_super(a_store(false));
    page_bytes p = good;
    p[0] = std::byte{'X'};
    EXPECT_THAT(decode_super(p, device).error().message(), HasSubstr("signature"));
    p = good;
    p[100] = std::byte{3};
    EXPECT_THAT(decode_super(p, device).error().message(), HasSubstr("crc is"));
    for (uint32_t version : {0u, 4u}) {
        auto w = std::bit_cast<super_block_wire>(good);
        w.version = version;
        auto r = decode_super(rewritten_by_spdk(std::bit_cast<page_bytes>(w), 0), device);
        ASSERT_FALSE(r);
        EXPECT_EQ(r.error().code(), errc::unsupported);
    }
    EXPECT_THAT(decode_super(good, {.size = {50 << 20}, .block_size = 512}).error().message(), HasSubstr("size is"));
}

TEST(blob_format_super, an_impossible_double_write_area_is_none) {
    for (double_write_area bad : {double_write_area{.first = 90, .slots = 1, .per_slot = 20},
                                  double_write_area{.first = 80, .slots = 2, .per_slot = 10},
                                  double_write_area{.first = 0, .slots = 1, .per_slot = 1},
                                  double_write_area{.first = 0, .slots = 1, .per_slot = 502}}) {
        super_block s = a_store(true);
        s.extension->double_write = bad;
        auto back = decode_super(encode_super(s), device);
        ASSERT_TRUE(back);
        EXPECT_FALSE(back->extension->double_write.exists());
    }
}

TEST(blob_format_mask, round_trip_and_refusals) {
    bit_mask m(100);
    m.set(0);
    m.set(63);
    m.set(70, 20);
    EXPECT_EQ(m.count(), 22u);
    EXPECT_TRUE(m.all(70, 20));
    EXPECT_FALSE(m.all(69, 2));
    EXPECT_FALSE(m.all(99, 2));
    std::vector<std::byte> bytes(4096, std::byte{0xff});
    encode_mask(m, mask_type::used_clusters, bytes);
    EXPECT_EQ(bytes[0], std::byte{1});
    EXPECT_EQ(bytes[1], std::byte{100});
    EXPECT_EQ(bytes[5], std::byte{1});  // cluster 0
    EXPECT_EQ(bytes[5 + 7], std::byte{0x80});
    EXPECT_EQ(bytes[4095], std::byte{0});
    EXPECT_EQ(*decode_mask(bytes, mask_type::used_clusters, 100), m);
    EXPECT_EQ(decode_mask(bytes, mask_type::used_clusters, 80)->count(), 12u);  // cut, as SPDK does
    EXPECT_EQ(decode_mask(bytes, mask_type::used_clusters, 85)->count(), 17u);
    EXPECT_THAT(decode_mask(bytes, mask_type::used_clusters, 101).error().message(), HasSubstr("length is 100"));
    for (uint32_t grown : {101u, 128u, 200u}) {  // the bytes behind are nobody's
        bytes[5 + 12] |= std::byte{0xf0};
        bytes[5 + 16] = std::byte{0xff};
        auto more = decode_mask(bytes, mask_type::used_clusters, grown, true);
        ASSERT_TRUE(more);
        EXPECT_EQ(more->count(), m.count());
        EXPECT_EQ(more->size(), grown);
    }
    bytes[5 + 12] &= std::byte{0x0f};
    bytes[5 + 16] = {};
    EXPECT_FALSE(decode_mask(bytes, mask_type::used_pages, 101, true));
    EXPECT_THAT(decode_mask(bytes, mask_type::used_pages, 100).error().message(), HasSubstr("type is 1, not 0"));
    bytes[0] = std::byte{0};
    EXPECT_FALSE(decode_mask(bytes, mask_type::used_pages, 80));
    bytes[0] = std::byte{1};
    bytes[3] = std::byte{1};
    EXPECT_EQ(*decode_mask(bytes, mask_type::used_clusters, 100), m);  // its region may go on behind what was read
    EXPECT_FALSE(decode_mask(std::span(bytes).first(4), mask_type::used_clusters, 0));
}

TEST(blob_format_mask, runs_of_bits) {
    for (uint32_t first : {0u, 1u, 63u, 64u, 100u})
        for (uint32_t count : {0u, 1u, 64u, 128u, 200u}) {
            bit_mask m(300);
            m.set(first, count);
            for (uint32_t i = 0; i < 300; ++i)
                ASSERT_EQ(m.test(i), i >= first && i < first + count) << first << ' ' << i;
        }
}

}  // namespace
}  // namespace varve::blob::format
