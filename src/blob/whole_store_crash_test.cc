// What concerns a store as a whole, once for each I/O it issues: made, loaded and unloaded, with that I/O failing and
// with the power cut there. Making one leaves the old store, or none, or the new one; loading one shows what there is
// or fails; one that could not be unloaded is still in use. What came of it can be gone on with.
#include <gtest/gtest.h>

#include <set>

#include "blob/test_crash.h"
#include "thread/test_world.h"

namespace varve::blob {
namespace {

using env::sim::cut_outcome;

const init_options small{.cluster_size = crash_cluster, .md_page_count = 100, .trim = false};
constexpr uint64_t step = thread::sanitized ? 4 : 1;  // of the I/Os that something happens at

// A machine, and stores on it. Bodies end with a store abandoned or unloaded.
class whole_store {
  public:
    explicit whole_store(const env::sim::disk_options& how)
        : _machine(1 + thread::test_seed(), crash_disk_bytes, how) {}
    env::sim::disk& disk() { return _machine.disk(); }
    template <class Body>
    void live(Body body) {
        auto outcome = _machine.live(body);
        EXPECT_TRUE(outcome) << outcome.error().message();
    }
    // An empty store; the number of the first I/O is told, and whether it was made returned.
    template <class Fault>
    bool make(Fault fault) {
        bool made = false;
        live([&](life& l) -> task<> {
            fault(disk().ops_issued());
            auto s = co_await as_result(store::init(l.devices, l.base(), small));
            made = s.has_value();
            if (s) co_await (*s)->abandon();
        });
        return made;
    }
    // Blobs with data: a snapshot, its clone, and one with a chain of pages, all flushed; some of it not committed.
    task<std::unique_ptr<store>> fill(life& l, bool unsaved) {
        auto s = co_await store::init(l.devices, l.base(), small);
        blob_id v = co_await s->create({.clusters = 6, .thin = true, .xattrs = {{"name", "v"}}});
        co_await write_pattern(l, *s, v, 0, 40, '1');
        blob_ref b = co_await s->open(v);
        co_await s->snapshot(b, {{"name", "s"}});
        b.close();
        co_await write_pattern(l, *s, v, 18, 40, '2');
        co_await s->create({.clusters = 3, .xattrs = {{"name", "t"}, {"long", std::string(4000, 'l')}}});
        blob_id gone = co_await s->create({.clusters = 5, .thin = true});
        co_await write_pattern(l, *s, gone, 0, 80, 'g');
        co_await s->remove(gone);
        co_await write_pattern(l, *s, v, 80, 3, 'u', !unsaved);
        co_return s;
    }
    // The text of a store, "none", or the error of the load; it can be gone on with, or made again.
    std::string found() {
        std::string text;
        const std::string from_outside = fsck(disk(), false);
        live([&](life& l) -> task<> {
            auto loaded = co_await as_result(store::load(l.devices, l.base(), {.trim = false}));
            std::unique_ptr<store> s;
            if (loaded) {
                s = std::move(*loaded);
                text = co_await describe(l, *s);
                EXPECT_EQ(from_outside, "");
            } else {
                text = loaded.error().code() == errc::bad_sequence ? "none" : loaded.error().message();
                s = co_await store::init(l.devices, l.base(), small);
            }
            expect_sound(*s);
            co_await s->create({.clusters = 2});
            const std::string last = co_await describe(l, *s);
            co_await s->unload();
            s.reset();
            EXPECT_EQ(fsck(disk(), true), "");
            s = co_await store::load(l.devices, l.base(), {.trim = false});
            EXPECT_EQ(co_await describe(l, *s), last);
            co_await s->abandon();
        });
        return text;
    }
    bool said_to_be_clean() { return super_of(disk()).clean != 0; }

  private:
    sim_machine _machine;
};

struct what_there_was {
    const char* name;
    void (*make)(whole_store&);
};
// As a device is that had other uses.
void junk(whole_store& m) {
    std::vector<std::byte> bytes = bdev::pattern(crash_disk_bytes, 3);
    m.disk().poke(0, bytes);
}
void a_store(whole_store& m, bool unloaded) {
    m.live([&](life& l) -> task<> {
        auto s = co_await m.fill(l, false);
        if (unloaded) {
            co_await s->unload();
        } else {
            co_await s->settle();
            co_await s->abandon();
        }
    });
    m.disk().cut_power(cut_outcome::keep_all);
}
const what_there_was befores[] = {
    {"nothing", [](whole_store&) {}},
    {"junk", junk},
    {"an unloaded store", [](whole_store& m) { a_store(m, true); }},
    {"a store in use", [](whole_store& m) { a_store(m, false); }},
};

const env::sim::disk_options disks[] = {
    {.volatile_cache = false},
    {.volatile_cache = true},
    {.logical_block_size = 4096, .alignment = 4096, .volatile_cache = true},
};

// Each is looked at once; `expect` judges it.
template <class Expect>
void look_at_each_outcome(whole_store& m, crash_trial::images& known, env::sim::rng& chance, std::size_t most,
                          Expect expect) {
    const env::sim::media at_the_cut = m.disk().before_cut().clone();
    for (const auto& fates : fates_of(at_the_cut.unflushed().size(), chance, most)) {
        SCOPED_TRACE(text_of(fates));
        m.disk().cut_otherwise(at_the_cut, fates);
        auto [at, fresh] = known.try_emplace(m.disk().durable_hash());
        const bool clean = m.said_to_be_clean();
        if (fresh) at->second = m.found();
        expect(at->second, clean);
        if (testing::Test::HasFailure()) return;
    }
}

// From a disk on which `before` was made, `act` is done with a fault at each of its I/Os.
void make_over(const what_there_was& before, const env::sim::disk_options& how) {
    SCOPED_TRACE(before.name);
    whole_store m(how);
    before.make(m);
    const env::sim::media image = m.disk().save();
    const std::string old = m.found();
    m.disk().restore(image);
    uint64_t first = 0;
    EXPECT_TRUE(m.make([&](uint64_t at) { first = at; }));
    const uint64_t count = m.disk().ops_issued() - first;
    m.disk().cut_power(cut_outcome::lose_all);
    const std::string fresh = m.found();
    EXPECT_NE(fresh, "none");

    env::sim::rng chance = env::sim::rng::stream(thread::test_seed(), "init");
    crash_trial::images known;
    for (uint64_t n = 0; n <= count; n += step) {
        SCOPED_TRACE("I/O " + std::to_string(n));
        m.disk().restore(image);
        m.disk().keep_cuts(true);
        bool made = m.make([&](uint64_t at) { m.disk().cut_power_at(at + n, cut_outcome::lose_all); });
        m.disk().cut_power(cut_outcome::lose_all);
        m.disk().keep_cuts(false);
        EXPECT_EQ(made, n == count);
        look_at_each_outcome(m, known, chance, 24, [&](const std::string& now, bool clean) {
            if (made) EXPECT_EQ(now, fresh);
            if (now != old && now != "none") EXPECT_EQ(now, fresh);
            if (now == fresh) EXPECT_FALSE(clean);
        });
        if (n == count || testing::Test::HasFailure()) continue;
        for (auto then : {cut_outcome::lose_all, cut_outcome::keep_all}) {
            SCOPED_TRACE("fails");
            m.disk().restore(image);
            made = m.make([&](uint64_t at) { m.disk().fail_operation(at + n); });
            m.disk().clear_faults();
            m.disk().cut_power(then);
            const std::string now = m.found();
            if (made) {
                EXPECT_EQ(now, fresh);
            } else if (now != old) {
                EXPECT_EQ(now, "none");
            }
        }
        if (testing::Test::HasFailure()) return;
    }
}
void make_stores() {
    for (const env::sim::disk_options& how : disks) {
        for (const what_there_was& before : befores) make_over(before, how);
    }
}
TEST(whole_store_crash, making_a_store_leaves_the_old_or_none_or_the_new_one) { thread::for_each_seed(make_stores, 1); }

void unload_stores() {
    for (const env::sim::disk_options& how : disks) {
        for (bool unsaved : {false, true}) {
            env::sim::rng chance = env::sim::rng::stream(thread::test_seed(), "unload");
            crash_trial::images known;
            std::string before;
            uint64_t count = 0;
            bool at_once = false;
            // done: it was unloaded; otherwise the power was cut at I/O n, or it failed.
            auto end = [&](whole_store& m, auto fault) {
                bool done = false;
                m.live([&](life& l) -> task<> {
                    auto s = co_await m.fill(l, unsaved);
                    before = co_await describe(l, *s);
                    const uint64_t first = m.disk().ops_issued();
                    fault(first);
                    done = at_once = (co_await as_result(s->unload())).has_value();
                    count = m.disk().ops_issued() - first;
                    if (!done && m.disk().powered() && thread::test_seed() % 2 == 0) {
                        EXPECT_FALSE(m.said_to_be_clean());
                        co_await s->unload();  // once more
                        done = true;
                    }
                    co_await s->abandon();
                });
                return done;
            };
            {
                whole_store m(how);
                EXPECT_TRUE(end(m, [](uint64_t) {}));
            }
            const uint64_t all = count;
            for (uint64_t n = 0; n <= all && !testing::Test::HasFailure(); n += step) {
                SCOPED_TRACE("I/O " + std::to_string(n) + (unsaved ? ", not all flushed" : ""));
                whole_store m(how);
                m.disk().keep_cuts(true);
                bool done = end(m, [&](uint64_t first) { m.disk().cut_power_at(first + n, cut_outcome::lose_all); });
                m.disk().cut_power(cut_outcome::lose_all);
                m.disk().keep_cuts(false);
                look_at_each_outcome(m, known, chance, 16, [&](const std::string& now, bool clean) {
                    if (done) EXPECT_TRUE(clean);
                    if (done || clean || !unsaved) EXPECT_EQ(now, before);
                });
                if (n == all || testing::Test::HasFailure()) break;
                for (auto then : {cut_outcome::lose_all, cut_outcome::keep_all}) {
                    SCOPED_TRACE("fails");
                    whole_store f(how);
                    done = end(f, [&](uint64_t first) { f.disk().fail_operation(first + n); });
                    f.disk().clear_faults();
                    f.disk().cut_power(then);
                    EXPECT_EQ(f.said_to_be_clean(), done);
                    const std::string now = f.found();
                    // What was not flushed may be lost with the flush that failed.
                    if (at_once || !unsaved) EXPECT_EQ(now, before);
                }
            }
        }
    }
}
TEST(whole_store_crash, unloading_is_done_or_the_store_is_in_use) { thread::for_each_seed(unload_stores, 1); }

std::set<std::string> lines_of(const std::string& text) {
    std::set<std::string> all;
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t end = text.find('\n', at);
        all.insert(text.substr(at, end - at));
        at = end + 1;
    }
    return all;
}

// A store on a disk, and what a load must show of it.
struct load_trial {
    explicit load_trial(const env::sim::disk_options& how) : m(how) {}

    // One that is opened and not changed; then gets a blob, if that can be. It shows nothing but `whole`, or parts of
    // it and what is set aside.
    template <class Fault>
    void load_disturbed(Fault fault, bool then_change) {
        m.live([&](life& l) -> task<> {
            fault(m.disk().ops_issued());
            auto s = co_await as_result(store::load(l.devices, l.base(), {.trim = false}));
            if (!s) co_return;
            ++served;
            auto seen = co_await as_result(describe(l, **s));
            if (seen) {
                for (const std::string& line : lines_of(*seen)) {
                    const bool told = line.find(" SET ASIDE ") != std::string::npos;
                    EXPECT_TRUE(told || whole.contains(line)) << line;
                }
            }
            for (blob_id id : (*s)->blobs()) co_await l.stop_serving(id);
            if (then_change) co_await as_result((*s)->create({.clusters = 1}));
            co_await (*s)->settle();
            co_await (*s)->abandon();
        });
    }
    void run() {
        const env::sim::media image = m.disk().save();
        m.disk().keep_history(true);
        uint64_t first = 0;
        const std::size_t old = m.disk().history().size();
        m.live([&](life& l) -> task<> {
            first = m.disk().ops_issued();
            auto s = co_await store::load(l.devices, l.base(), {.trim = false});
            count = m.disk().ops_issued() - first;
            whole = lines_of(co_await describe(l, *s));
            co_await s->abandon();
        });
        m.disk().keep_history(false);
        std::vector<env::sim::disk::record> all(m.disk().history().begin() + static_cast<ptrdiff_t>(old),
                                                m.disk().history().end());
        all.resize(count);
        writes =
            static_cast<uint64_t>(std::ranges::count(all, env::file_op_kind::write, &env::sim::disk::record::kind));
        for (uint64_t n = 0; n < count; n += step) {
            for (bool for_good : {false, true}) {
                SCOPED_TRACE("I/O " + std::to_string(n) + " fails" + (for_good ? " for good" : ""));
                m.disk().restore(image);
                load_disturbed(
                    [&](uint64_t at) {
                        if (!for_good) return m.disk().fail_operation(at + n);
                        m.disk().inject({.kind = all[n].kind,
                                         .first = all[n].offset,
                                         .end = all[n].offset + std::max<uint64_t>(all[n].length, 1),
                                         .times = UINT64_MAX});
                    },
                    for_good);
                m.disk().clear_faults();
                m.disk().cut_power(cut_outcome::lose_all);
                EXPECT_EQ(fsck(m.disk(), false), "");
                load_again(!for_good);
                if (testing::Test::HasFailure()) return;
            }
        }
        m.disk().restore(image);
    }
    // All of it is there.
    void load_again(bool nothing_else) {
        m.live([&](life& l) -> task<> {
            auto s = co_await store::load(l.devices, l.base(), {.trim = false});
            const std::set<std::string> now = lines_of(co_await describe(l, *s));
            if (nothing_else) EXPECT_EQ(now, whole);
            for (const std::string& line : whole) EXPECT_TRUE(now.contains(line)) << line;
            expect_sound(*s);
            co_await s->abandon();
        });
    }

    whole_store m;
    std::set<std::string> whole;
    uint64_t count = 0, writes = 0;
    unsigned served = 0;
};

void load_stores() {
    for (const env::sim::disk_options& how : disks) {
        for (bool unloaded : {true, false}) {
            load_trial t(how);
            a_store(t.m, unloaded);
            t.run();
            if (step == 1) EXPECT_GT(t.served, t.count / 2);
        }
    }
}
TEST(whole_store_crash, loading_shows_what_there_is_or_fails) { thread::for_each_seed(load_stores, 1); }

// Of a snapshot, the power being cut at each of its I/Os and all kept that was written: what has to be finished.
void load_unfinished() {
    for (const uint32_t md_pages : {100u, 20u}) {  // the latter without an area: the snapshot comes in two steps
        unsigned unfinished = 0;
        for (uint64_t n = 0; !testing::Test::HasFailure(); n += step) {
            SCOPED_TRACE("cut at I/O " + std::to_string(n) + " of a snapshot");
            load_trial t({.volatile_cache = true, .tear_unit = 4096});
            bool done = false;
            t.m.live([&](life& l) -> task<> {
                auto s = co_await store::init(
                    l.devices, l.base(), {.cluster_size = crash_cluster, .md_page_count = md_pages, .trim = false});
                blob_id v = co_await s->create({.clusters = 6, .thin = true, .xattrs = {{"name", "v"}}});
                co_await write_pattern(l, *s, v, 0, 40, '1');
                blob_ref b = co_await s->open(v);
                t.m.disk().cut_power_at(t.m.disk().ops_issued() + n, cut_outcome::keep_all);
                done = (co_await as_result(s->snapshot(b, {{"name", "s"}}))).has_value();
                b.close();
                co_await s->settle();
                co_await s->abandon();
            });
            if (done) break;
            t.run();
            unfinished += t.writes > 0;
        }
        if (step == 1) EXPECT_GT(unfinished, 0u);
    }
}
TEST(whole_store_crash, loading_finishes_what_was_begun_or_fails) { thread::for_each_seed(load_unfinished, 1); }

}  // namespace
}  // namespace varve::blob
