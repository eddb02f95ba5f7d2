// Every metadata operation, once for each I/O it issues: with that I/O failing, and with the power cut while it is
// under way, whatever the cut leaves of what was not flushed. Afterwards the store loads, shows the state before or the
// state after, has lost no cluster and shares none, and goes on working.
#include <gtest/gtest.h>

#include <algorithm>

#include "blob/test_crash.h"
#include "thread/test_world.h"

namespace varve::blob {
namespace {

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
        const block_range at(*d, 0, 16);
        co_await bdev::unmap(*d.channel(), at.lba, at.blocks);
    } else {
        const block_range at(*d, 40, 8);
        co_await bdev::write(*d.channel(), at.lba, data_bytes(4096, std::byte{'u'}));
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
        for (uint64_t from : {10, 8170}) {
            const block_range at(*d, from, 64);
            if (!outcome || at.lba >= d->num_blocks()) continue;
            outcome = co_await as_result(zeroes ? bdev::write_zeroes(*io, at.lba, at.blocks)
                                                : bdev::unmap(*io, at.lba, at.blocks));
        }
        if (outcome) outcome = co_await as_result(bdev::flush(*io));
    }
    d.close();
    co_await l.stop_serving(first_blob(s));
    co_await std::move(outcome);
}

const disturbed_operation operations[] = {
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
    {"make read-only", some_blobs,
     [](life&, store& s) -> task<> {
         blob_ref b = co_await s.open(second_blob(s));
         co_await s.set_read_only(b);
     }},
    {"change several xattrs", some_blobs,
     [](life&, store& s) -> task<> {
         blob_ref b = co_await s.open(second_blob(s));
         co_await s.change_xattrs(b, {{"name", "other"}, {"z", std::string(2000, 'z')}}, {"x", "absent"});
     }},
    {"grow the store", some_blobs, [](life&, store& s) { return s.grow(); }, true, true},
    {"inflate what has an xattr tied to its clusters",
     [](life& l, store& s) -> task<> {
         co_await a_snapshot(l, s);
         blob_ref b = co_await s.open(first_blob(s));
         co_await s.set_xattr(b, "sums", "of what is its own");
     },
     [](life&, store& s) -> task<> {
         s.tie_to_clusters("sums");
         blob_ref b = co_await s.open(first_blob(s));
         jobs::job j;
         co_await s.inflate(b, j);
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
    {"set another parent of a snapshot",
     [](life& l, store& s) -> task<> {
         co_await a_snapshot(l, s);
         co_await s.create({.clusters = 6, .thin = true});
         co_await write_pattern(l, s, s.blobs()[2], 30, 30, 'o');
         blob_ref b = co_await s.open(s.blobs()[2]);
         co_await s.snapshot(b, {});
     },
     [](life&, store& s) -> task<> {
         blob_ref b = co_await s.open(s.blobs()[3]), snapshot = co_await s.open(second_blob(s));
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

class crash : public testing::TestWithParam<disturbed_operation> {};
INSTANTIATE_TEST_SUITE_P(operations, crash, testing::ValuesIn(operations), [](const auto& info) {
    std::string name = info.param.name;
    std::ranges::replace(name, ' ', '_');
    std::ranges::replace(name, '-', '_');
    return name;
});

const medium media[] = {
    {.name = "no cache"},
    {.name = "cache", .cached = true},
    {.name = "cache, just loaded", .cached = true, .reloaded = true},
    {.name = "cache, blocks of 4096", .cached = true, .block = 4096},
    {.name = "cache, io units of 8 blocks", .cached = true, .older = true},
    {.name = "cache, no double-write area", .cached = true, .tear = 4096, .md_pages = 20},
};
constexpr unsigned rarely = thread::sanitized ? 4 : 1;
const medium forgetful{.name = "cache that forgets", .cached = true, .forgets = true};

// Two media in full, of the others a sample; other seeds (make sim) have others.
crash_sample sample_of(const medium& m) {
    return {.seed = thread::test_seed(),
            .every = (m.name == media[0].name || m.name == media[1].name ? 1u : 4u) * rarely};
}

TEST_P(crash, power_cut_at_every_io) {
    thread::for_each_seed(
        [] {
            for (const medium& m : media) cut_at_every_io(GetParam(), m, sample_of(m));
        },
        1);
}
TEST_P(crash, every_io_fails) {
    thread::for_each_seed(
        [] {
            for (const medium& m : media) fail_every_io(GetParam(), m, sample_of(m));
            fail_every_io(GetParam(), forgetful, {.seed = thread::test_seed(), .every = rarely});
        },
        1);
}

}  // namespace
}  // namespace varve::blob
