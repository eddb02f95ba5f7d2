// Where in a store that comes from elsewhere the double-write area goes, and what is said when there is no place.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "blob/test_check.h"
#include "blob/test_store.h"

namespace varve::blob {
namespace {

using testing::HasSubstr;

constexpr uint32_t pages = 240;
const init_options small{.cluster_size = 8 * 1024, .md_page_count = pages, .trim = false};

// A store of SPDK's that died, with an empty blob in every `step`th page.
void of_spdk(sim_machine& m, uint32_t step) {
    auto outcome = m.live([](life& l) -> task<> {
        auto s = co_await store::init(l.devices, l.base(), small);
        co_await s->create({.clusters = 1, .thin = true});
        co_await s->abandon();
    });
    ASSERT_TRUE(outcome) << outcome.error().message();
    make_older(m.disk());
    const uint64_t md = uint64_t{super_of(m.disk()).md_start} * 4096;
    const data_bytes nothing(uint64_t{pages - 1} * 4096);
    m.disk().poke(md + 4096, nothing);
    for (uint32_t p = step; p < pages; p += step) {
        format::blob_record r{.id = format::id_of_root_page(p), .uses_extent_table = true, .pages = {p}};
        r.flags.invalid = format::invalid_flag::extent_table | format::invalid_flag::thin;
        auto chain = format::encode_chain(r);
        ASSERT_TRUE(chain) << chain.error().message();
        m.disk().poke(md + uint64_t{p} * 4096, (*chain)[0]);
    }
}

TEST(double_write_area, is_as_large_as_there_is_room_in_a_row) {
    sim_machine m(1, 4 << 20, {});
    of_spdk(m, 10);
    auto outcome = m.live([](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), {.trim = false});
        EXPECT_EQ(s->blobs().size(), 24u);
        const auto area = s->super().extension->double_write;
        EXPECT_EQ(area.page_count(), 9u);
        EXPECT_EQ(s->trouble(), "");
        co_await s->create({.clusters = 3});
        expect_sound(*s);
        co_await s->unload();
        EXPECT_EQ(s->super().extension->double_write.page_count(), 9u);
    });
    ASSERT_TRUE(outcome) << outcome.error().message();
    EXPECT_EQ(fsck(m.disk(), true), "");
}

TEST(double_write_area, that_has_no_place_is_missed_and_made_later) {
    sim_machine m(1, 4 << 20, {});
    of_spdk(m, 3);
    auto outcome = m.live([](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), {.trim = false});
        EXPECT_FALSE(s->super().extension->double_write.exists());
        EXPECT_THAT(s->trouble(), HasSubstr("power cut"));
        for (uint32_t p : {60u, 63u}) co_await s->remove(format::id_of_root_page(p));
        co_await s->unload();
    });
    ASSERT_TRUE(outcome) << outcome.error().message();
    outcome = m.live([](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), {.trim = false});
        EXPECT_EQ(s->super().extension->double_write.page_count(), 8u);
        EXPECT_EQ(s->trouble(), "");
        co_await s->unload();
    });
    ASSERT_TRUE(outcome) << outcome.error().message();
    EXPECT_EQ(fsck(m.disk(), true), "");
}

}  // namespace
}  // namespace varve::blob
