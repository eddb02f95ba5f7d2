// Copies for first writes to clones take memory: not more than a few at once.
#include <gtest/gtest.h>

#include "blob/test_check.h"
#include "blob/test_store.h"
#include "thread/awaits.h"

namespace varve::blob {
namespace {

constexpr uint32_t cluster = 8 * 1024, blocks = cluster / 512;
const init_options small{.cluster_size = cluster, .md_page_count = 120, .trim = false};

TEST(store_copies, are_made_a_few_at_a_time) {
    constexpr unsigned writes = 60;
    sim_machine m(1, 4 << 20, {});
    auto outcome = m.live([&m](life& l) -> task<> {
        auto s = co_await store::init(l.devices, l.base(), small);
        const blob_id id = co_await s->create({.clusters = writes, .thin = true});
        co_await write_pattern(l, *s, id, 0, writes * blocks, 'p');
        co_await l.stop_serving(id);
        blob_ref b = co_await s->open(id);
        co_await s->snapshot(b, {});
        b.close();
        auto d = co_await l.serve(*s, id);
        {
            auto io = d.channel();
            m.disk().inject({.what = env::sim::disk_fault::effect::stuck,
                             .kind = env::file_op_kind::read,
                             .times = external_parent::copies_at_once});
            data_bytes data(512, std::byte{'w'});
            crew all;
            for (unsigned i = 0; i < writes; ++i) all.start(bdev::write(*io, i * blocks, data));
            const uint64_t before = m.disk().ops_issued();
            co_await sleep(1 * seconds);
            EXPECT_EQ(m.disk().stuck(), external_parent::copies_at_once);
            EXPECT_LT(m.disk().ops_issued() - before, uint64_t{writes}) << "more were begun";
            m.disk().release_stuck();
            co_await all.done();
            data_bytes found(writes * cluster);
            co_await bdev::read(*io, 0, found);
            for (unsigned i = 0; i < writes; ++i) {
                EXPECT_EQ(found[std::size_t{i} * cluster], std::byte{'w'});
                EXPECT_EQ(found[std::size_t{i} * cluster + 512], std::byte{'p'});
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
