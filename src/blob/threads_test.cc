// Channels on other threads while the store's thread takes and removes snapshots: nobody reads what is not his, and
// nothing that was written is lost.
#include <gtest/gtest.h>

#include "bdev/test_device.h"
#include "blob/test_check.h"
#include "blob/test_store.h"
#include "thread/awaits.h"
#include "thread/test_world.h"

namespace varve::blob {
namespace {

constexpr uint32_t cluster = 16 * 1024, blocks = cluster / 512, clusters = 20;

// Writes here and there, and reads back what it has written.
task<> write_and_read(bdev::descriptor& d, unsigned seed, unsigned rounds) {
    auto io = d.channel();
    std::vector<unsigned> written(clusters * blocks / 8);
    for (unsigned n = 1; n <= rounds; ++n) {
        unsigned at = (n * 37 + seed * 11) % static_cast<unsigned>(written.size() / 2) * 2 + seed;
        co_await bdev::write(*io, at * 8, bdev::pattern(8 * 512, n));
        written[at] = n;
        unsigned look = (n * 53) % static_cast<unsigned>(written.size() / 2) * 2 + seed;
        std::vector<std::byte> back(8 * 512), expected(back.size());
        co_await bdev::read(*io, look * 8, back);
        if (written[look] != 0) expected = bdev::pattern(back.size(), written[look]);
        EXPECT_TRUE(back == expected) << "at " << look << " in round " << n;
    }
    co_await bdev::flush(*io);
}

task<> snapshots_under_load(bdev::bdev_system& s, unsigned rounds) {
    bdev::properties p;
    p.name = "base";
    p.num_blocks = 16384;
    p.offered = bdev::op_bit(bdev::op::read) | bdev::op_bit(bdev::op::write) | bdev::op_bit(bdev::op::unmap) |
                bdev::op_bit(bdev::op::write_zeroes) | bdev::op_bit(bdev::op::flush);
    p.write_cache = rounds % 2 == 0;
    p.unmap_zeroes = true;
    bdev::ram_device& base = *co_await s.add(p);
    auto st = co_await store::init(s.devices, *s.open(base), {.cluster_size = cluster});
    blob_id id = co_await st->create({.clusters = clusters, .thin = true});
    auto made = std::make_unique<blob_device>(co_await st->open(id), "volume");
    blob_device* volume = made.get();
    co_await s.devices.add(std::move(made));
    volume->blob.serve_through(volume);
    auto d = *s.devices.open("volume", bdev::open_mode::read_write, {});
    thread::thread* others[2] = {*s.system.rt->create_thread("io0"), *s.system.rt->create_thread("io1")};
    {
        crew load;
        for (unsigned i = 0; i < 2; ++i) {
            load.start(call_on(*others[i], [&d, i, rounds] { return write_and_read(d, i, rounds); }));
        }
        std::vector<blob_id> snapshots;
        for (unsigned i = 0; i < 4; ++i) {
            auto taken = co_await as_result(st->snapshot(volume->blob, {}));
            EXPECT_TRUE(taken);
            if (taken) snapshots.push_back(*taken);
        }
        for (std::size_t i : {1u, 0u, 2u}) EXPECT_TRUE(co_await as_result(st->remove(snapshots[i])));
        co_await load.done();
    }
    expect_sound(*st);
    for (thread::thread* t : others) s.system.rt->destroy_thread(*t);
    d.close();
    co_await s.devices.remove("volume");
    co_await st->unload();
}

class blob_threads : public thread::in_every_world {};
INSTANTIATE_TEST_SUITE_P(worlds, blob_threads, thread::every_world(), thread::world_name);
TEST_P(blob_threads, snapshots_are_taken_under_load) {
    for (unsigned rounds : {200u, 201u}) {
        bdev::bdev_system s(GetParam(), 2);
        s.run(snapshots_under_load(s, rounds));
    }
}
TEST(blob_threads_sim, snapshots_are_taken_under_load) {
    thread::for_each_seed(
        [] {
            bdev::bdev_system s(thread::world_kind::sim, 2);
            s.run(snapshots_under_load(s, 30 + static_cast<unsigned>(thread::test_seed() % 2)));
        },
        100);
}

}  // namespace
}  // namespace varve::blob
