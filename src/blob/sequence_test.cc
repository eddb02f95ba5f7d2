// Sequences of up to three metadata operations, once for each I/O they issue: with the power cut while it is under way,
// and with it failing. After a cut the store shows the state before or after the operation that was interrupted, and
// the rest of the sequence is done in the next life; after a failure the rest goes on. What is there at the end is
// found again after another power cut.
//
// There are 18,278, of 26 operations; VARVE_SEED is the number of one, and VARVE_SEEDS says how many are tried (make
// sim: all).
#include <gtest/gtest.h>

#include <array>

#include "blob/test_check.h"
#include "blob/test_store.h"
#include "env/sim/rng.h"
#include "thread/test_world.h"

namespace varve::blob {
namespace {

using env::sim::cut_outcome;

constexpr uint32_t cluster = 8 * 1024;
const init_options small{.cluster_size = cluster, .md_page_count = 120, .trim = false};

struct operation {
    const char* name;
    task<> (*act)(life&, store&);
    bool atomic = true;  // false: writes of data, done in part when interrupted
};

// By its name, or errc::not_found: others of the sequence may have removed it.
result<blob_ref> named(store& s, std::string_view name) {
    for (blob_id id : s.blobs()) {
        const std::string* its = s.find(id)->record.xattrs.find("name");
        if (its != nullptr && *its == name) return s.open(id);
    }
    return fail(errc::not_found);
}
task<> remove_named(store& s, std::string_view name) {
    blob_id id = (co_await named(s, name)).id();
    co_await s.remove(id);
}
task<> set(store& s, std::string_view blob, std::string xattr, std::size_t size) {
    blob_ref b = co_await named(s, blob);
    co_await s.set_xattr(b, std::move(xattr), std::string(size, 'x'));
}
task<> resize(store& s, std::string_view name, uint64_t clusters) {
    blob_ref b = co_await named(s, name);
    co_await s.resize(b, clusters);
}
task<> take_snapshot(store& s, std::string_view name) {
    blob_ref b = co_await named(s, name);
    co_await s.snapshot(b, {{"name", "new"}});
}
task<> unmap(life& l, store& s, std::string_view name, uint64_t lba, uint32_t blocks) {
    blob_id id = (co_await named(s, name)).id();
    auto d = co_await l.serve(s, id);
    result<> outcome;
    {
        auto io = d.channel();
        outcome = co_await as_result(bdev::unmap(*io, lba, blocks));
        if (outcome) outcome = co_await as_result(bdev::flush(*io));
    }
    d.close();
    co_await l.stop_serving(id);
    co_await std::move(outcome);
}
task<> write(life& l, store& s, std::string_view name, uint64_t lba, uint32_t blocks) {
    blob_id id = (co_await named(s, name)).id();
    co_await write_pattern(l, s, id, lba, blocks, 'w');
}

// thick; thin, with a chain of metadata pages; v, a clone of s2, a clone of s1; all with data of their own.
task<> prepare(life& l, store& s) {
    blob_id thick = co_await s.create({.clusters = 3, .xattrs = {{"name", "thick"}}});
    co_await write_pattern(l, s, thick, 10, 20, 't');
    blob_id thin = co_await s.create(
        {.clusters = 4, .thin = true, .xattrs = {{"name", "thin"}, {"long", std::string(4000, 'l')}}});
    co_await write_pattern(l, s, thin, 20, 8, 'n');
    blob_id v = co_await s.create({.clusters = 5, .thin = true, .xattrs = {{"name", "v"}}});
    co_await write_pattern(l, s, v, 0, 40, '1');
    for (const char* name : {"s1", "s2"}) {
        blob_ref b = co_await s.open(v);
        co_await s.snapshot(b, {{"name", name}});
        b.close();
        co_await write_pattern(l, s, v, name[1] == '1' ? 18 : 28, 16, name[1]);
    }
}

const operation operations[] = {
    {"create thick", [](life&, store& s) -> task<> { co_await s.create({.clusters = 2, .xattrs = {{"name", "c"}}}); }},
    {"create thin with a chain",
     [](life&, store& s) -> task<> {
         co_await s.create({.clusters = 9, .thin = true, .xattrs = {{"name", "c"}, {"a", std::string(3990, 'a')}}});
     }},
    {"remove thick", [](life&, store& s) { return remove_named(s, "thick"); }},
    {"remove thin", [](life&, store& s) { return remove_named(s, "thin"); }},
    {"remove v", [](life&, store& s) { return remove_named(s, "v"); }},
    {"remove s1", [](life&, store& s) { return remove_named(s, "s1"); }},
    {"remove s2", [](life&, store& s) { return remove_named(s, "s2"); }},
    {"set an xattr of v", [](life&, store& s) { return set(s, "v", "x", 3); }},
    {"make the chain of v longer", [](life&, store& s) { return set(s, "v", "y", 4000); }},
    {"make the chain of thin shorter", [](life&, store& s) { return set(s, "thin", "long", 1); }},
    {"grow v", [](life&, store& s) { return resize(s, "v", 600); }},
    {"shrink v", [](life&, store& s) { return resize(s, "v", 2); }},
    {"grow thick", [](life&, store& s) { return resize(s, "thick", 6); }},
    {"snapshot v", [](life&, store& s) { return take_snapshot(s, "v"); }},
    {"snapshot thick", [](life&, store& s) { return take_snapshot(s, "thick"); }},
    {"clone s2",
     [](life&, store& s) -> task<> {
         blob_ref b = co_await named(s, "s2");
         co_await s.clone(b, {{"name", "c"}});
     }},
    {"inflate v",
     [](life&, store& s) -> task<> {
         blob_ref b = co_await named(s, "v");
         jobs::job j;
         co_await s.inflate(b, j);
     }},
    {"decouple v",
     [](life&, store& s) -> task<> {
         blob_ref b = co_await named(s, "v");
         jobs::job j;
         co_await s.decouple(b, j);
     }},
    {"set s2 as parent of thin",
     [](life&, store& s) -> task<> {
         blob_ref b = co_await named(s, "thin"), above = co_await named(s, "s2");
         co_await s.set_parent(b, above);
     }},
    {"set the super blob", [](life&, store& s) -> task<> { co_await s.set_super_blob((co_await named(s, "v")).id()); }},
    {"detach v",
     [](life&, store& s) -> task<> {
         blob_ref b = co_await named(s, "v");
         co_await s.detach_parent(b);
     }},
    {"clone a device",
     [](life&, store& s) -> task<> {
         co_await s.create({.clusters = 6, .xattrs = {{"name", "c"}}, .external = "golden"});
     }},
    {"set a device as parent of thin",
     [](life&, store& s) -> task<> {
         blob_ref b = co_await named(s, "thin");
         co_await s.set_external_parent(b, "golden");
     }},
    {"unmap clusters of v", [](life& l, store& s) { return unmap(l, s, "v", 16, 32); }, false},
    {"write to v", [](life& l, store& s) { return write(l, s, "v", 3, 60); }, false},
    {"write to thin", [](life& l, store& s) { return write(l, s, "thin", 0, 30); }, false},
};
constexpr uint64_t count = std::size(operations);
using sequence = std::vector<const operation*>;

// Ones, then pairs, then triples.
sequence sequence_of(uint64_t n) {
    sequence of;
    uint64_t length = 1, many = count;
    while (n >= many) {
        n -= many;
        many *= count;
        ++length;
    }
    for (; length > 0; --length, n /= count) of.push_back(&operations[n % count]);
    return of;
}
constexpr uint64_t sequences = count + count * count + count * count * count;
// Seeds go through them all, short ones and long ones mixed; not a divisor, so each comes once.
constexpr uint64_t stride = 7919;
static_assert(sequences % stride != 0);

class trial {
  public:
    trial(const sequence& what, uint64_t seed)
        : _what(what), _seed(seed), _cached(seed / 2 % 2 == 0), _chance(env::sim::rng::stream(seed, "sequence")) {
        restart();
    }

    void run() {
        good_run();
        if (testing::Test::HasFailure()) return;
        for (const auto& [first, end] : _ranges) {
            for (uint64_t n = first; n < end; ++n) {
                constexpr std::array hows{cut_outcome::drawn, cut_outcome::lose_all, cut_outcome::keep_all,
                                          cut_outcome::tear_all};
                cut_at(n - _start, hows[_chance.below(4)]);
                fail_at(n - _start, _chance.coin());
                if (testing::Test::HasFailure()) return;
            }
        }
    }

  private:
    env::sim::disk& disk() { return _machine->disk(); }
    void restart() { _machine.emplace(_seed, 2 << 20, env::sim::disk_options{.volatile_cache = _cached}); }
    template <class Body>
    void live(Body body) {
        auto outcome = _machine->live([&body](life& l) -> task<> {
            co_await l.external.add("golden", 6 * cluster, 5);
            co_await body(l);
        });
        EXPECT_TRUE(outcome) << outcome.error().message();
    }
    static task<std::unique_ptr<store>> make(life& l) {
        init_options how = small;
        how.externals = &l.external;
        return store::init(l.devices, l.base(), how);
    }
    static task<std::unique_ptr<store>> load(life& l) {
        return store::load(l.devices, l.base(), {.trim = false, .externals = &l.external});
    }
    void expect_found(const std::string& text) {
        disk().cut_power(cut_outcome::lose_all);
        EXPECT_EQ(fsck(disk(), false), "");
        live([&](life& l) -> task<> {
            auto s = co_await load(l);
            EXPECT_EQ(co_await describe(l, *s), text);
            expect_sound(*s);
            co_await s->abandon();
        });
    }

    // Once with a look at each state, once as it will be disturbed.
    void good_run() {
        for (bool looking : {true, false}) {
            restart();
            live([&, looking](life& l) -> task<> {
                auto s = co_await make(l);
                co_await prepare(l, *s);
                if (looking) _states.push_back(co_await describe(l, *s));
                _start = disk().ops_issued();
                for (const operation* o : _what) {
                    uint64_t first = disk().ops_issued();
                    co_await as_result(o->act(l, *s));  // some cannot be done after others
                    co_await s->settle();
                    if (!looking) _ranges.push_back({first, disk().ops_issued()});
                    if (looking) _states.push_back(co_await describe(l, *s));
                    expect_sound(*s);
                }
                co_await s->abandon();
            });
        }
    }

    void cut_at(uint64_t n, cut_outcome how) {
        SCOPED_TRACE("power cut at I/O " + std::to_string(n));
        restart();
        std::size_t done = 0;
        bool interrupted = false;
        live([&](life& l) -> task<> {
            auto s = co_await make(l);
            co_await prepare(l, *s);
            disk().cut_power_at(disk().ops_issued() + n, how);
            while (done < _what.size() && disk().powered()) {
                auto outcome = co_await as_result(_what[done]->act(l, *s));
                co_await s->settle();
                interrupted = !outcome && !disk().powered();
                if (!interrupted) ++done;
            }
            co_await s->abandon();
        });
        disk().cut_power(how);  // when the last was over before
        EXPECT_EQ(fsck(disk(), false), "");
        if (how != cut_outcome::keep_all) cut_again(how);
        std::string last;
        live([&](life& l) -> task<> {
            auto s = co_await load(l);
            std::string found = co_await describe(l, *s);
            expect_sound(*s);
            bool in_part = interrupted && !_what[done]->atomic;
            if (!in_part && !(interrupted && found == _states[done + 1])) EXPECT_EQ(found, _states[done]);
            for (std::size_t k = done + interrupted; k < _what.size(); ++k) co_await as_result(_what[k]->act(l, *s));
            co_await s->settle();
            last = co_await describe(l, *s);
            expect_sound(*s);
            co_await s->abandon();
        });
        expect_found(last);
    }

    // While what the first cut left is mended, and the store marked as in use.
    void cut_again(cut_outcome how) {
        live([&](life& l) -> task<> {
            disk().cut_power_at(disk().ops_issued() + _chance.below(14), how);
            auto s = co_await as_result(load(l));
            if (!s) co_return;
            co_await as_result((*s)->set_super_blob((*s)->super_blob()));
            co_await (*s)->abandon();
        });
        disk().cut_power(how);
        EXPECT_EQ(fsck(disk(), false), "");
    }

    void fail_at(uint64_t n, bool unload) {
        SCOPED_TRACE("I/O " + std::to_string(n) + " fails");
        restart();
        bool in_part = false;
        std::string last;
        live([&](life& l) -> task<> {
            auto s = co_await make(l);
            co_await prepare(l, *s);
            const uint64_t failing = disk().ops_issued() + n;
            disk().fail_operation(failing);
            bool as_planned = true;
            for (std::size_t k = 0; k < _what.size(); ++k) {
                bool before = disk().ops_issued() <= failing;
                auto outcome = co_await as_result(_what[k]->act(l, *s));
                co_await s->settle();
                bool failed = before && disk().ops_issued() > failing && !outcome;
                if (failed && !_what[k]->atomic) in_part = true;
                if (!failed || in_part) continue;
                EXPECT_EQ(co_await describe(l, *s), _states[k]);
                as_planned = false;
            }
            last = co_await describe(l, *s);
            if (as_planned && !in_part) EXPECT_EQ(last, _states.back());
            expect_sound(*s);
            if (unload) {
                co_await s->unload();
                EXPECT_EQ(fsck(disk(), true), "");
            } else {
                co_await s->abandon();
            }
        });
        // What of a failed write was not flushed may be lost.
        if (!in_part || unload) expect_found(last);
    }

    const sequence& _what;
    const uint64_t _seed;
    const bool _cached;
    env::sim::rng _chance;
    std::optional<sim_machine> _machine;
    uint64_t _start = 0;
    std::vector<std::string> _states;                    // before, and after each operation
    std::vector<std::pair<uint64_t, uint64_t>> _ranges;  // numbers of the I/Os of each
};

constexpr uint64_t tried = thread::fewer_if_sanitized(100);

TEST(store_sequence, shows_the_state_before_or_after_whatever_is_interrupted) {
    thread::for_each_seed(
        [] {
            const uint64_t seed = thread::test_seed();
            if (seed >= sequences) return;
            sequence what = sequence_of(seed * stride % sequences);
            std::string names = seed / 2 % 2 == 0 ? "with a cache" : "without a cache";
            for (const operation* o : what) names += std::string(", ") + o->name;
            SCOPED_TRACE(names);
            trial(what, seed).run();
        },
        tried);
}

}  // namespace
}  // namespace varve::blob
