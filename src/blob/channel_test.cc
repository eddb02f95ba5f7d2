// Requests of every size and kind to a blob's bdev, over clusters that are a power of two of blocks and others, over
// clusters it has, its parent has, and nobody has: what is there is what a plain array would hold. Stores of new, and
// old ones whose io units are larger than the device's blocks.
#include "blob/channel.h"

#include <gtest/gtest.h>

#include "blob/test_check.h"
#include "blob/test_store.h"
#include "env/sim/rng.h"
#include "thread/test_world.h"

namespace varve::blob {
namespace {

using bytes = data_bytes;

class requests {
  public:
    requests(uint64_t seed, sim_machine& on, uint32_t cluster, uint32_t unit)
        : _chance(env::sim::rng::stream(seed, "requests")), _machine(on), _cluster(cluster), _unit(unit) {}

    task<> run(life& l) {
        auto s = co_await store::init(l.devices, l.base(), {.cluster_size = _cluster, .md_page_count = 100});
        if (_unit != 512) {
            co_await s->unload();
            s.reset();
            make_older(_machine.disk());
            s = co_await store::load(l.devices, l.base(), {});
        }
        EXPECT_EQ(s->geometry().io_unit_size, _unit);
        const uint64_t clusters = 7;
        blob_id id = co_await s->create({.clusters = clusters, .thin = true});
        _blocks = static_cast<uint32_t>(clusters * _cluster / _unit);
        _expected.resize(std::size_t{_blocks} * _unit);
        co_await write_pattern(l, *s, id, _cluster / 512, 3 * _cluster / 512, 'p');
        std::fill_n(_expected.begin() + _cluster, 3 * _cluster, std::byte{'p'});
        {
            blob_ref b = co_await s->open(id);
            co_await s->snapshot(b, {});
        }
        const std::string parent = co_await describe(l, *s);
        auto d = co_await l.serve(*s, id);
        EXPECT_EQ(d->block_size(), _unit);
        EXPECT_EQ(d->props().optimal_io_boundary, (_cluster / _unit) & -(_cluster / _unit));
        {
            auto io = d.channel();
            for (unsigned i = 0; i < 60 && !testing::Test::HasFailure(); ++i) {
                auto done = co_await as_result(one(*io));
                EXPECT_TRUE(done) << done.error().message();
            }
            bytes all(_expected.size());
            co_await bdev::read(*io, 0, all);
            EXPECT_TRUE(all == _expected);
        }
        d.close();
        co_await l.stop_serving(id);
        expect_sound(*s);
        // The snapshot below has not noticed.
        std::string now = co_await describe(l, *s);
        auto last_line = [](const std::string& text) { return text.substr(text.rfind('\n', text.size() - 2)); };
        EXPECT_EQ(last_line(now), last_line(parent));
        co_await s->unload();
    }

  private:
    bytes random_bytes(uint32_t blocks) {
        bytes out(std::size_t{blocks} * _unit);
        for (auto& b : out) b = static_cast<std::byte>(_chance.below(256));
        return out;
    }
    task<> one(bdev::channel& io) {
        const auto lba = static_cast<uint32_t>(_chance.below(_blocks));
        const auto blocks = static_cast<uint32_t>(1 + _chance.below(std::min(_blocks - lba, 3 * _cluster / _unit)));
        auto at = _expected.begin() + std::ptrdiff_t{lba} * _unit;
        const std::ptrdiff_t size = std::ptrdiff_t{blocks} * _unit;
        const bytes there(at, at + size);
        switch (_chance.below(7)) {
            case 0: {
                bytes data = random_bytes(blocks);
                co_await bdev::write(io, lba, data);
                std::ranges::copy(data, at);
                break;
            }
            case 1:
                co_await bdev::write_zeroes(io, lba, blocks);
                std::fill_n(at, size, std::byte{0});
                break;
            case 2: {
                co_await bdev::compare(io, lba, there);
                bytes other = there;
                other[static_cast<std::size_t>(_chance.below(other.size()))] ^= std::byte{4};
                EXPECT_FALSE(co_await as_result(bdev::compare(io, lba, other)));
                break;
            }
            case 3: {
                bytes data = random_bytes(blocks);
                co_await bdev::compare_and_write(io, lba, there, data);
                std::ranges::copy(data, at);
                break;
            }
            case 4: {
                const auto source = static_cast<uint32_t>(_chance.below(_blocks - blocks + 1));
                co_await bdev::copy(io, source, lba, blocks);
                bytes moved(_expected.begin() + std::ptrdiff_t{source} * _unit,
                            _expected.begin() + std::ptrdiff_t{source} * _unit + size);
                std::ranges::copy(moved, at);
                break;
            }
            case 5: {
                const auto clear = [&](uint64_t from, uint64_t to) {
                    return std::all_of(_expected.begin() + static_cast<std::ptrdiff_t>(from * _unit),
                                       _expected.begin() + static_cast<std::ptrdiff_t>(to * _unit),
                                       [](std::byte b) { return b == std::byte{0}; });
                };
                const uint64_t data = co_await bdev::seek_data(io, lba), hole = co_await bdev::seek_hole(io, lba);
                EXPECT_TRUE(clear(lba, std::min<uint64_t>(data, _blocks))) << "from " << lba << " to " << data;
                const uint64_t end = hole == bdev::io::nowhere ? hole : co_await bdev::seek_data(io, hole);
                if (hole != bdev::io::nowhere) EXPECT_TRUE(clear(hole, std::min<uint64_t>(end, _blocks))) << hole;
                EXPECT_TRUE(data == lba || hole == lba);
                break;
            }
            default: {  // what reads there afterwards is up to the device, block by block
                co_await bdev::unmap(io, lba, blocks);
                bytes now(there.size());
                co_await bdev::read(io, lba, now);
                std::ranges::copy(now, at);
            }
        }
        bytes all(_expected.size());
        co_await bdev::read(io, 0, all);
        EXPECT_TRUE(all == _expected) << lba << "+" << blocks;
    }

    env::sim::rng _chance;
    sim_machine& _machine;
    const uint32_t _cluster, _unit;
    uint32_t _blocks = 0;
    bytes _expected;
};

// A thin blob of twelve clusters: what it has itself (8), what its parent has (3, 4), and nothing else.
TEST(blob_channel, tells_where_something_is) {
    sim_machine m(1, 4 << 20, {});
    auto outcome = m.live([](life& l) -> task<> {
        constexpr uint64_t per_cluster = 16, nowhere = bdev::io::nowhere;
        auto s = co_await store::init(l.devices, l.base(), {.cluster_size = 8192, .md_page_count = 100});
        blob_id id = co_await s->create({.clusters = 12, .thin = true});
        co_await write_pattern(l, *s, id, 3 * per_cluster + 5, 2 * per_cluster - 5, 'p');
        {
            blob_ref b = co_await s->open(id);
            co_await s->snapshot(b, {});
        }
        co_await write_pattern(l, *s, id, 8 * per_cluster, 1, 'v');
        auto d = co_await l.serve(*s, id);
        {
            auto io = d.channel();
            EXPECT_EQ(co_await bdev::seek_data(*io, 0), 3 * per_cluster);
            EXPECT_EQ(co_await bdev::seek_data(*io, 3 * per_cluster + 7), 3 * per_cluster + 7);
            EXPECT_EQ(co_await bdev::seek_data(*io, 5 * per_cluster), 8 * per_cluster);
            EXPECT_EQ(co_await bdev::seek_data(*io, 9 * per_cluster), nowhere);
            EXPECT_EQ(co_await bdev::seek_hole(*io, 1), 1u);
            EXPECT_EQ(co_await bdev::seek_hole(*io, 3 * per_cluster + 1), 5 * per_cluster);
            EXPECT_EQ(co_await bdev::seek_hole(*io, 8 * per_cluster), 9 * per_cluster);
            auto beyond = co_await as_result(bdev::seek_data(*io, 12 * per_cluster));
            EXPECT_TRUE(!beyond && beyond.error().code() == errc::range);
            co_await bdev::write(*io, 9 * per_cluster, bytes(3 * per_cluster * 512, std::byte{'e'}));
            EXPECT_EQ(co_await bdev::seek_hole(*io, 8 * per_cluster), nowhere);
        }
        d.close();
        co_await l.stop_serving(id);
        // So large a map is not walked at once.
        blob_id large = co_await s->create({.clusters = 100'000, .thin = true});
        co_await write_pattern(l, *s, large, 99'999 * per_cluster, 1, 'l');
        d = co_await l.serve(*s, large);
        {
            auto io = d.channel();
            EXPECT_EQ(co_await bdev::seek_data(*io, 0), 99'999 * per_cluster);
        }
        d.close();
        co_await l.stop_serving(large);
        co_await s->unload();
    });
    EXPECT_TRUE(outcome) << outcome.error().message();
}

TEST(blob_channel, requests_of_every_size_are_split_at_clusters) {
    thread::for_each_seed(
        [] {
            const uint64_t seed = thread::test_seed();
            const uint32_t unit = seed / 2 % 2 == 0 ? 512 : 4096;
            for (uint32_t cluster : {8u, 12u, 20u, 24u}) {
                SCOPED_TRACE(fmt::format("{} KiB clusters, io units of {}", cluster, unit));
                sim_machine m(seed, 4 << 20, {.volatile_cache = seed % 2 == 0});
                requests all(seed, m, cluster * 1024, unit);
                auto outcome = m.live([&](life& l) { return all.run(l); });
                EXPECT_TRUE(outcome) << outcome.error().message();
                EXPECT_EQ(fsck(m.disk(), true), "");
                EXPECT_EQ(super_of(m.disk()).io_unit_size, unit);
            }
        },
        50);
}

}  // namespace
}  // namespace varve::blob
