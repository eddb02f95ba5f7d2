#include "blob/format/double_write.h"

#include <gmock/gmock.h>

#include <cstring>

#include "accel/crc32c.h"

namespace varve::blob::format {
namespace {

using testing::HasSubstr;

const device_shape device{.size = {100 << 20}, .block_size = 512};
const geometry g = *plan_store(device, {});
const double_write_area area{.first = 80, .slots = 1, .per_slot = 20};
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
    h.images.resize(20, good.images[0]);
    EXPECT_THAT(refused(h), HasSubstr("20 images in a slot of 20 pages"));
    page_bytes p = encode_double_write(good);
    p[70] ^= std::byte{1};
    EXPECT_THAT(decode_double_write(p, 90, area, store, g).error().message(), HasSubstr("checksum"));
    p = a_page(10);
    EXPECT_THAT(decode_double_write(p, 90, area, store, g).error().message(), HasSubstr("there is none"));
}

found_header found_in(const page_bytes& p) { return find_double_write(p, 90, area, store, g); }

TEST(blob_format_double_write, a_flipped_bit_of_a_header_is_put_right) {
    const page_bytes good = encode_double_write(a_header({a_page(10), a_page(11)}));
    for (std::size_t bit : {0u, 65u, 300u, 520u, 4091u * 8, 4095u * 8 + 7}) {
        page_bytes p = good;
        p[bit / 8] ^= std::byte{1} << bit % 8;
        const auto found = found_in(p);
        ASSERT_EQ(found.what, found_header::state::whole) << bit;
        EXPECT_EQ(encode_double_write(found.header), good);
    }
}

TEST(blob_format_double_write, a_damaged_header_is_told_from_a_torn_one_and_from_none) {
    using state = found_header::state;
    const page_bytes older = encode_double_write(a_header({a_page(8), a_page(9), a_page(7)}));
    auto h = a_header({a_page(10), a_page(11)});
    h.sequence = 8;
    const page_bytes newer = encode_double_write(h);
    EXPECT_EQ(found_in(newer).what, state::whole);
    for (bool first : {false, true}) {
        page_bytes torn = first ? older : newer;
        std::copy_n((first ? newer : older).begin(), 512, torn.begin());
        EXPECT_EQ(found_in(torn).what, state::torn);
        torn = first ? page_bytes{} : newer;  // of what was clear
        std::copy_n((first ? newer : page_bytes{}).begin(), 512, torn.begin());
        EXPECT_EQ(found_in(torn).what, first ? state::torn : state::none);
    }
    page_bytes damaged = newer;
    damaged[3] ^= std::byte{0x41};
    EXPECT_EQ(found_in(damaged).what, state::damaged);
    damaged = newer;
    damaged[26] ^= std::byte{0xc0};  // it counts more than there is room for
    EXPECT_EQ(found_in(damaged).what, state::damaged);
    EXPECT_EQ(found_in(a_page(10)).what, state::none);
    EXPECT_EQ(found_in({}).what, state::none);
    h.store = uuid::from_random(5, 6);
    EXPECT_EQ(found_in(encode_double_write(h)).what, state::none) << "of another store";
}

struct a_round {
    a_round() : header(a_header({a_page(10), a_page(11), page_bytes{}})) {
        for (uint32_t i : {10u, 11u}) seen.push_back({a_page(i), a_page(i - 5)});
        seen.push_back({page_bytes{}, a_page(30)});
    }
    judged_round judged(found_header::state what = found_header::state::whole) const {
        return judge_round({what, header}, seen);
    }
    double_write_header header;
    std::vector<image_seen> seen;
};

TEST(blob_format_double_write, a_round_is_committed_when_all_of_it_is_known) {
    using fate = judged_round::fate;
    a_round r;
    (*r.seen[0].image)[500] ^= std::byte{2};
    r.seen[1] = {a_page(3), a_page(11)};
    r.seen[2].image = a_page(4);
    ASSERT_EQ(r.judged().became, fate::committed) << "a flipped bit, one in its place, one of zeroes";
    EXPECT_EQ(r.judged().images, (std::vector<page_bytes>{a_page(10), a_page(11), page_bytes{}}));
}

TEST(blob_format_double_write, a_round_of_which_a_part_was_written_in_place_was_committed) {
    using fate = judged_round::fate;
    a_round r;
    r.seen[1].image = a_page(3);
    EXPECT_EQ(r.judged().became, fate::not_committed);
    r.seen[2].in_place = page_bytes{};
    EXPECT_EQ(r.judged().became, fate::not_committed) << "zeroes may have been there before";
    r.seen[0].in_place = a_page(10);
    EXPECT_EQ(r.judged().became, fate::unknown);
    EXPECT_EQ(r.judged().which, 1u);
    a_round unreadable;
    unreadable.seen[0].image.reset();
    EXPECT_EQ(unreadable.judged().became, fate::unknown);
    unreadable.seen[1].image = a_page(3);
    EXPECT_EQ(unreadable.judged().became, fate::not_committed);
}

TEST(blob_format_double_write, a_torn_header_hides_no_round_that_was_begun) {
    using fate = judged_round::fate;
    using state = found_header::state;
    a_round r;
    EXPECT_EQ(r.judged(state::torn).became, fate::not_committed);
    r.seen[0].in_place = a_page(10);
    EXPECT_EQ(r.judged(state::torn).became, fate::unknown);
    r.seen[1].in_place = a_page(11);
    EXPECT_EQ(r.judged(state::torn).became, fate::not_committed) << "all of it is there";
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
    EXPECT_TRUE(double_write_trusted(decoded(encode_super(s)), &used));

    auto w = std::bit_cast<super_block_wire>(encode_super(s));
    w.super_blob = 5;  // SPDK sets a field, and the page's checksum
    w.crc = accel::crc32c(std::as_bytes(std::span(&w, 1)).first(4092));
    EXPECT_FALSE(double_write_trusted(decoded(std::bit_cast<page_bytes>(w)), &used));

    bit_mask flipped = used;
    flipped.reset(85);
    EXPECT_TRUE(double_write_trusted(decoded(encode_super(s)), &flipped)) << "one bit decides nothing";
    EXPECT_TRUE(double_write_trusted(decoded(encode_super(s)), nullptr)) << "SPDK leaves a mask";
    bit_mask recovered(100);
    EXPECT_FALSE(double_write_trusted(decoded(encode_super(s)), &recovered));
    recovered.set(80, 10);  // as far as blobs have them by now
    EXPECT_FALSE(double_write_trusted(decoded(encode_super(s)), &recovered));

    s.clean = true;
    EXPECT_FALSE(double_write_trusted(decoded(encode_super(s)), &used));
    s.clean = false;
    s.extension->double_write = {};
    EXPECT_FALSE(double_write_trusted(decoded(encode_super(s)), &used));
    s.extension.reset();
    EXPECT_FALSE(double_write_trusted(decoded(encode_super(s)), &used));
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
