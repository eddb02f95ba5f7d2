// Every metadata operation, once for each I/O it issues: with that I/O failing, and with the power cut while it is
// under way, whatever the cut leaves of what was not flushed. Afterwards the store loads, shows the state before or the
// state after, has lost no cluster and shares none, and goes on working.
#include <gtest/gtest.h>

#include <algorithm>

#include "blob/test_check.h"
#include "blob/test_store.h"
#include "thread/test_world.h"

namespace varve::blob {
namespace {

using env::sim::cut_outcome;

constexpr uint32_t cluster = 8 * 1024;
const init_options small{.cluster_size = cluster, .md_page_count = 100, .type = "TEST", .trim = false};
constexpr uint64_t disk_bytes = 2 << 20;

struct operation {
    const char* name;
    task<> (*prepare)(life&, store&);
    task<> (*act)(life&, store&);
    bool atomic = true;  // false: a write of data, done in part when it fails
};

struct good_run {
    std::string before, after;
    uint64_t first = 0, end = 0;  // numbers of the I/Os of the operation
};

class trial {
  public:
    trial(const operation& what, bool cached, uint64_t seed, bool forgets = false)
        : _what(what), _machine(seed, disk_bytes, {.volatile_cache = cached, .failed_flush_forgets = forgets}) {}

    // Up to the operation, and through it.
    template <class Fault>
    good_run run(Fault fault) {
        good_run seen;
        auto outcome = _machine.live([&](life& l) -> task<> {
            co_await l.external.add("golden", 6 * cluster, 5);
            init_options how = small;
            how.externals = &l.external;
            auto s = co_await store::init(l.devices, l.base(), how);
            co_await _what.prepare(l, *s);
            seen.before = co_await describe(l, *s);
            seen.first = _machine.disk().ops_issued();
            fault(_machine.disk(), seen.first);
            auto done = co_await as_result(_what.act(l, *s));
            succeeded = done.has_value();
            co_await s->settle();
            seen.end = _machine.disk().ops_issued();
            if (!will_be_cut) {
                seen.after = co_await describe(l, *s);
                expect_sound(*s);
            }
            co_await s->abandon();
        });
        EXPECT_TRUE(outcome) << outcome.error().message();
        return seen;
    }
    // What a new life finds; and that it can go on.
    std::string found() {
        std::string text;
        EXPECT_EQ(fsck(_machine.disk(), false), "");
        auto outcome = _machine.live([&](life& l) -> task<> {
            co_await l.external.add("golden", 6 * cluster, 5);
            auto s = co_await store::load(l.devices, l.base(), {.trim = false, .externals = &l.external});
            text = co_await describe(l, *s);
            expect_sound(*s);
            blob_id id = co_await s->create({.clusters = 2, .xattrs = {{"long", std::string(3000, 'l')}}});
            std::string with_one_more = co_await describe(l, *s);
            co_await s->unload();
            s.reset();
            EXPECT_EQ(fsck(_machine.disk(), true), "");
            s = co_await store::load(l.devices, l.base(), {.trim = false, .externals = &l.external});
            expect_sound(*s);
            EXPECT_EQ(co_await describe(l, *s), with_one_more);
            co_await s->remove(id);
            EXPECT_EQ(co_await describe(l, *s), text);
            co_await s->abandon();
        });
        EXPECT_TRUE(outcome) << outcome.error().message();
        return text;
    }
    void cut(cut_outcome how) { _machine.disk().cut_power(how); }
    bool will_be_cut = false, succeeded = false;

  private:
    const operation& _what;
    sim_machine _machine;
};

const char* name_of(cut_outcome how) {
    switch (how) {
        case cut_outcome::drawn:
            return "drawn";
        case cut_outcome::lose_all:
            return "lose all";
        case cut_outcome::keep_all:
            return "keep all";
        case cut_outcome::tear_all:
            return "tear all";
    }
    return "?";
}

void cut_at_every_io(const operation& what, bool cached, uint64_t seed) {
    good_run good = trial(what, cached, seed).run([](env::sim::disk&, uint64_t) {});
    ASSERT_LT(good.first, good.end);
    for (uint64_t n = 0; n <= good.end - good.first; ++n) {
        for (auto how : {cut_outcome::lose_all, cut_outcome::keep_all, cut_outcome::tear_all, cut_outcome::drawn}) {
            SCOPED_TRACE(std::string(what.name) + (cached ? ", cache" : ", no cache") + ", seed " +
                         std::to_string(seed) + ": power cut at I/O " + std::to_string(n) + ", " + name_of(how));
            trial t(what, cached, seed);
            t.will_be_cut = true;
            t.run([&](env::sim::disk& d, uint64_t first) { d.cut_power_at(first + n, how); });
            t.cut(how);  // when the operation was over before
            std::string now = t.found();
            if (t.succeeded) {
                EXPECT_EQ(now, good.after);
            } else if (what.atomic && now != good.before) {
                EXPECT_EQ(now, good.after);
            }
            if (testing::Test::HasFailure()) return;
        }
    }
}

// `forgets`: a flush that fails loses what was written before it.
void fail_every_io(const operation& what, bool cached, uint64_t seed, bool forgets) {
    good_run good = trial(what, cached, seed).run([](env::sim::disk&, uint64_t) {});
    for (uint64_t n = 0; n < good.end - good.first; ++n) {
        for (bool then_crash : {false, true}) {
            SCOPED_TRACE(std::string(what.name) + (cached ? ", cache" : ", no cache") + ", seed " +
                         std::to_string(seed) + ": I/O " + std::to_string(n) + " fails" +
                         (forgets ? " and forgets" : ""));
            trial t(what, cached, seed, forgets);
            good_run bad = t.run([&](env::sim::disk& d, uint64_t first) { d.fail_operation(first + n); });
            const std::string& expected = t.succeeded ? good.after : good.before;
            if (t.succeeded || what.atomic) EXPECT_EQ(bad.after, expected);
            t.cut(then_crash ? cut_outcome::lose_all : cut_outcome::keep_all);
            std::string now = t.found();
            if (t.succeeded || what.atomic) EXPECT_EQ(now, expected);
            if (testing::Test::HasFailure()) return;
        }
    }
}

task<> nothing(life&, store&) { co_return; }
task<> some_blobs(life& l, store& s) {
    co_await s.create({.clusters = 3, .xattrs = {{"name", "a"}}});
    blob_id id =
        co_await s.create({.clusters = 4, .thin = true, .xattrs = {{"name", "b"}, {"x", std::string(4000, 'x')}}});
    co_await write_pattern(l, s, id, 1, 16, 'p');
}
blob_id first_blob(store& s) { return s.blobs()[0]; }
blob_id second_blob(store& s) { return s.blobs()[1]; }

// A thin blob with a snapshot of its, both with data of their own, and a second clone of the snapshot when asked for.
task<blob_id> a_snapshot(life& l, store& s) {
    blob_id id = co_await s.create({.clusters = 6, .thin = true, .xattrs = {{"name", "v"}}});
    co_await write_pattern(l, s, id, 0, 40, '1');
    blob_ref b = co_await s.open(id);
    blob_id made = co_await s.snapshot(b, {{"name", "s"}});
    b.close();
    co_await write_pattern(l, s, id, 18, 4, '2');
    co_await write_pattern(l, s, id, 60, 4, '3');
    co_return made;
}
task<> one_snapshot(life& l, store& s) { co_await a_snapshot(l, s); }
task<> three_deep(life& l, store& s) {
    co_await a_snapshot(l, s);
    for (char c : {'4', '5'}) {
        blob_ref b = co_await s.open(first_blob(s));
        co_await s.snapshot(b, {});
        b.close();
        co_await write_pattern(l, s, first_blob(s), 20, 20, c);
    }
}
task<> a_clone_of_a_shrunk_origin(life& l, store& s) {
    co_await a_snapshot(l, s);
    blob_ref b = co_await s.open(first_blob(s));
    co_await s.resize(b, 2);
}
template <bool Discard>
task<> a_clone_of_what_is_not_saved(life& l, store& s) {
    blob_id id = co_await s.create({.clusters = 6, .thin = true});
    co_await write_pattern(l, s, id, 0, 32, 'a');
    auto d = co_await l.serve(s, id);
    if (Discard) {
        co_await bdev::unmap(*d.channel(), 0, 16);
    } else {
        co_await bdev::write(*d.channel(), 40, data_bytes(4096, std::byte{'u'}));
    }
    d.close();
    co_await l.stop_serving(id);
    blob_ref b = co_await s.open(id);
    co_await s.set_read_only(b);
    co_await s.clone(b, {});
}
task<> an_external_clone(life& l, store& s) {
    blob_id id = co_await s.create({.clusters = 6, .xattrs = {{"name", "e"}}, .external = "golden"});
    co_await write_pattern(l, s, id, 20, 20, 'e');
}
task<> take_snapshot(life&, store& s) {
    blob_ref b = co_await s.open(first_blob(s));
    co_await s.snapshot(b, {{"name", "new"}});
}

task<> full_thin(life& l, store& s) {
    co_await s.create({.clusters = 700, .thin = true});
    for (uint64_t at : {0, 8160}) co_await write_pattern(l, s, first_blob(s), at, 96, 'f');  // in two extent pages
}
// A thin blob as SPDK wrote them before there were extent tables.
task<> a_blob_of_runs(life& l, store& s) {
    blob_ref b = co_await s.open(co_await s.create({.clusters = 8, .thin = true}));
    format::blob_record& r = b.state().record;
    r.uses_extent_table = false;
    r.flags.invalid &= ~format::invalid_flag::extent_table;
    format::append(r.runs, 0, 8);
    b.state().extent_pages.clear();
    co_await s.set_xattr(b, "name", "runs");
    b.close();
    co_await write_pattern(l, s, first_blob(s), 0, 40, 'r');
    co_await write_pattern(l, s, first_blob(s), 80, 20, 's');
}
template <unsigned Clusters>
task<> resize_first(life&, store& s) {
    blob_ref b = co_await s.open(first_blob(s));
    co_await s.resize(b, Clusters);
}
// Whole clusters, and parts at both ends. What is flushed stays.
task<> zero(life& l, store& s, bool zeroes) {
    auto d = co_await l.serve(s, first_blob(s));
    result<> outcome;
    {
        auto io = d.channel();
        for (uint64_t at : {10, 8170}) {
            if (!outcome || at >= d->num_blocks()) continue;
            outcome = co_await as_result(zeroes ? bdev::write_zeroes(*io, at, 64) : bdev::unmap(*io, at, 64));
        }
        if (outcome) outcome = co_await as_result(bdev::flush(*io));
    }
    d.close();
    co_await l.stop_serving(first_blob(s));
    co_await std::move(outcome);
}

const operation operations[] = {
    {"create the first", nothing, [](life&, store& s) -> task<> { co_await s.create({.clusters = 2}); }},
    {"create thick", some_blobs,
     [](life&, store& s) -> task<> { co_await s.create({.clusters = 9, .xattrs = {{"name", "c"}}}); }},
    {"create thin with a chain", some_blobs,
     [](life&, store& s) -> task<> {
         co_await s.create(
             {.clusters = 9, .thin = true, .xattrs = {{"a", std::string(3900, 'a')}, {"b", std::string(3900, 'b')}}});
     }},
    {"remove thick", some_blobs, [](life&, store& s) -> task<> { co_await s.remove(first_blob(s)); }},
    {"remove thin with a chain", some_blobs, [](life&, store& s) -> task<> { co_await s.remove(second_blob(s)); }},
    {"set an xattr", some_blobs,
     [](life&, store& s) -> task<> {
         blob_ref b = co_await s.open(first_blob(s));
         co_await s.set_xattr(b, "name", "other");
     }},
    {"make the chain longer", some_blobs,
     [](life&, store& s) -> task<> {
         blob_ref b = co_await s.open(second_blob(s));
         co_await s.set_xattr(b, "y", std::string(4000, 'y'));
     }},
    {"make the chain shorter", some_blobs,
     [](life&, store& s) -> task<> {
         blob_ref b = co_await s.open(second_blob(s));
         co_await s.remove_xattr(b, "x");
     }},
    {"grow thick", some_blobs,
     [](life&, store& s) -> task<> {
         blob_ref b = co_await s.open(first_blob(s));
         co_await s.resize(b, 7);
     }},
    {"shrink thick", some_blobs,
     [](life&, store& s) -> task<> {
         blob_ref b = co_await s.open(first_blob(s));
         co_await s.resize(b, 1);
     }},
    {"grow thin", some_blobs,
     [](life&, store& s) -> task<> {
         blob_ref b = co_await s.open(second_blob(s));
         co_await s.resize(b, 600);
     }},
    {"shrink thin", some_blobs,
     [](life&, store& s) -> task<> {
         blob_ref b = co_await s.open(second_blob(s));
         co_await s.resize(b, 1);
     }},
    {"set the super blob", some_blobs, [](life&, store& s) -> task<> { co_await s.set_super_blob(first_blob(s)); }},
    {"first writes", some_blobs,
     [](life& l, store& s) -> task<> { co_await write_pattern(l, s, second_blob(s), 40, 8, 'q'); }, false},
    {"first write to an extent page", some_blobs,
     [](life& l, store& s) -> task<> {
         co_await write_pattern(l, s, co_await s.create({.clusters = 700, .thin = true}), 8192, 8, 'q');
     },
     false},
    {"snapshot a thick blob", some_blobs, take_snapshot},
    {"snapshot a thin blob with unsaved clusters",
     [](life& l, store& s) -> task<> {
         co_await write_pattern(l, s, co_await s.create({.clusters = 6, .thin = true}), 9, 30, 'u', false);
     },
     take_snapshot, false},
    {"snapshot again", one_snapshot, take_snapshot},
    {"clone", one_snapshot,
     [](life&, store& s) -> task<> {
         blob_ref b = co_await s.open(second_blob(s));
         co_await s.clone(b, {{"name", "c"}});
     }},
    {"remove a snapshot with a clone", one_snapshot,
     [](life&, store& s) -> task<> { co_await s.remove(second_blob(s)); }},
    {"remove the middle of three snapshots", three_deep,
     [](life&, store& s) -> task<> { co_await s.remove(s.blobs()[2]); }},
    {"remove a snapshot larger than its clone", a_clone_of_a_shrunk_origin,
     [](life&, store& s) -> task<> { co_await s.remove(second_blob(s)); }},
    {"remove a snapshot with unsaved clusters", a_clone_of_what_is_not_saved<false>,
     [](life&, store& s) -> task<> { co_await s.remove(first_blob(s)); }, false},
    {"remove a snapshot with unsaved discards", a_clone_of_what_is_not_saved<true>,
     [](life&, store& s) -> task<> { co_await s.remove(first_blob(s)); }, false},
    {"inflate", one_snapshot,
     [](life&, store& s) -> task<> {
         blob_ref b = co_await s.open(first_blob(s));
         jobs::job j;
         co_await s.inflate(b, j);
     },
     true},
    {"decouple", three_deep,
     [](life&, store& s) -> task<> {
         blob_ref b = co_await s.open(first_blob(s));
         jobs::job j;
         co_await s.decouple(b, j);
     },
     true},
    {"decouple a snapshot", three_deep,
     [](life&, store& s) -> task<> {
         blob_ref b = co_await s.open(s.blobs()[2]);
         jobs::job j;
         co_await s.decouple(b, j);
     },
     true},
    {"detach the parent", three_deep,
     [](life&, store& s) -> task<> {
         blob_ref b = co_await s.open(first_blob(s));
         co_await s.detach_parent(b);
     }},
    {"set another parent",
     [](life& l, store& s) -> task<> {
         co_await a_snapshot(l, s);
         co_await s.create({.clusters = 6, .thin = true});
         co_await write_pattern(l, s, s.blobs()[2], 30, 30, 'o');
     },
     [](life&, store& s) -> task<> {
         blob_ref b = co_await s.open(s.blobs()[2]), snapshot = co_await s.open(second_blob(s));
         co_await s.set_parent(b, snapshot);
     }},
    {"remove a clone", one_snapshot, [](life&, store& s) -> task<> { co_await s.remove(first_blob(s)); }},
    {"create a clone of a device", some_blobs,
     [](life&, store& s) -> task<> { co_await s.create({.clusters = 6, .external = "golden"}); }},
    {"set an external parent", one_snapshot,
     [](life&, store& s) -> task<> {
         blob_ref b = co_await s.open(first_blob(s));
         co_await s.set_external_parent(b, "golden");
     }},
    {"set an internal parent instead of an external",
     [](life& l, store& s) -> task<> {
         co_await a_snapshot(l, s);
         co_await an_external_clone(l, s);
     },
     [](life&, store& s) -> task<> {
         blob_ref b = co_await s.open(s.blobs()[2]), snapshot = co_await s.open(second_blob(s));
         co_await s.set_parent(b, snapshot);
     }},
    {"snapshot a clone of a device", an_external_clone, take_snapshot},
    {"remove a snapshot that is a clone of a device",
     [](life& l, store& s) -> task<> {
         co_await an_external_clone(l, s);
         co_await take_snapshot(l, s);
     },
     [](life&, store& s) -> task<> { co_await s.remove(second_blob(s)); }},
    {"inflate a clone of a device", an_external_clone,
     [](life&, store& s) -> task<> {
         blob_ref b = co_await s.open(first_blob(s));
         jobs::job j;
         co_await s.inflate(b, j);
     },
     true},
    {"first writes to a clone of a device", an_external_clone,
     [](life& l, store& s) -> task<> { co_await write_pattern(l, s, first_blob(s), 3, 50, 'w'); }, false},
    {"unmap clusters", full_thin, [](life& l, store& s) { return zero(l, s, false); }, false},
    {"write zeroes to clusters", full_thin, [](life& l, store& s) { return zero(l, s, true); }, false},
    {"first writes to a blob of runs", a_blob_of_runs,
     [](life& l, store& s) { return write_pattern(l, s, first_blob(s), 30, 60, 'w'); }, false},
    {"grow a blob of runs", a_blob_of_runs, resize_first<20>},
    {"shrink a blob of runs", a_blob_of_runs, resize_first<2>},
    {"snapshot a blob of runs", a_blob_of_runs, take_snapshot},
    {"remove a snapshot of runs",
     [](life& l, store& s) -> task<> {
         co_await a_blob_of_runs(l, s);
         co_await take_snapshot(l, s);
         co_await write_pattern(l, s, first_blob(s), 30, 60, 'w');
     },
     [](life&, store& s) -> task<> { co_await s.remove(second_blob(s)); }},
    {"inflate a blob of runs", a_blob_of_runs,
     [](life&, store& s) -> task<> {
         blob_ref b = co_await s.open(first_blob(s));
         jobs::job j;
         co_await s.inflate(b, j);
     },
     true},
    {"unmap clusters of a blob of runs", a_blob_of_runs, [](life& l, store& s) { return zero(l, s, false); }, false},
    {"write zeroes to clusters of a clone",
     [](life& l, store& s) -> task<> {
         co_await full_thin(l, s);
         co_await take_snapshot(l, s);
         co_await write_pattern(l, s, first_blob(s), 40, 30, 'z');
     },
     [](life& l, store& s) { return zero(l, s, true); }, false},
    {"first writes to a clone", one_snapshot,
     [](life& l, store& s) -> task<> { co_await write_pattern(l, s, first_blob(s), 3, 8, 'w'); }, false},
};

class crash : public testing::TestWithParam<operation> {};
INSTANTIATE_TEST_SUITE_P(operations, crash, testing::ValuesIn(operations), [](const auto& info) {
    std::string name = info.param.name;
    std::replace(name.begin(), name.end(), ' ', '_');
    return name;
});

TEST_P(crash, power_cut_at_every_io) {
    for (bool cached : {false, true}) cut_at_every_io(GetParam(), cached, 1);
}
TEST_P(crash, every_io_fails) {
    for (bool cached : {false, true}) fail_every_io(GetParam(), cached, 1, false);
    fail_every_io(GetParam(), true, 1, true);
}

}  // namespace
}  // namespace varve::blob
