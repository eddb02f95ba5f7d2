#include "blob/format/record.h"

#include <gmock/gmock.h>

#include <cstring>
#include <functional>

#include "blob/format/double_write.h"

namespace varve::blob::format {
namespace {

using testing::HasSubstr;

const geometry g = *plan_store({.size = {uint64_t{4000} << 20}, .block_size = 512}, {});
static constexpr uint32_t first_data = 16;

blob_record a_record() {
    blob_record r;
    r.id = id_of_root_page(3);
    r.flags = {.invalid = invalid_flag::thin | invalid_flag::internal_xattrs, .data_read_only = 0, .md_read_only = 2};
    r.xattrs.set("name", std::string("disk0\0", 6));
    r.xattrs.set("empty", "");
    r.internal_xattrs.set(xattr_parent, std::string("\x09\0\0\0\1\0\0\0", 8));
    append(r.runs, 100, 10);
    append(r.runs, 0, 600);
    append(r.runs, 20);
    append(r.runs, 21);
    r.cluster_count = 612;
    r.pages = {3};
    r.stamp = 42;
    return r;
}

blob_record a_table() {
    blob_record r = a_record();
    r.runs.clear();
    r.uses_extent_table = true;
    r.flags.invalid |= invalid_flag::extent_table;
    r.cluster_count = 512 * 6 + 1;
    for (uint32_t page : {8u, 0u, 0u, 0u, 9u, 10u, 11u}) append(r.extent_pages, page);
    return r;
}

// The chain of `r` on however many pages it takes: 3, 50, 51, ...
std::vector<page_bytes> encoded(blob_record& r) {
    r.pages = {3};
    for (uint32_t i = 1; i < *chain_length(r); ++i) r.pages.push_back(49 + i);
    return *encode_chain(r);
}
std::vector<numbered_page> numbered(const blob_record& r, const std::vector<page_bytes>& pages) {
    std::vector<numbered_page> out;
    for (std::size_t i = 0; i < pages.size(); ++i) out.push_back({r.pages[i], pages[i]});
    return out;
}
void seal(page_bytes& p) {
    const le32 crc = crc_of(p);
    std::memcpy(p.data() + 4092, &crc, sizeof crc);
}
template <class T>
void poke(page_bytes& p, std::size_t offset, T value) {
    std::memcpy(p.data() + offset, &value, sizeof value);
}

void expect_round_trip(blob_record r) {
    const auto pages = encoded(r);
    auto back = decode_chain(numbered(r, pages), g);
    ASSERT_TRUE(back) << back.error().message();
    EXPECT_EQ(*back, r);
    EXPECT_EQ(*encode_chain(*back), pages);
}

TEST(blob_format_record, round_trips) {
    ASSERT_EQ(g.first_data_cluster, first_data);
    expect_round_trip(a_record());
    expect_round_trip(a_table());
    blob_record r = a_record();
    r.runs.clear();
    r.cluster_count = 0;
    expect_round_trip(r);
    r.uses_extent_table = true;
    expect_round_trip(r);
    r.unknown.push_back({200, "from the future"});
    expect_round_trip(r);
}

TEST(blob_format_record, runs_join_as_spdk_joins_them) {
    std::vector<cluster_run> runs;
    for (uint32_t c : {5u, 6u, 7u, 0u, 0u, 9u, 8u, 0u, 1u}) append(runs, c);
    EXPECT_EQ(runs, (std::vector<cluster_run>{{5, 3}, {0, 2}, {9, 1}, {8, 1}, {0, 1}, {1, 1}}));
    append(runs, 2, UINT32_MAX);
    EXPECT_EQ(runs.size(), 7u);
}

TEST(blob_format_record, bytes_where_spdk_has_them) {
    blob_record r = a_record();
    const page_bytes p = encoded(r)[0];
    const unsigned char head[] = {
        3,   0,  0,   0,   1,   0,   0, 0,  0,    0, 0, 0,   42,  0,   0,   0,  // id, sequence, stamp
        3,   24, 0,   0,   0,   3,   0, 0,  0,    0, 0, 0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   2,   0,
        0,   0,  0,   0,   0,   0,   2, 14, 0,    0, 0, 4,   0,   6,   0,   'n', 'a', 'm', 'e', 'd', 'i', 's', 'k',
        '0', 0,  2,   9,   0,   0,   0, 5,  0,    0, 0, 'e', 'm', 'p', 't', 'y', 4,   16,  0,   0,   0,   4,   0,
        8,   0,  'S', 'N', 'A', 'P', 9, 0,  0,    0, 1, 0,   0,   0,   1,   24,  0,   0,   0,   100, 0,   0,   0,
        10,  0,  0,   0,   0,   0,   0, 0,  0x58, 2, 0, 0,   20,  0,   0,   0,   2,   0,   0,   0,   0,   0};
    EXPECT_EQ(std::memcmp(p.data(), head, sizeof head), 0);
    le32 next;
    std::memcpy(&next, p.data() + 4088, sizeof next);
    EXPECT_EQ(next, no_page);
}

TEST(blob_format_record, chains_of_many_pages) {
    blob_record r = a_record();
    for (int i = 0; i < 30; ++i) r.xattrs.set("x" + std::to_string(i), std::string(900 + i * 7, 'v'));
    r.xattrs.set("big", std::string(xattr_bytes_max - 3, 'b'));
    expect_round_trip(r);
    EXPECT_GT(*chain_length(r), 7u);

    blob_record runs = a_record();  // single clusters that do not join
    runs.runs.clear();
    for (uint32_t i = 0; i < 1700; ++i) append(runs.runs, first_data + 2 * i);
    runs.cluster_count = 1700;
    expect_round_trip(runs);
    EXPECT_EQ(*chain_length(runs), 4u);

    blob_record table = a_table();
    table.extent_pages.clear();
    for (uint32_t i = 0; i < 1200; ++i) append(table.extent_pages, 1000 + i);
    table.cluster_count = 1200 * 512;
    expect_round_trip(table);
    EXPECT_EQ(*chain_length(table), 3u);
}

// Every room that can be left in a page before the cluster map begins.
TEST(blob_format_record, maps_begin_where_they_fit) {
    for (const bool table : {false, true})
        for (std::size_t left = 0; left < 60; ++left) {
            blob_record r = table ? a_table() : a_record();
            r.xattrs = {};
            r.internal_xattrs = {};
            r.xattrs.set("x", std::string(descriptor_space - 29 - 9 - 1 - left, 'v'));
            expect_round_trip(r);
            EXPECT_EQ(*chain_length(r), left >= (table ? 53u : 29u) ? 1u : 2u) << left;
            // SPDK begins the map here if its head and, for runs, one of them fit: 13 bytes both.
            const auto type = table ? descriptor_type::extent_table : descriptor_type::extent_rle;
            const std::byte begun = left < 13 ? std::byte{0} : static_cast<std::byte>(type);
            if (left > 0) EXPECT_EQ(encoded(r)[0][16 + descriptor_space - left], begun) << left;
        }
}

TEST(blob_format_record, what_cannot_be_encoded) {
    blob_record r = a_record();
    r.pages = {3, 4};
    EXPECT_FALSE(encode_chain(r));
    r.pages = {4};
    EXPECT_FALSE(encode_chain(r));
    r.xattrs.set("big", std::string(xattr_bytes_max - 2, 'b'));
    EXPECT_THAT(encode_chain(r).error().message(), HasSubstr("xattr big"));
    EXPECT_FALSE(chain_length(r));
}

struct spoilt {
    const char* named;
    std::function<void(std::vector<page_bytes>&)> spoil;
};

void expect_refused(blob_record r, const std::vector<spoilt>& cases) {
    const auto good = encoded(r);
    for (const auto& c : cases) {
        auto pages = good;
        c.spoil(pages);
        for (auto& p : pages) seal(p);
        auto back = decode_chain(numbered(r, pages), g);
        ASSERT_FALSE(back) << c.named;
        EXPECT_THAT(back.error().message(), HasSubstr(c.named));
        EXPECT_EQ(back.error().code(), errc::bad_sequence);
    }
}

TEST(blob_format_record, bad_chains) {
    blob_record r = a_record();
    r.xattrs.set("big", std::string(4040, 'b'));
    r.xattrs.set("also", std::string(4000, 'b'));
    ASSERT_EQ(*chain_length(r), 3u);
    expect_refused(r, {
                          {"page 3: id is 0x100000004", [](auto& p) { poke<le64>(p[0], 0, id_of_root_page(4)); }},
                          {"page 50: id is 0x7", [](auto& p) { poke<le64>(p[1], 0, 7); }},
                          {"page 50: sequence is 2", [](auto& p) { poke<le32>(p[1], 8, 2); }},
                          {"page 51: stamp is 41", [](auto& p) { poke<le32>(p[2], 12, 41); }},
                          {"page 3: next is none", [](auto& p) { poke<le32>(p[0], 4088, no_page); }},
                          {"page 3: next is 51", [](auto& p) { poke<le32>(p[0], 4088, 51); }},
                          {"page 51: next is 3", [](auto& p) { poke<le32>(p[2], 4088, 3); }},
                      });
    auto pages = encoded(r);
    pages[2][100] ^= std::byte{1};
    EXPECT_THAT(decode_chain(numbered(r, pages), g).error().message(), HasSubstr("page 51: crc is"));
    auto far = numbered(r, pages);
    far[0].number = g.md.count;
    EXPECT_THAT(decode_chain(far, g).error().message(), HasSubstr("the store has 4000"));
    EXPECT_FALSE(decode_chain({}, g));
}

TEST(blob_format_record, bad_descriptors) {
    constexpr std::size_t flags = 16, name = flags + 29, empty = name + 19, parent = empty + 14, map = parent + 21;
    expect_refused(
        a_record(),
        {
            {"length is 4043", [](auto& p) { poke<le32>(p[0], flags + 1, 4072 - 29); }},
            {"flags descriptor at byte 16: length is 23", [](auto& p) { poke<le32>(p[0], flags + 1, 23); }},
            {"at byte 45: length is 4294967295, 4038 are left",
             [](auto& p) { poke<le32>(p[0], name + 1, UINT32_MAX); }},
            {"name_length 5 and value_length 6", [](auto& p) { poke<le16>(p[0], name + 5, 5); }},
            {"name_length 4 and value_length 65535", [](auto& p) { poke<le16>(p[0], name + 7, 65535); }},
            {"xattr descriptor at byte 45: length is 3", [](auto& p) { poke<le32>(p[0], name + 1, 3); }},
            {"extent page descriptor", [](auto& p) { p[0][parent] = std::byte{6}; }},
            {"extent descriptor at byte 99: length is 23", [](auto& p) { poke<le32>(p[0], map + 1, 23); }},
            {"extent descriptor at byte 99: length is 0", [](auto& p) { poke<le32>(p[0], map + 1, 0); }},
            {"10 clusters from 15, data clusters are 16 to 3999", [](auto& p) { poke<le32>(p[0], map + 5, 15); }},
            {"10 clusters from 3991", [](auto& p) { poke<le32>(p[0], map + 5, 3991); }},
            {"10 clusters from 4294967295", [](auto& p) { poke<le32>(p[0], map + 5, UINT32_MAX); }},
            {"more than 2^32 - 1", [](auto& p) { poke<le32>(p[0], map + 17, UINT32_MAX); }},
            {"not thin", [](auto& p) { poke<le64>(p[0], flags + 5, 0); }},
        });
}

TEST(blob_format_record, bad_extent_tables) {
    constexpr std::size_t map = 99, runs = map + 13;
    expect_refused(a_table(),
                   {
                       {"table descriptor at byte 99: length is 7", [](auto& p) { poke<le32>(p[0], map + 1, 7); }},
                       {"length is 47", [](auto& p) { poke<le32>(p[0], map + 1, 47); }},
                       {"has 4294967296 clusters", [](auto& p) { poke<le64>(p[0], map + 5, uint64_t{1} << 32); }},
                       {"its 3585 clusters need 8", [](auto& p) { poke<le64>(p[0], map + 5, 3585); }},
                       {"names 2 extent pages from 8", [](auto& p) { poke<le32>(p[0], runs + 4, 2); }},
                       {"names 1 extent pages from 4000", [](auto& p) { poke<le32>(p[0], runs, 4000); }},
                       {"has 4294967299 extent pages", [](auto& p) { poke<le32>(p[0], runs + 12, UINT32_MAX); }},
                       {"not thin", [](auto& p) { poke<le64>(p[0], 21, 4); }},
                   });
    blob_record both = a_record();
    both.xattrs.set("big", std::string(4005, 'b'));  // so that the map is in the second page
    expect_refused(both, {{"has an extent table, too", [](auto& p) {
                               const unsigned char table[] = {5, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
                               std::memcpy(p[0].data() + 16 + 29 + 19 + 14, table, sizeof table);
                           }}});
}

TEST(blob_format_record, what_could_be_understood_of_a_broken_chain) {
    blob_record r = a_record();
    auto pages = encoded(r);
    poke<le16>(pages[0], 16 + 29 + 5, 5);  // name_length of the first xattr
    seal(pages[0]);
    auto back = decode_chain_as_far_as_possible(numbered(r, pages), g);
    ASSERT_TRUE(back.wrong);
    EXPECT_EQ(back.record.runs, r.runs);
    EXPECT_EQ(back.record.internal_xattrs, r.internal_xattrs);
    EXPECT_EQ(back.record.xattrs.size(), 1u);
}

TEST(blob_format_record, access_follows_unknown_flags) {
    blob_record r = a_record();
    EXPECT_EQ(r.access(), blob_access::full);
    r.flags.md_read_only |= 4;
    EXPECT_EQ(r.access(), blob_access::data_only);
    r.flags.data_read_only = data_ro_flag::read_only;
    EXPECT_EQ(r.access(), blob_access::read_only);
    r.flags.data_read_only = data_ro_flag::set_aside;
    EXPECT_EQ(r.access(), blob_access::read_only);
    r.flags.invalid |= 16;
    EXPECT_EQ(r.access(), blob_access::none);
}

TEST(blob_format_record, ids_in_xattrs) {
    blob_record r = a_record();
    EXPECT_EQ(**r.id_in(xattr_parent), id_of_root_page(9));
    EXPECT_EQ(*r.id_in(xattr_in_progress), std::nullopt);
    r.internal_xattrs.set(xattr_in_progress, "short");
    EXPECT_THAT(r.id_in(xattr_in_progress).error().message(), HasSubstr("SNAPTMP has 5 bytes"));
}

TEST(blob_format_page, what_pages_are) {
    blob_record r = a_record();
    r.xattrs.set("big", std::string(4000, 'b'));
    const auto chain = encoded(r);
    const page_bytes extents = encode_extent_page({.id = r.id, .stamp = 0, .first_cluster = 0, .clusters = {20}});
    const page_bytes header = encode_double_write({.sequence = 1, .own_page = 3990});
    EXPECT_EQ(look_at(page_bytes{}, 3).content, page_content::clear);
    EXPECT_EQ(look_at(chain[0], 3).content, page_content::root);
    EXPECT_EQ(look_at(chain[0], 4).content, page_content::elsewhere);
    EXPECT_EQ(look_at(chain[1], 3).content, page_content::continuation);
    EXPECT_EQ(look_at(extents, 3).content, page_content::extents);
    EXPECT_EQ(look_at(header, 3990).content, page_content::double_write);
    page_bytes torn = chain[0];
    torn[4000] ^= std::byte{1};
    EXPECT_EQ(look_at(torn, 3).content, page_content::damaged);
}

TEST(blob_format_page, extent_pages) {
    extent_page e{.id = id_of_root_page(3), .stamp = 5, .first_cluster = 1024, .clusters = {}};
    for (uint32_t i = 0; i < 512; ++i) e.clusters.push_back(i % 3 == 0 ? 0 : first_data + i);
    for (std::size_t count : {512u, 100u, 1u, 0u}) {
        e.clusters.resize(count);
        auto back = decode_extent_page(encode_extent_page(e), 60, g);
        ASSERT_TRUE(back) << back.error().message();
        EXPECT_EQ(back->clusters, e.clusters);
        EXPECT_EQ(back->first_cluster, 1024u);
        EXPECT_EQ(back->stamp, 5u);
        EXPECT_EQ(encode_extent_page(*back), encode_extent_page(e));
    }
    const page_bytes good = encode_extent_page({.id = e.id, .stamp = 0, .first_cluster = 512, .clusters = {20, 0, 21}});
    const std::vector<std::pair<const char*, std::function<void(page_bytes&)>>> cases = {
        {"sequence 0, this one 1", [](auto& p) { poke<le32>(p, 8, 1); }},
        {"no next page, this one 7", [](auto& p) { poke<le32>(p, 4088, 7); }},
        {"its first descriptor is of type 3", [](auto& p) { p[16] = std::byte{3}; }},
        {"length is 17", [](auto& p) { poke<le32>(p, 17, 17); }},
        {"length is 0", [](auto& p) { poke<le32>(p, 17, 0); }},
        {"length is 4294967292", [](auto& p) { poke<le32>(p, 17, 0xffff'fffc); }},
        {"513 clusters", [](auto& p) { poke<le32>(p, 17, 4 * 514); }},
        {"first cluster 513", [](auto& p) { poke<le32>(p, 21, 513); }},
        {"one descriptor, this one more", [](auto& p) { poke<le32>(p, 16 + 21 + 1, 4); }},
        {"cluster 512 of the blob is at 15", [](auto& p) { poke<le32>(p, 25, 15); }},
        {"cluster 513 of the blob is at 4000", [](auto& p) { poke<le32>(p, 29, 4000); }},
    };
    for (const auto& [named, spoil] : cases) {
        page_bytes p = good;
        spoil(p);
        seal(p);
        auto back = decode_extent_page(p, 60, g);
        ASSERT_FALSE(back) << named;
        EXPECT_THAT(back.error().message(), HasSubstr(named));
        EXPECT_THAT(back.error().message(), HasSubstr("page 60: "));
    }
    page_bytes p = good;
    p[30] ^= std::byte{1};
    EXPECT_THAT(decode_extent_page(p, 60, g).error().message(), HasSubstr("crc is"));
}

TEST(blob_format_page, extent_pages_in_their_place) {
    blob_record r = a_table();
    EXPECT_EQ(r.extent_page_count(), 7u);
    EXPECT_EQ(r.clusters_in_extent_page(0), 512u);
    EXPECT_EQ(r.clusters_in_extent_page(6), 1u);
    EXPECT_EQ(r.clusters_in_extent_page(7), 0u);
    extent_page e{.id = r.id, .stamp = 0, .first_cluster = 512, .clusters = {20, 0}};
    EXPECT_TRUE(check_place(e, 8, r, 1));
    EXPECT_THAT(check_place(e, 8, r, 0).error().message(), HasSubstr("page 8: extent page of clusters from 512"));
    r.flags.invalid &= ~invalid_flag::thin;
    EXPECT_THAT(check_place(e, 8, r, 1).error().message(), HasSubstr("cluster 513 of blob 0x100000003 is unallocated"));
    e.clusters = {20, 21};
    EXPECT_TRUE(check_place(e, 8, r, 1));
}

TEST(blob_page, a_flipped_bit_is_found_wherever_it_is) {
    const page_bytes whole =
        encode_extent_page({.id = id_of_root_page(3), .first_cluster = 512, .clusters = {20, 0, 30}});
    EXPECT_FALSE(without_flipped_bit(whole));
    for (std::size_t bit = 0; bit < whole.size() * 8; bit += 7) {
        page_bytes damaged = whole;
        damaged[bit / 8] ^= std::byte{1} << bit % 8;
        const auto mended = without_flipped_bit(damaged);
        ASSERT_TRUE(mended) << bit;
        EXPECT_EQ(*mended, whole) << bit;
        damaged[(bit * 37 + 5) / 8 % whole.size()] ^= std::byte{1} << (bit * 37 + 5) % 8;
        const auto twice = without_flipped_bit(damaged);
        if (crc_right(damaged)) continue;  // the same bit
        EXPECT_FALSE(twice) << bit << ": two bits cannot look like one";
    }
}

TEST(blob_page, what_is_left_of_an_extent_page) {
    page_bytes page = encode_extent_page({.id = id_of_root_page(3), .first_cluster = 512, .clusters = {20, 0, 30}});
    page[4092] ^= std::byte{0xff};
    const le32 outside = 77777777;
    std::memcpy(page.data() + 16 + 9 + 4, &outside, sizeof outside);
    const auto rest = salvage_extent_page(page, 9, g);
    ASSERT_TRUE(rest);
    EXPECT_EQ(rest->page.first_cluster, 512u);
    EXPECT_EQ(rest->page.clusters, (std::vector<uint32_t>{20, 0, 30}));
    EXPECT_EQ(rest->outside, std::vector<std::size_t>{1});
    page[16] = std::byte{5};
    EXPECT_FALSE(salvage_extent_page(page, 9, g));
}

}  // namespace
}  // namespace varve::blob::format
