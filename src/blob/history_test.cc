// Long random lives of a store, from seeds: everything that can be asked of it, in any order, with writes side by side,
// on disks with and without a volatile cache; each life ends with an unload, a crash, or the power cut at some I/O, and
// the next one must find what the model says.
#include <gtest/gtest.h>

#include <fmt/format.h>
#include <algorithm>
#include <cstring>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "blob/test_check.h"
#include "blob/test_store.h"
#include "env/sim/rng.h"
#include "thread/test_world.h"

namespace varve::blob {
namespace {

// What a store should hold, the slow and simple way. A blob is its attributes and, for each sector, the values it may
// show: one when it is safe, more while a power cut could still choose. Snapshots copy.
struct model {
    // Sectors hold a number, repeated; 0 is zeroes.
    struct sector {
        uint32_t now = 0;
        std::set<uint32_t> perhaps;  // what a power cut may bring instead
        void write(uint32_t value, bool safe) {
            if (safe) {
                perhaps.clear();
            } else {
                perhaps.insert(now);
            }
            now = value;
        }
        bool may_be(uint32_t value) const { return value == now || perhaps.contains(value); }
    };
    struct blob {
        bool thin = false, read_only = false;
        std::string name;
        blob_id parent = 0;
        std::vector<sector> sectors;
    };

    explicit model(uint64_t sectors_of_a_cluster) : per_cluster(sectors_of_a_cluster) {}

    void create(blob_id id, uint64_t clusters, bool thin, std::string name) {
        blobs[id] = {thin, false, std::move(name), 0, std::vector<sector>(clusters * per_cluster)};
    }
    void remove(blob_id id) {
        blob_id parent = blobs.at(id).parent;
        blobs.erase(id);
        for (auto& [other, b] : blobs) {
            if (b.parent == id) b.parent = parent;
        }
    }
    void resize(blob_id id, uint64_t clusters) {
        blob& b = blobs.at(id);
        std::size_t before = b.sectors.size();
        b.sectors.resize(clusters * per_cluster);
        auto below = blobs.find(b.parent);
        for (std::size_t i = before; below != blobs.end() && i < b.sectors.size(); ++i) {
            if (i < below->second.sectors.size()) b.sectors[i] = below->second.sectors[i];
        }
    }
    void snapshot(blob_id origin, blob_id made, std::string name) {
        blob copy = blobs.at(origin);
        copy.read_only = true;
        copy.name = std::move(name);
        blobs[made] = std::move(copy);
        blobs.at(origin).thin = true;
        blobs.at(origin).parent = made;
    }
    void clone(blob_id snapshot, blob_id made, std::string name) {
        blobs[made] = {true, false, std::move(name), snapshot, blobs.at(snapshot).sectors};
    }
    void inflate(blob_id id) {
        blobs.at(id).parent = 0;
        blobs.at(id).thin = false;
    }
    void decouple(blob_id id) { blobs.at(id).parent = blobs.at(blobs.at(id).parent).parent; }
    unsigned clones_of(blob_id id) const {
        return static_cast<unsigned>(
            std::ranges::count_if(blobs, [id](const auto& entry) { return entry.second.parent == id; }));
    }
    // A flush: everything that was acknowledged is safe.
    void flushed() {
        for (auto& [id, b] : blobs) {
            for (sector& s : b.sectors) s.perhaps.clear();
        }
    }

    // Why the store is not what this says; empty when it is.
    std::string differs(const store& s) const {
        std::vector<blob_id> ids;
        for (const auto& [id, b] : blobs) ids.push_back(id);
        if (s.blobs() != ids) return fmt::format("{} blobs are there, {} should be", s.blobs().size(), ids.size());
        for (const auto& [id, expected] : blobs) {
            const blob_state& b = *s.find(id);
            if (b.set_aside()) return fmt::format("{:x} is set aside: {}", id, b.damage);
            const std::string* name = b.record.xattrs.find("name");
            blob_id parent = b.parent == nullptr ? 0 : b.parent->id;
            if (b.record.cluster_count * per_cluster != expected.sectors.size() || b.thin() != expected.thin ||
                b.read_only() != expected.read_only || parent != expected.parent || name == nullptr ||
                *name != expected.name) {
                return fmt::format(
                    "{:x} has {} clusters, thin {}, read-only {}, below {:x}, and should have {}, {}, {}, "
                    "{:x}",
                    id, b.record.cluster_count, b.thin(), b.read_only(), parent, expected.sectors.size() / per_cluster,
                    expected.thin, expected.read_only, expected.parent);
            }
        }
        return {};
    }
    // Takes what was read of a blob as the truth, if it may be so.
    std::string read(blob_id id, std::span<const std::byte> bytes, bool after_a_cut) {
        blob& b = blobs.at(id);
        for (std::size_t i = 0; i < b.sectors.size(); ++i) {
            uint32_t value = 0;
            auto at = bytes.subspan(i * 512, 512);
            std::memcpy(&value, at.data(), sizeof value);
            bool whole = true;
            for (std::size_t w = 0; w < 512; w += sizeof value) whole = whole && std::memcmp(&value, &at[w], 4) == 0;
            sector& s = b.sectors[i];
            if (!whole || (after_a_cut ? !s.may_be(value) : value != s.now)) {
                return fmt::format("sector {} of {:x} holds {}{}, and should hold {}", i, id, value,
                                   whole ? "" : " and others", s.now);
            }
            if (after_a_cut) s = {value, {}};
        }
        return {};
    }

    uint64_t per_cluster;
    std::map<blob_id, blob> blobs;
};

constexpr uint32_t cluster = 8 * 1024, sectors = cluster / 512;

class history {
  public:
    explicit history(uint64_t seed)
        : _chance(env::sim::rng::stream(seed, "history")),
          _cached(_chance.coin()),
          _trim(_chance.coin()),
          _machine(seed, 2 << 20, {.volatile_cache = _cached}),
          _model(sectors) {}

    void run(unsigned lives) {
        auto born = _machine.live([this](life& l) -> task<> {
            auto s = co_await store::init(l.devices, l.base(),
                                          {.cluster_size = cluster, .md_page_count = 120, .trim = _trim});
            co_await end(l, *s);
        });
        ASSERT_TRUE(born) << born.error().message();
        for (unsigned n = 0; n < lives && !testing::Test::HasFailure(); ++n) {
            auto lived = _machine.live([this](life& l) { return live(l); });
            EXPECT_TRUE(lived) << lived.error().message();
        }
    }

  private:
    task<> live(life& l) {
        auto s = co_await store::load(l.devices, l.base(), {.trim = _trim});
        co_await verify(l, *s);
        if (testing::Test::HasFailure()) co_return co_await s->abandon();
        bool cut = _chance.one_in(3) == false;
        if (cut) {
            auto how =
                std::array{env::sim::cut_outcome::drawn, env::sim::cut_outcome::drawn, env::sim::cut_outcome::lose_all,
                           env::sim::cut_outcome::keep_all, env::sim::cut_outcome::tear_all}[_chance.below(5)];
            _machine.disk().cut_power_at(_machine.disk().ops_issued() + _chance.below(150), how);
        }
        for (unsigned i = 0; (cut || i < 10) && _machine.disk().powered() && i < 80; ++i) co_await act(l, *s);
        if (!cut) {
            co_await s->settle();  // what was given up may be on its way to being free
            expect_sound(*s);
        }
        _machine.disk().cut_power_at(UINT64_MAX);
        co_await end(l, *s);
    }
    task<> end(life& l, store& s) {
        for (blob_id id : s.blobs()) co_await l.stop_serving(id);
        bool unloaded = _machine.disk().powered() && _chance.coin();
        if (unloaded) {
            if (_chance.one_in(3)) _machine.disk().cut_power_at(_machine.disk().ops_issued() + _chance.below(16));
            unloaded = static_cast<bool>(co_await as_result(s.unload()));
            EXPECT_TRUE(unloaded || !_machine.disk().powered());
            _machine.disk().cut_power_at(UINT64_MAX);
        }
        if (unloaded) {
            EXPECT_EQ(fsck(_machine.disk(), true), "");
            _model.flushed();
            _crashed = false;
        } else {
            co_await s.abandon();
            if (_machine.disk().powered()) _machine.disk().cut_power();
            _crashed = true;
            EXPECT_EQ(fsck(_machine.disk(), false), "");
        }
    }

    // The model as it was before what was under way, or as that would have made it.
    task<> verify(life& l, store& s) {
        std::string why = _model.differs(s);
        if (!why.empty() && _unfinished) {
            _or_else = _model;
            for (blob_id id : s.blobs()) {
                if (!_model.blobs.contains(id)) _unfinished(*_or_else, id);
            }
        }
        _unfinished = nullptr;
        if (!why.empty() && _or_else) {
            _model = *_or_else;
            std::string also = _model.differs(s);
            EXPECT_TRUE(also.empty()) << also << "\nnor as before: " << why;
        } else {
            EXPECT_EQ(why, "");
        }
        _or_else.reset();
        if (testing::Test::HasFailure()) co_return;
        expect_sound(s);
        for (auto& [id, b] : _model.blobs) co_await read(l, s, id, _crashed);
    }
    task<> read(life& l, store& s, blob_id id, bool after_a_cut) {
        const std::size_t bytes = _model.blobs.at(id).sectors.size() * 512;
        if (bytes == 0) co_return;
        auto memory = co_await s.base().memory(bytes);
        auto d = co_await l.serve(s, id);
        result<> outcome;
        {
            auto io = d.channel();
            outcome = co_await as_result(bdev::read(*io, 0, memory.bytes()));
        }
        d.close();
        if (_chance.coin()) co_await l.stop_serving(id);
        if (outcome) EXPECT_EQ(_model.read(id, memory.bytes(), after_a_cut), "");
        EXPECT_TRUE(outcome || !_machine.disk().powered());
    }

    // One blob of those there are; 0 when there is none.
    blob_id any() {
        if (_model.blobs.empty()) return 0;
        auto at = _model.blobs.begin();
        std::advance(at, static_cast<ptrdiff_t>(_chance.below(_model.blobs.size())));
        return at->first;
    }

    // Does it, and has the model follow. When the power goes meanwhile, both states are possible.
    template <class T, class Follow>
    task<> both(task<T> t, Follow follow) {
        auto outcome = co_await as_result(std::move(t));
        if constexpr (std::is_void_v<T>) {
            if (outcome) follow(_model);
            if (!outcome && !_machine.disk().powered()) follow(_or_else.emplace(_model));
        } else {
            if (outcome) follow(_model, *outcome);
            // Which id it would have got, the next life tells.
            if (!outcome && !_machine.disk().powered()) _unfinished = follow;
        }
        if (!outcome && _machine.disk().powered()) {
            EXPECT_EQ(outcome.error().code(), errc::no_space) << outcome.error().message();
        }
    }

    task<> act(life& l, store& s) {
        std::string name = fmt::format("n{}", ++_names);
        blob_id id = any();
        switch (_chance.below(14)) {
            case 0:
                if (_model.blobs.size() >= 7) break;
                co_return co_await create(s, name);
            case 1:
                if (id == 0 || _model.blobs.at(id).read_only || _model.blobs.size() >= 7) break;
                co_return co_await make(s, id, name, &store::snapshot,
                                        [=](model& m, blob_id made) { m.snapshot(id, made, name); });
            case 2:
                if (id == 0 || !_model.blobs.at(id).read_only || _model.blobs.size() >= 7) break;
                co_return co_await make(s, id, name, &store::clone,
                                        [=](model& m, blob_id made) { m.clone(id, made, name); });
            case 3:
                if (id == 0 || _model.clones_of(id) > 1) break;
                co_await l.stop_serving(id);
                co_return co_await both(s.remove(id), [&](model& m) { m.remove(id); });
            case 4:
                if (id == 0 || _model.blobs.at(id).read_only) break;
                co_return co_await resize(l, s, id);
            case 5: {
                if (id == 0 || _model.blobs.at(id).read_only) break;
                blob_ref b = co_await s.open(id);
                co_return co_await both(s.set_xattr(b, "name", name), [&](model& m) { m.blobs.at(id).name = name; });
            }
            case 6:
                if (id != 0) co_await flush(l, s, id);
                co_return;
            case 7:
                if (id != 0) co_await read(l, s, id, false);
                co_return;
            case 8: {
                if (id == 0 || _model.blobs.at(id).read_only) break;
                blob_ref b = co_await s.open(id);
                jobs::job j;
                co_return co_await both(s.inflate(b, j), [&](model& m) { m.inflate(id); });
            }
            case 9: {
                if (id == 0 || _model.blobs.at(id).read_only || _model.blobs.at(id).parent == 0) break;
                blob_ref b = co_await s.open(id);
                jobs::job j;
                co_return co_await both(s.decouple(b, j), [&](model& m) { m.decouple(id); });
            }
            default:
                if (id == 0 || _model.blobs.at(id).read_only) break;
                co_return co_await write_some(l, s, id);
        }
    }
    task<> create(store& s, std::string name) {
        uint64_t clusters = _chance.below(7);
        bool thin = _chance.coin();
        auto follow = [=](model& m, blob_id made) { m.create(made, clusters, thin, name); };
        std::string pad(_chance.below(9000) % 4000, 'p');
        co_await both(s.create({.clusters = clusters, .thin = thin, .xattrs = {{"name", name}, {"pad", pad}}}), follow);
    }
    using maker = task<blob_id> (store::*)(blob_ref&, std::vector<format::xattr>);
    template <class Follow>
    task<> make(store& s, blob_id id, std::string name, maker how, Follow follow) {
        blob_ref b = co_await s.open(id);
        co_await both((s.*how)(b, {{"name", name}}), follow);
    }
    task<> resize(life& l, store& s, blob_id id) {
        uint64_t clusters = _chance.below(8);
        co_await l.stop_serving(id);
        blob_ref b = co_await s.open(id);
        co_await both(s.resize(b, clusters), [&](model& m) { m.resize(id, clusters); });
    }
    task<> flush(life& l, store& s, blob_id id) {
        auto d = co_await l.serve(s, id);
        result<> outcome;
        {
            auto io = d.channel();
            outcome = co_await as_result(bdev::flush(*io));
        }
        // What was flushed is this blob's; what others wrote may have become safe with it, and may not.
        if (outcome) {
            for (model::sector& x : _model.blobs.at(id).sectors) x.perhaps.clear();
        }
    }

    // Up to four requests side by side, in different places.
    task<> write_some(life& l, store& s, blob_id id) {
        auto& places = _model.blobs.at(id).sectors;
        if (places.empty()) co_return;
        auto d = co_await l.serve(s, id);
        {
            auto io = d.channel();
            crew all;
            uint64_t share = places.size() / 4;
            for (uint64_t part = 0; part < 4; ++part) {
                if (_chance.coin()) continue;
                uint64_t first = part * share + _chance.below(share);
                uint64_t count = 1 + _chance.below((part + 1) * share - first);
                all.start(write_one(*io, id, first, static_cast<uint32_t>(count), _chance.below(8)));
            }
            co_await as_result(all.done());
        }
    }
    // What it leaves is zeroes, or what was there before: where a parent shows, that still does.
    task<> unmap_one(bdev::channel& io, blob_id id, uint64_t first, uint32_t count) {
        data_bytes seen(std::size_t{count} * 512);
        result<> outcome = co_await as_result(bdev::unmap(io, first, count));
        if (outcome) outcome = co_await as_result(bdev::read(io, first, seen));
        auto& places = _model.blobs.at(id).sectors;
        for (uint64_t i = first; i < first + count; ++i) {
            uint32_t value = 0;
            std::memcpy(&value, &seen[(i - first) * 512], sizeof value);
            if (!outcome) {
                places[i].perhaps.insert(0);
            } else if (value != places[i].now) {
                EXPECT_EQ(value, 0u) << "unmapped sector " << i << " of " << id;
                places[i].write(value, !_cached);
            }
        }
        EXPECT_TRUE(outcome || !_machine.disk().powered()) << outcome.error().message();
    }
    task<> write_one(bdev::channel& io, blob_id id, uint64_t first, uint32_t count, uint64_t kind) {
        if (kind == 2) co_return co_await unmap_one(io, id, first, count);
        uint32_t value = kind == 0 ? 0 : ++_values;
        bool forced = kind == 1;
        data_bytes data(std::size_t{count} * 512);
        for (std::size_t i = 0; i < data.size(); i += sizeof value) std::memcpy(&data[i], &value, sizeof value);
        result<> outcome;
        if (kind == 0) {
            outcome = co_await as_result(bdev::write_zeroes(io, first, count));
        } else {
            outcome = co_await as_result(bdev::write(io, first, data, forced ? bdev::io::fua : 0));
        }
        auto& places = _model.blobs.at(id).sectors;
        for (uint64_t i = first; i < first + count; ++i) {
            if (outcome) {
                places[i].write(value, !_cached || forced);
            } else {
                places[i].perhaps.insert(value);
            }
        }
        EXPECT_TRUE(outcome || !_machine.disk().powered() || outcome.error().code() == errc::no_space)
            << outcome.error().message();
    }

    env::sim::rng _chance;
    const bool _cached, _trim;
    sim_machine _machine;
    model _model;
    std::optional<model> _or_else;
    std::move_only_function<void(model&, blob_id)> _unfinished;
    bool _crashed = false;
    uint32_t _values = 0, _names = 0;
};

constexpr uint64_t histories = thread::sanitized ? 60 : 500;

TEST(store_history, the_model_is_found_after_every_life) {
    thread::for_each_seed([] { history(thread::test_seed()).run(8); }, histories);
}

}  // namespace
}  // namespace varve::blob
