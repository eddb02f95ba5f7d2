// Removing a snapshot whose clone is larger, and what is below it larger, too: zeroes that show beyond the snapshot's
// end become the clone's own, or what is below would show there.
#include <gtest/gtest.h>

#include "blob/test_check.h"
#include "blob/test_store.h"
#include "thread/awaits.h"

namespace varve::blob {
namespace {

constexpr uint32_t cluster = 8 * 1024, blocks = cluster / 512;
const init_options small{.cluster_size = cluster, .md_page_count = 120, .trim = false};

struct three {
    blob_id v, s, g, other;
};

// g has 12 clusters, s and v have 4; v is 12 again.
task<three> shrunk_and_grown(life& l, store& s) {
    three t{};
    t.v = co_await s.create({.clusters = 12, .thin = true});
    t.other = co_await s.create({.clusters = 1});
    co_await write_pattern(l, s, t.v, 0, 12 * blocks, 'g');
    co_await l.stop_serving(t.v);
    blob_ref b = co_await s.open(t.v);
    t.g = co_await s.snapshot(b, {});
    co_await s.resize(b, 4);
    t.s = co_await s.snapshot(b, {});
    co_await s.resize(b, 12);
    co_return t;
}

task<std::string> shown(life& l, store& s, blob_id id) {
    auto d = co_await l.serve(s, id);
    std::string text;
    {
        auto io = d.channel();
        data_bytes one(cluster);
        for (uint64_t i = 0; i < d->num_blocks() / blocks; ++i) {
            co_await bdev::read(*io, i * blocks, one);
            text += one[0] == std::byte{} ? '-' : static_cast<char>(one[0]);
        }
    }
    d.close();
    co_await l.stop_serving(id);
    co_return text;
}

TEST(store_merge, keeps_zeroes_beyond_the_end_of_the_snapshot) {
    sim_machine m(1, 2 << 20, {.volatile_cache = true});
    auto outcome = m.live([&](life& l) -> task<> {
        auto s = co_await store::init(l.devices, l.base(), small);
        const three t = co_await shrunk_and_grown(l, *s);
        EXPECT_EQ(co_await shown(l, *s, t.v), "gggg--------");
        co_await s->remove(t.s);
        EXPECT_EQ(co_await shown(l, *s, t.v), "gggg--------");
        EXPECT_EQ(s->find(t.v)->allocated, 8u);
        co_await unload_sound(*s);
    });
    EXPECT_TRUE(outcome) << outcome.error().message();
}

// However late the flush fails, v shows what it did.
TEST(store_merge, does_not_go_on_without_zeroes_that_a_failed_flush_took_back) {
    unsigned failed = 0;
    for (uint64_t n = 0; n < 200 && !testing::Test::HasFailure(); ++n) {
        SCOPED_TRACE(n);
        sim_machine m(1, 2 << 20, {.volatile_cache = true, .failed_flush_forgets = true});
        bool over = false;
        auto outcome = m.live([&](life& l) -> task<> {
            auto s = co_await store::init(l.devices, l.base(), small);
            const three t = co_await shrunk_and_grown(l, *s);
            auto e = co_await l.serve(*s, t.other);
            result<> removed;
            {
                auto its = e.channel();
                crew all;
                auto remove = [](store& of, blob_id id, result<>& out) -> task<> {
                    out = co_await as_result(of.remove(id));
                };
                all.start(remove(*s, t.s, removed));
                const uint64_t first = m.disk().ops_issued();
                while (m.disk().ops_issued() < first + n && s->find(t.s) != nullptr && !s->find(t.s)->hidden) {
                    co_await sleep(10 * microseconds);
                }
                over = s->find(t.s) == nullptr || s->find(t.s)->hidden;
                m.disk().inject(
                    {.what = env::sim::disk_fault::effect::error, .kind = env::file_op_kind::flush, .times = 1});
                co_await as_result(bdev::flush(*its));
                co_await all.done();
            }
            e.close();
            co_await l.stop_serving(t.other);
            failed += !removed;
            m.disk().clear_faults();
            EXPECT_EQ(co_await shown(l, *s, t.v), "gggg--------");
            co_await unload_sound(*s);
        });
        EXPECT_TRUE(outcome) << outcome.error().message();
        if (over) break;
    }
    EXPECT_GT(failed, 0u);
}

}  // namespace
}  // namespace varve::blob
