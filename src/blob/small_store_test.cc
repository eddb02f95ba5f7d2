// Stores with less than 24 metadata pages have no double-write area: every I/O of each operation fails there, too, and
// what failed is not found done later. Power is cut as far as such a store promises something: pages whole.
#include <gtest/gtest.h>

#include "blob/test_check.h"
#include "blob/test_store.h"
#include "thread/awaits.h"

namespace varve::blob {
namespace {

using env::sim::cut_outcome;

constexpr uint32_t cluster = 8 * 1024;
const init_options tiny{.cluster_size = cluster, .md_page_count = 20, .trim = false};

struct operation {
    const char* name;
    task<> (*act)(life&, store&);
    bool atomic = true;  // false: a write of data, done in part when it fails
};

blob_id origin(store& s) { return s.blobs()[0]; }
blob_id below(store& s) { return s.blobs()[1]; }

// A volume with data of its own over a snapshot, and a thick one.
task<> prepare(life& l, store& s) {
    const blob_id id = co_await s.create({.clusters = 4, .thin = true, .xattrs = {{"name", "v"}}});
    co_await write_pattern(l, s, id, 0, 40, '1');
    blob_ref b = co_await s.open(id);
    co_await s.snapshot(b, {{"name", "s"}});
    b.close();
    co_await write_pattern(l, s, id, 18, 4, '2');
    co_await s.create({.clusters = 3, .xattrs = {{"name", "t"}}});
    EXPECT_FALSE(s.super().extension->double_write.exists());
}

const operation operations[] = {
    {"snapshot",
     [](life&, store& s) -> task<> {
         blob_ref b = co_await s.open(origin(s));
         co_await s.snapshot(b, {{"name", "n"}});
     }},
    {"clone",
     [](life&, store& s) -> task<> {
         blob_ref b = co_await s.open(below(s));
         co_await s.clone(b, {{"name", "c"}});
     }},
    {"create", [](life&, store& s) -> task<> { co_await s.create({.clusters = 2, .xattrs = {{"name", "n"}}}); }},
    {"remove", [](life&, store& s) -> task<> { co_await s.remove(s.blobs()[2]); }},
    {"remove_the_snapshot", [](life&, store& s) -> task<> { co_await s.remove(below(s)); }},
    {"grow",
     [](life&, store& s) -> task<> {
         blob_ref b = co_await s.open(s.blobs()[2]);
         co_await s.resize(b, 5);
     }},
    {"shrink",
     [](life&, store& s) -> task<> {
         blob_ref b = co_await s.open(origin(s));
         co_await s.resize(b, 1);
     }},
    {"set_an_xattr",
     [](life&, store& s) -> task<> {
         blob_ref b = co_await s.open(origin(s));
         co_await s.set_xattr(b, "long", std::string(3000, 'x'));
         co_await s.set_xattr(b, "other", std::string(3000, 'y'));
     },
     false},
    {"inflate",
     [](life&, store& s) -> task<> {
         blob_ref b = co_await s.open(origin(s));
         jobs::job j;
         co_await s.inflate(b, j);
     }},
    {"first_writes", [](life& l, store& s) -> task<> { co_await write_pattern(l, s, origin(s), 3, 50, 'w'); }, false},
};

struct run {
    std::string before, after;
    uint64_t first = 0, end = 0;
    bool succeeded = false;
};

class small_store : public testing::TestWithParam<operation> {
  protected:
    template <class Fault>
    static run once(sim_machine& m, bool will_be_cut, Fault fault) {
        run seen;
        auto outcome = m.live([&](life& l) -> task<> {
            auto s = co_await store::init(l.devices, l.base(), tiny);
            co_await prepare(l, *s);
            seen.before = co_await describe(l, *s);
            seen.first = m.disk().ops_issued();
            fault(m.disk(), seen.first);
            seen.succeeded = (co_await as_result(GetParam().act(l, *s))).has_value();
            co_await s->settle();
            seen.end = m.disk().ops_issued();
            if (!will_be_cut) {
                seen.after = co_await describe(l, *s);
                expect_sound(*s);
            }
            co_await s->abandon();
        });
        EXPECT_TRUE(outcome) << outcome.error().message();
        return seen;
    }
    static std::string found(sim_machine& m) {
        std::string text;
        auto outcome = m.live([&](life& l) -> task<> {
            auto s = co_await store::load(l.devices, l.base(), {.trim = false});
            text = co_await describe(l, *s);
            expect_sound(*s);
            co_await s->unload();
        });
        EXPECT_TRUE(outcome) << outcome.error().message();
        EXPECT_EQ(fsck(m.disk(), true), "");
        return text;
    }
    static sim_machine machine(bool cached, bool forgets) {
        return {1, 1 << 20, {.volatile_cache = cached, .failed_flush_forgets = forgets}};
    }
};
INSTANTIATE_TEST_SUITE_P(operations, small_store, testing::ValuesIn(operations),
                         [](const auto& info) { return std::string(info.param.name); });

void expect_kept(const run& good, const run& seen, const std::string& now, bool atomic) {
    if (seen.succeeded) {
        EXPECT_EQ(now, good.after);
    } else if (atomic) {
        EXPECT_EQ(now, good.before);
    }
}

TEST_P(small_store, every_io_fails) {
    struct device {
        bool cached, forgets;
    };
    for (device how : {device{false, false}, device{true, false}, device{true, true}}) {
        sim_machine first = machine(how.cached, how.forgets);
        const run good = once(first, false, [](env::sim::disk&, uint64_t) {});
        for (uint64_t n = 0; n < good.end - good.first; ++n) {
            for (auto end : {cut_outcome::keep_all, cut_outcome::lose_all}) {
                SCOPED_TRACE(fmt::format("{}{}: I/O {} fails, then {}", how.cached ? "cache" : "no cache",
                                         how.forgets ? " that forgets" : "", n,
                                         end == cut_outcome::keep_all ? "keep all" : "lose all"));
                sim_machine m = machine(how.cached, how.forgets);
                const run seen = once(m, false, [&](env::sim::disk& d, uint64_t at) { d.fail_operation(at + n); });
                expect_kept(good, seen, seen.after, GetParam().atomic);
                m.disk().cut_power(end);
                expect_kept(good, seen, found(m), GetParam().atomic);
                if (HasFailure()) return;
            }
        }
    }
}

TEST_P(small_store, power_cut_at_every_io) {
    for (bool cached : {false, true}) {
        sim_machine first = machine(cached, false);
        const run good = once(first, false, [](env::sim::disk&, uint64_t) {});
        for (uint64_t n = 0; n <= good.end - good.first; ++n) {
            for (auto how : {cut_outcome::keep_all, cut_outcome::lose_all}) {
                SCOPED_TRACE(fmt::format("{}: power cut at I/O {}, {}", cached ? "cache" : "no cache", n,
                                         how == cut_outcome::keep_all ? "keep all" : "lose all"));
                sim_machine m = machine(cached, false);
                const run seen = once(m, true, [&](env::sim::disk& d, uint64_t at) { d.cut_power_at(at + n, how); });
                m.disk().cut_power(how);
                const std::string now = found(m);
                if (seen.succeeded || (GetParam().atomic && now != good.before)) EXPECT_EQ(now, good.after);
                if (HasFailure()) return;
            }
        }
    }
}

// While what was there cannot be put back nothing else is changed, and the store does not end in order.
TEST(small_store_commit, that_cannot_be_taken_back_is_the_last) {
    sim_machine m(1, 1 << 20, {.volatile_cache = true});
    auto outcome = m.live([&](life& l) -> task<> {
        auto s = co_await store::init(l.devices, l.base(), tiny);
        co_await prepare(l, *s);
        co_await s->settle();
        const std::string before = co_await describe(l, *s);
        // The first flush is for what was there before.
        const env::sim::disk_fault fault{.kind = env::file_op_kind::flush, .skip = 1, .times = 1000};
        m.disk().inject(fault);
        blob_ref b = co_await s->open(origin(*s));
        EXPECT_FALSE(co_await as_result(s->snapshot(b, {})));
        EXPECT_FALSE(co_await as_result(s->create({.clusters = 1, .thin = true})));
        m.disk().clear_faults();
        co_await s->create({.clusters = 1, .thin = true});
        co_await s->remove(s->blobs().back());
        EXPECT_EQ(co_await describe(l, *s), before);
        m.disk().inject(fault);
        EXPECT_FALSE(co_await as_result(s->set_xattr(b, "name", "lost")));
        b.close();
        EXPECT_FALSE(co_await as_result(s->unload()));
        m.disk().clear_faults();
        co_await s->unload();
    });
    EXPECT_TRUE(outcome) << outcome.error().message();
    EXPECT_EQ(fsck(m.disk(), true), "");
}

}  // namespace
}  // namespace varve::blob
