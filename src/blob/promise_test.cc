// Where the device has a volatile cache, a write is acknowledged before its mapping is in the metadata: the pages that
// takes are promised to the blob, or the write fails.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "blob/test_check.h"
#include "blob/test_store.h"
#include "thread/awaits.h"
#include "util/log.h"

namespace varve::blob {
namespace {

constexpr uint32_t cluster = 8 * 1024, blocks = cluster / 512;
constexpr uint64_t per_page = format::clusters_per_extent_page;
const init_options tight{.cluster_size = cluster, .md_page_count = 40, .trim = false};

// One block into the first cluster of each extent page; which of them were acknowledged.
task<std::vector<uint64_t>> scatter(life& l, store& s, blob_id id, uint64_t extents, char c) {
    std::vector<uint64_t> written;
    auto d = co_await l.serve(s, id);
    {
        auto io = d.channel();
        data_bytes data(512, static_cast<std::byte>(c));
        for (uint64_t e = 0; e < extents; ++e) {
            auto outcome = co_await as_result(bdev::write(*io, e * per_page * blocks, data));
            if (outcome) written.push_back(e);
            EXPECT_TRUE(outcome || outcome.error().code() == errc::no_space) << outcome.error().message();
        }
    }
    d.close();
    co_return written;
}

task<> expect_there(life& l, store& s, blob_id id, const std::vector<uint64_t>& written, char c) {
    auto d = co_await l.serve(s, id);
    {
        auto io = d.channel();
        data_bytes data(512);
        for (uint64_t e : written) {
            co_await bdev::read(*io, e * per_page * blocks, data);
            EXPECT_EQ(data[0], static_cast<std::byte>(c)) << "extent page " << e;
        }
    }
    d.close();
    co_await l.stop_serving(id);
}

TEST(store_pages, are_there_for_every_write_that_was_acknowledged) {
    sim_machine m(1, 2 << 20, {.volatile_cache = true});
    std::vector<uint64_t> written;
    blob_id id = 0;
    auto outcome = m.live([&](life& l) -> task<> {
        auto s = co_await store::init(l.devices, l.base(), tight);
        id = co_await s->create({.clusters = 60 * per_page, .thin = true});
        written = co_await scatter(l, *s, id, 60, 'w');
        EXPECT_GT(written.size(), 20u);
        EXPECT_LT(written.size(), 40u);
        co_await l.stop_serving(id);
        co_await unload_sound(*s);
    });
    ASSERT_TRUE(outcome) << outcome.error().message();
    EXPECT_EQ(fsck(m.disk(), true), "");
    outcome = m.live([&](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), {.trim = false});
        co_await expect_there(l, *s, id, written, 'w');
        co_await s->unload();
    });
    EXPECT_TRUE(outcome) << outcome.error().message();
}

// Others take every page that is free before the mappings are saved. The chain of the first gets longer with them.
TEST(store_pages, that_were_promised_are_nobody_elses) {
    sim_machine m(1, 4 << 20, {.volatile_cache = true});
    auto outcome = m.live([&](life& l) -> task<> {
        init_options how = tight;
        how.md_page_count = 360;
        auto s = co_await store::init(l.devices, l.base(), how);
        const blob_id id = co_await s->create(
                          {.clusters = 300 * per_page, .thin = true, .xattrs = {{"long", std::string(2500, 'x')}}}),
                      other = co_await s->create({.clusters = 300 * per_page, .thin = true});
        const auto mine = co_await scatter(l, *s, id, 256, '1'), its = co_await scatter(l, *s, other, 3, '2');
        EXPECT_EQ(mine.size(), 256u);
        EXPECT_EQ(its.size(), 3u);
        unsigned more = 0;
        while (co_await as_result(s->create({.clusters = 1, .thin = true}))) ++more;
        EXPECT_GT(more, 20u);
        for (blob_id each : {id, other}) {
            blob_ref b = co_await s->open(each);
            co_await s->flush(b);
        }
        EXPECT_EQ(s->find(id)->pages_promised, 0u);
        co_await expect_there(l, *s, id, mine, '1');
        co_await expect_there(l, *s, other, its, '2');
        while (co_await as_result(s->create({.clusters = 1, .thin = true}))) ++more;
        EXPECT_EQ(s->room().free_pages(), 0u);
        expect_sound(*s);
        co_await s->unload();
    });
    EXPECT_TRUE(outcome) << outcome.error().message();
    EXPECT_EQ(fsck(m.disk(), true), "");
}

TEST(store_pages, are_free_again_when_the_blob_is_removed_or_shrunk) {
    sim_machine m(1, 2 << 20, {.volatile_cache = true});
    auto outcome = m.live([&](life& l) -> task<> {
        auto s = co_await store::init(l.devices, l.base(), tight);
        const blob_id id = co_await s->create({.clusters = 60 * per_page, .thin = true});
        const auto first = co_await scatter(l, *s, id, 60, 'w');
        blob_ref b = co_await s->open(id);
        co_await s->resize(b, per_page);
        b.close();
        co_await l.stop_serving(id);
        const blob_id other = co_await s->create({.clusters = 60 * per_page, .thin = true});
        const auto second = co_await scatter(l, *s, other, 60, 'o');
        EXPECT_GT(second.size() + 5, first.size());
        co_await l.stop_serving(other);
        co_await s->remove(other);
        co_await s->settle();
        const blob_id third = co_await s->create({.clusters = 60 * per_page, .thin = true});
        EXPECT_EQ((co_await scatter(l, *s, third, 60, 't')).size(), second.size());
        co_await l.stop_serving(third);
        co_await unload_sound(*s);
    });
    EXPECT_TRUE(outcome) << outcome.error().message();
}

// A blob that cannot be saved: others are, and it is told once.
TEST(store_pages, that_cannot_be_written_keep_no_other_blob_from_being_saved) {
    sim_machine m(1, 2 << 20, {.volatile_cache = true});
    std::vector<std::string> lines;
    log to([&](const log::line& each) { lines.emplace_back(each.text); });
    auto outcome = m.live([&](life& l) -> task<> {
        init_options how = tight;
        how.log = &to.component("blob");
        auto s = co_await store::init(l.devices, l.base(), how);
        const blob_id id = co_await s->create({.clusters = 4, .thin = true}),
                      other = co_await s->create({.clusters = 4, .thin = true});
        co_await scatter(l, *s, id, 1, 'w');
        co_await scatter(l, *s, other, 1, 'o');
        // The flush comes before the pages.
        m.disk().inject({.kind = env::file_op_kind::write,
                         .first = s->geometry().offset_of_md_page(0),
                         .end = s->geometry().offset_of_md_page(40),
                         .times = 100});
        co_await sleep(5 * seconds);
        EXPECT_EQ(std::ranges::count_if(lines, [](const std::string& x) { return x.contains("cannot be saved"); }), 2);
        m.disk().clear_faults();
        co_await sleep(2 * seconds);
        for (blob_id each : {id, other}) EXPECT_TRUE(s->find(each)->unsaved_extents.empty());
        co_await l.stop_serving(id);
        co_await l.stop_serving(other);
        co_await s->settle();
        // At the end only the first fails.
        co_await write_pattern(l, *s, id, blocks, 1, 'w', false);
        co_await write_pattern(l, *s, other, blocks, 1, 'o', false);
        m.disk().inject({.kind = env::file_op_kind::flush});
        EXPECT_FALSE(co_await as_result(s->unload()));
        EXPECT_TRUE(s->find(other)->unsaved_extents.empty());
        co_await s->unload();
    });
    EXPECT_TRUE(outcome) << outcome.error().message();
    EXPECT_EQ(fsck(m.disk(), true), "");
}

// What takes pages for itself takes none that the chain of a blob with unsaved mappings will need, also when it is the
// chain that gets longer.
TEST(store_pages, are_there_when_the_chain_gets_longer) {
    for (unsigned spare = 0; spare < 12; ++spare) {
        SCOPED_TRACE(spare);
        sim_machine m(1, 2 << 20, {.volatile_cache = true});
        auto outcome = m.live([&](life& l) -> task<> {
            auto s = co_await store::init(l.devices, l.base(), tight);
            const blob_id id = co_await s->create({.clusters = 2 * per_page, .thin = true});
            co_await scatter(l, *s, id, 1, 'w');
            std::vector<blob_id> others;
            for (auto made = co_await as_result(s->create({.clusters = 0})); made;
                 made = co_await as_result(s->create({.clusters = 0})))
                others.push_back(*made);
            EXPECT_GT(others.size(), spare);
            for (unsigned i = 0; i < spare; ++i) co_await s->remove(others[i]);
            EXPECT_FALSE(s->find(id)->unsaved_extents.empty());
            blob_ref b = co_await s->open(id);
            std::vector<format::xattr> many;  // a page each
            for (const char* name : {"u", "v", "w", "x", "y", "z"}) many.push_back({name, std::string(3900, 'x')});
            co_await as_result(s->change_xattrs(b, many));
            EXPECT_TRUE(co_await as_result(s->flush(b)));
            b.close();
            co_await l.stop_serving(id);
            co_await unload_sound(*s);
        });
        EXPECT_TRUE(outcome) << outcome.error().message();
    }
}

// A flush fails while a cluster waits to be mapped, and the disk forgets what was copied there.
TEST(store_pages, that_are_not_promised_do_not_map_what_a_failed_flush_has_lost) {
    sim_machine m(1, 2 << 20, {.volatile_cache = true, .failed_flush_forgets = true});
    auto outcome = m.live([&](life& l) -> task<> {
        auto s = co_await store::init(l.devices, l.base(), tight);
        const format::geometry& g = s->geometry();
        const std::vector<std::byte> junk(cluster, std::byte{'j'});
        for (uint32_t c = g.first_data_cluster; c < g.cluster_count; ++c) {
            m.disk().poke(g.offset_of_cluster(c), junk);
        }
        const blob_id id = co_await s->create({.clusters = 8 * per_page, .thin = true});
        for (uint64_t e : {0u, 3u}) co_await write_pattern(l, *s, id, e * per_page * blocks, blocks, 'p');
        {
            blob_ref b = co_await s->open(id);
            co_await s->snapshot(b, {});
        }
        std::vector<blob_id> others;
        for (auto made = co_await as_result(s->create({.clusters = 0})); made;
             made = co_await as_result(s->create({.clusters = 0})))
            others.push_back(*made);
        for (unsigned i = 0; i < 2; ++i) co_await s->remove(others[i]);
        co_await s->settle();
        auto d = co_await l.serve(*s, id);
        {
            auto io = d.channel();
            data_bytes data(512, std::byte{'w'});
            bdev::pending first(bdev::op::write, 0, 1), second(bdev::op::write, 3 * per_page * blocks, 1);
            m.disk().inject(
                {.what = env::sim::disk_fault::effect::slow, .kind = env::file_op_kind::flush, .delay = 1 * seconds});
            m.disk().inject({.kind = env::file_op_kind::flush});
            first.data(data).go(*io);
            co_await sleep(100 * milliseconds);
            second.data(data).go(*io);
            co_await first.over.wait();
            co_await second.over.wait();
            EXPECT_NE(first.status, bdev::status::ok);
            for (uint64_t lba : {uint64_t{0}, 3 * per_page * blocks}) {
                const bool there = (lba == 0 ? first : second).status == bdev::status::ok;
                data_bytes back(cluster);
                co_await bdev::read(*io, lba, back);
                EXPECT_EQ(back[0], there ? std::byte{'w'} : std::byte{'p'}) << lba;
                EXPECT_EQ(back[512], std::byte{'p'}) << lba;
                EXPECT_EQ(back.back(), std::byte{'p'}) << lba;
            }
        }
        d.close();
        co_await l.stop_serving(id);
        co_await unload_sound(*s);
    });
    EXPECT_TRUE(outcome) << outcome.error().message();
}

}  // namespace
}  // namespace varve::blob
