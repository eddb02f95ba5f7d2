// How long requests to a blob wait while a snapshot of it is made: a number of device operations that does not depend
// on the size of the blob, nor on how much of it is written.
#include <gtest/gtest.h>

#include <algorithm>

#include "blob/test_check.h"
#include "blob/test_store.h"
#include "env/system.h"
#include "thread/awaits.h"
#include "thread/test_world.h"

namespace varve::blob {
namespace {

constexpr uint32_t cluster = 8 * 1024;
constexpr time_ns step = 100 * microseconds;  // that every operation of the disk takes

struct stream {
    uint64_t requests = 0;
    time_ns longest = 0;
    bool stop = false;
};

// One request after the other, at places of its own; the longest time one took.
task<> ask(life& l, bdev::channel& io, bool writes, stream& s) {
    data_bytes data(4096, std::byte{'a'});
    env::system& world = l.devices.world();
    while (!s.stop) {
        const uint64_t lba = s.requests++ % 4 * (cluster / 512);
        const time_ns began = world.now();
        if (writes) {
            co_await bdev::write(io, lba, data);
        } else {
            co_await bdev::read(io, lba, data);
        }
        s.longest = std::max(s.longest, world.now() - began);
    }
}

struct pause {
    time_ns alone = 0;   // the longest request before and after
    time_ns during = 0;  // and while the snapshot was made
    time_ns whole = 0;   // that took, in all
};

// A thin blob of so many clusters, a quarter of them written.
pause of_a_snapshot(uint64_t clusters, bool writes, bool cached) {
    pause seen;
    sim_machine m(1, 64 << 20,
                  {.volatile_cache = cached, .latency_min = step, .latency_max = step, .flush_latency_max = step});
    auto outcome = m.live([&](life& l) -> task<> {
        auto s =
            co_await store::init(l.devices, l.base(), {.cluster_size = cluster, .md_page_count = 200, .trim = false});
        blob_id id = co_await s->create({.clusters = clusters, .thin = true});
        co_await write_pattern(l, *s, id, 0, static_cast<uint32_t>(clusters / 4 * (cluster / 512)), 'f');
        blob_ref b = co_await s->open(id);
        auto d = co_await l.serve(*s, id);
        {
            auto io = d.channel();
            for (bool with_snapshot : {false, true}) {
                stream asked;
                crew all;
                all.start(ask(l, *io, writes, asked));
                while (asked.requests < 10) co_await yield();
                const time_ns began = l.devices.world().now();
                if (with_snapshot) co_await s->snapshot(b, {});
                seen.whole = l.devices.world().now() - began;
                const uint64_t enough = asked.requests + 20;
                while (asked.requests < enough) co_await yield();
                asked.stop = true;
                co_await all.done();
                (with_snapshot ? seen.during : seen.alone) = asked.longest;
            }
        }
        d.close();
        co_await l.stop_serving(id);
        b.close();
        co_await s->settle();
        co_await s->abandon();
    });
    EXPECT_TRUE(outcome) << outcome.error().message();
    return seen;
}

TEST(store_pause, a_snapshot_holds_requests_for_some_operations_of_the_disk) {
    for (bool cached : {false, true}) {
        for (bool writes : {false, true}) {
            SCOPED_TRACE(std::string(cached ? "cache" : "no cache") + (writes ? ", writes" : ", reads"));
            const pause small = of_a_snapshot(16, writes, cached), large = of_a_snapshot(3600, writes, cached);
            EXPECT_LE(large.during, small.during + small.during / 10) << "it depends on the size";
            // Its turn comes after the request before it; then the snapshot's two flushes, its new pages, and its
            // round.
            EXPECT_LE(small.during, small.alone + 6 * step) << small.whole / step << " for the snapshot";
            EXPECT_LT(small.during, small.whole + 2 * small.alone);
        }
    }
}

}  // namespace
}  // namespace varve::blob
