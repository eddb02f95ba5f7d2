#include "blob/format/double_write.h"

#include <gmock/gmock.h>

#include <cstring>

#include "accel/crc32c.h"

namespace varve::blob::format {
namespace {

using testing::HasSubstr;

const device_shape device{.size = {100 << 20}, .block_size = 512};
const geometry g = *plan_store(device, {});
const double_write_area area{.first = 80, .slots = 2, .per_slot = 10};
const uuid store = uuid::from_random(3, 4);

page_bytes a_page(uint32_t first) {
    return encode_extent_page({.id = id_of_root_page(1), .stamp = 0, .first_cluster = 0, .clusters = {first}});
}
double_write_header a_header(const std::vector<page_bytes>& images) {
    double_write_header h{.sequence = 7, .flags = 0, .store = store, .own_page = 90, .images = {}};
    for (std::size_t i = 0; i < images.size(); ++i)
        h.images.push_back({static_cast<uint32_t>(i + 5), crc_of_image(images[i])});
    return h;
}

TEST(blob_format_double_write, round_trip) {
    const std::vector<page_bytes> images{a_page(10), a_page(11)};
    auto h = a_header(images);
    h.flags = double_write_flag::redo;
    const page_bytes p = encode_double_write(h);
    auto back = decode_double_write(p, 90, area, store, g);
    ASSERT_TRUE(back) << back.error().message();
    EXPECT_EQ(back->sequence, 7u);
    EXPECT_EQ(back->flags, double_write_flag::redo);
    ASSERT_EQ(back->images.size(), 2u);
    EXPECT_EQ(back->images[1].page, 6u);
    EXPECT_EQ(encode_double_write(*back), p);
    EXPECT_TRUE(is_whole(*back, images));
    EXPECT_FALSE(is_whole(*back, std::vector<page_bytes>{images[0], images[0]}));
}

TEST(blob_format_double_write, spdk_never_takes_a_header_for_metadata) {
    for (uint64_t sequence = 0; sequence < 1000; ++sequence) {
        const page_bytes p = encode_double_write({.sequence = sequence, .own_page = 90});
        EXPECT_FALSE(crc_right(p));
        EXPECT_NE(header_of(p).sequence, 0u);
        EXPECT_FALSE(is_blob_id(header_of(p).id));
    }
}

TEST(blob_format_double_write, refusals) {
    const auto good = a_header({a_page(10), a_page(11)});
    auto refused = [](const double_write_header& h, uint32_t number = 90) {
        auto r = decode_double_write(encode_double_write(h), number, area, store, g);
        return r ? std::string("accepted") : r.error().message();
    };
    EXPECT_EQ(refused(good), "accepted");
    EXPECT_THAT(refused(good, 80), HasSubstr("it belongs into page 90"));
    auto h = good;
    h.store = uuid::from_random(5, 6);
    EXPECT_THAT(refused(h), HasSubstr("it is of store"));
    h = good;
    h.images[1].page = 100;
    EXPECT_THAT(refused(h), HasSubstr("image 1 is of page 100"));
    h.images[1].page = 85;  // inside the area
    EXPECT_THAT(refused(h), HasSubstr("image 1 is of page 85"));
    h = good;
    h.images.resize(10, good.images[0]);
    EXPECT_THAT(refused(h), HasSubstr("10 images in a slot of 10 pages"));
    page_bytes p = encode_double_write(good);
    p[70] ^= std::byte{1};
    EXPECT_THAT(decode_double_write(p, 90, area, store, g).error().message(), HasSubstr("checksum"));
    p = a_page(10);
    EXPECT_THAT(decode_double_write(p, 90, area, store, g).error().message(), HasSubstr("there is none"));
}

TEST(blob_format_double_write, mends_torn_pages_and_leaves_whole_ones) {
    const page_bytes before = a_page(10), after = a_page(11);
    auto h = a_header({after});
    for (unsigned mask = 0; mask < 256; ++mask) {
        page_bytes torn = before;
        for (std::size_t i = 0; i < 8; ++i)
            if ((mask >> i & 1) != 0) std::memcpy(torn.data() + i * 512, after.data() + i * 512, 512);
        EXPECT_EQ(must_replay(h, 0, after, torn), torn != before && torn != after);
    }
    h.flags = double_write_flag::redo;
    EXPECT_TRUE(must_replay(h, 0, after, before));
    EXPECT_TRUE(must_replay(h, 0, after, page_bytes{}));
    EXPECT_FALSE(must_replay(h, 0, after, after));
    h.flags = 0;
    EXPECT_FALSE(must_replay(h, 0, after, page_bytes{})) << "freed since";
}

TEST(blob_format_double_write, trusted_only_while_nobody_else_wrote) {
    super_block s = new_super(g, "");
    s.extension = super_extension{.store = store, .double_write = area};
    bit_mask used(100);
    used.set(80, 20);
    auto decoded = [&](const page_bytes& p) { return *decode_super(p, device); };
    EXPECT_TRUE(double_write_trusted(decoded(encode_super(s)), used));

    auto w = std::bit_cast<super_block_wire>(encode_super(s));
    w.super_blob = 5;  // SPDK sets a field, and the page's checksum
    w.crc = accel::crc32c(std::as_bytes(std::span(&w, 1)).first(4092));
    EXPECT_FALSE(double_write_trusted(decoded(std::bit_cast<page_bytes>(w)), used));

    bit_mask recovered = used;
    recovered.reset(85);
    EXPECT_FALSE(double_write_trusted(decoded(encode_super(s)), recovered));

    s.clean = true;
    EXPECT_FALSE(double_write_trusted(decoded(encode_super(s)), used));
    s.clean = false;
    s.extension->double_write = {};
    EXPECT_FALSE(double_write_trusted(decoded(encode_super(s)), used));
    s.extension.reset();
    EXPECT_FALSE(double_write_trusted(decoded(encode_super(s)), used));
}

TEST(blob_format_double_write, placed_at_the_end_of_what_is_free) {
    bit_mask used(100);
    EXPECT_EQ(place_double_write(used, 2, 10)->first, 80u);
    used.set(99);
    EXPECT_EQ(place_double_write(used, 2, 10)->first, 79u);
    used.set(90);
    EXPECT_EQ(place_double_write(used, 2, 10)->first, 70u);
    used.set(20, 50);
    EXPECT_EQ(place_double_write(used, 2, 10)->first, 70u);
    used.set(80);
    EXPECT_EQ(place_double_write(used, 2, 9)->first, 2u);
    EXPECT_EQ(place_double_write(used, 2, 10), std::nullopt) << "page 0 is not taken";
    EXPECT_EQ(place_double_write(used, 0, 10), std::nullopt);
}

}  // namespace
}  // namespace varve::blob::format
