// For tests: a metadata operation, once for each I/O it issues: with that I/O failing, and with the power cut while it
// is under way, whatever the cut leaves of what was not flushed; and the same again while what a cut left is mended.
//
// Afterwards the store loads, shows the state before or the state after, has lost no cluster and shares none, and goes
// on working. What is found depends on what is on the disk alone, so each image of a disk is looked at once.
#pragma once

#include <algorithm>
#include <map>
#include <sstream>

#include "blob/test_check.h"
#include "blob/test_store.h"
#include "env/sim/rng.h"

namespace varve::blob {

constexpr uint32_t crash_cluster = 8 * 1024;
constexpr uint64_t crash_disk_bytes = 2 << 20;

struct disturbed_operation {
    const char* name;
    task<> (*prepare)(life&, store&);
    task<> (*act)(life&, store&);
    bool atomic = true;      // false: a write of data, done in part when it fails
    bool on_a_half = false;  // the store is made on half of the device
};

// What the store lies on, and what it is like when the operation comes.
struct medium {
    const char* name;
    bool cached = false;
    bool forgets = false;  // a flush that fails loses what was written before it
    uint32_t block = 512, tear = 512;
    uint32_t md_pages = 100;  // with less than 24 there is no double-write area
    bool older = false;       // a super block that does not name the io unit: 4,096 on blocks of 512
    bool reloaded = false;    // it was unloaded and loaded: the operation is the first change
};

inline const char* name_of(env::sim::cut_outcome how) {
    switch (how) {
        case env::sim::cut_outcome::drawn:
            return "drawn";
        case env::sim::cut_outcome::lose_all:
            return "lose all";
        case env::sim::cut_outcome::keep_all:
            return "keep all";
        case env::sim::cut_outcome::tear_all:
            return "tear all";
    }
    return "?";
}

// What becomes of `count` writes when the power goes: all the same; all up to one in the order of issue; one alone
// kept, lost or torn; any. At most `most` of them, drawn, the first ones always.
inline std::vector<std::vector<env::sim::write_fate>> fates_of(std::size_t count, env::sim::rng& chance,
                                                               std::size_t most) {
    using enum env::sim::write_fate;
    using fates = std::vector<env::sim::write_fate>;
    std::vector<fates> all{fates(count, lost)}, more;
    if (count == 0) return all;
    all.emplace_back(count, kept);
    all.emplace_back(count, torn);
    for (std::size_t i = 0; i < count; ++i) {
        for (auto [rest, one] : {std::pair{lost, kept}, {kept, lost}, {lost, torn}, {kept, torn}}) {
            more.emplace_back(count, rest)[i] = one;
        }
        if (i == 0) continue;
        std::fill_n(more.emplace_back(count, lost).begin(), i, kept);
        std::fill_n(more.emplace_back(count, kept).begin(), i, lost);
        for (env::sim::write_fate& f : more.emplace_back(count)) f = static_cast<env::sim::write_fate>(chance.below(3));
    }
    for (std::size_t i = 0; i < more.size() && all.size() < most; ++i) {
        std::swap(more[i], more[i + chance.below(more.size() - i)]);
        all.push_back(more[i]);
    }
    return all;
}

inline std::string text_of(const std::vector<env::sim::write_fate>& fates) {
    std::string text;
    for (env::sim::write_fate f : fates) text += "lkt"[static_cast<int>(f)];
    return text.empty() ? "nothing was under way" : text;
}

// Of a write of data that was done in part: what it does not change is as before, word by word.
inline std::string changed_elsewhere(const std::string& now, const std::string& before, const std::string& after) {
    auto words = [](const std::string& text) {
        std::istringstream in(text);
        return std::vector<std::string>(std::istream_iterator<std::string>(in), {});
    };
    const auto is = words(now), was = words(before), will = words(after);
    if (was.size() != will.size()) return {};
    if (is.size() != was.size()) return "there is more or less than before:\n" + now;
    for (std::size_t i = 0; i < is.size(); ++i) {
        if (was[i] == will[i] && is[i] != was[i]) return was[i] + " has become " + is[i] + ":\n" + now;
    }
    return {};
}

struct good_run {
    std::string before, after;
    uint64_t first = 0, end = 0;  // numbers of the I/Os of the operation
};

class crash_trial {
  public:
    using images = std::map<uint64_t, std::string>;  // what is found, by the hash of the disk

    crash_trial(const disturbed_operation& what, const medium& on, uint64_t seed)
        : _what(what),
          _on(on),
          _machine(seed, crash_disk_bytes,
                   {.logical_block_size = on.block,
                    .alignment = on.block,
                    .volatile_cache = on.cached,
                    .tear_unit = on.tear,
                    .failed_flush_forgets = on.forgets}) {}

    // Up to the operation, and through it. fault(number of its first I/O).
    template <class Fault>
    good_run run(Fault fault) {
        good_run seen;
        live([&](life& l) -> task<> {
            auto s = co_await make(l);
            co_await _what.prepare(l, *s);
            if (_on.reloaded) {
                co_await s->unload();
                s.reset();
                s = co_await load(l);
            }
            if (_what.on_a_half) co_await l.devices.resize(*l.devices.find("base"), crash_disk_bytes / _on.block);
            seen.before = co_await describe(l, *s);
            seen.first = disk().ops_issued();
            fault(seen.first);
            auto done = co_await as_result(_what.act(l, *s));
            succeeded = done.has_value();
            co_await s->settle();
            seen.end = disk().ops_issued();
            if (!will_be_cut) {
                seen.after = co_await describe(l, *s);
                expect_sound(*s);
            }
            co_await s->abandon();
        });
        return seen;
    }
    // What a new life finds; and that it can go on.
    std::string found() {
        std::string text;
        EXPECT_EQ(fsck(disk(), false), "");
        live([&](life& l) -> task<> {
            auto s = co_await load(l);
            text = co_await describe(l, *s);
            expect_sound(*s);
            blob_id id = co_await s->create({.clusters = 2, .xattrs = {{"long", std::string(3000, 'l')}}});
            std::string with_one_more = co_await describe(l, *s);
            co_await s->unload();
            s.reset();
            EXPECT_EQ(fsck(disk(), true), "");
            s = co_await load(l);
            expect_sound(*s);
            EXPECT_EQ(co_await describe(l, *s), with_one_more);
            co_await s->remove(id);
            EXPECT_EQ(co_await describe(l, *s), text);
            co_await s->abandon();
        });
        return text;
    }
    const std::string& found_once(images& known) {
        auto [at, fresh] = known.try_emplace(disk().durable_hash());
        if (fresh) at->second = found();
        return at->second;
    }
    // A life that mends what the last one left and changes nothing else. look(store) when it can be loaded; false when
    // it cannot.
    template <class Fault, class Look>
    bool mend(Fault fault, Look look) {
        bool loaded = false;
        live([&](life& l) -> task<> {
            fault(disk().ops_issued());
            auto s = co_await as_result(load(l));
            if (!s) co_return;
            loaded = true;
            co_await as_result((*s)->set_super_blob((*s)->super_blob()));
            co_await look(l, **s);
            co_await (*s)->abandon();
        });
        return loaded;
    }

    env::sim::disk& disk() { return _machine.disk(); }
    bool will_be_cut = false, succeeded = false;

  private:
    template <class Body>
    void live(Body body) {
        auto outcome = _machine.live([&](life& l) -> task<> {
            co_await l.external.add("golden", 6 * crash_cluster, 5);
            co_await body(l);
        });
        EXPECT_TRUE(outcome) << outcome.error().message();
    }
    task<std::unique_ptr<store>> load(life& l) {
        return store::load(l.devices, l.base(), {.trim = false, .externals = &l.external});
    }
    task<std::unique_ptr<store>> make(life& l) {
        if (_what.on_a_half) co_await l.devices.resize(*l.devices.find("base"), crash_disk_bytes / _on.block / 2);
        auto s = co_await store::init(l.devices, l.base(),
                                      {.cluster_size = crash_cluster,
                                       .md_page_count = _on.md_pages,
                                       .type = "TEST",
                                       .trim = false,
                                       .externals = &l.external});
        if (!_on.older) co_return s;
        co_await s->unload();
        s.reset();
        make_older(disk());
        co_return co_await load(l);
    }

    const disturbed_operation& _what;
    const medium& _on;
    sim_machine _machine;
};

// How much is tried.
struct crash_sample {
    uint64_t seed = 0;
    uint64_t every = 1;           // the power is cut at one I/O of so many
    std::size_t outcomes = 10;    // of each cut
    uint64_t mended_one_in = 40;  // images whose mending is disturbed
};

// Cuts the power, and lets I/Os fail, while what is on the disk is mended; it ends as `found`, which a life finds
// that is not disturbed.
inline void disturb_mending(crash_trial& t, const std::string& found, crash_trial::images& known, env::sim::rng& chance,
                            std::size_t outcomes) {
    env::sim::disk& d = t.disk();
    const env::sim::media image = d.save();
    auto nothing = [](life&, store&) -> task<> { co_return; };
    uint64_t first = 0, end = 0, changes = UINT64_MAX;
    d.keep_history(true);
    const std::size_t old = d.history().size();
    t.mend([&](uint64_t at) { first = at; }, nothing);
    end = d.ops_issued();
    for (std::size_t i = old; i < d.history().size(); ++i) {
        if (d.history()[i].kind != env::file_op_kind::read) changes = std::min(changes, d.history()[i].number);
    }
    d.keep_history(false);
    for (uint64_t n = std::min(changes, end) - first; n < end - first; ++n) {
        d.restore(image);
        d.keep_cuts(true);
        t.mend([&](uint64_t at) { d.cut_power_at(at + n, env::sim::cut_outcome::lose_all); }, nothing);
        d.cut_power(env::sim::cut_outcome::lose_all);
        d.keep_cuts(false);
        const env::sim::media at_the_cut = d.before_cut().clone();
        for (const auto& fates : fates_of(at_the_cut.unflushed().size(), chance, outcomes)) {
            SCOPED_TRACE("again at I/O " + std::to_string(n) + " of the next life, " + text_of(fates));
            d.cut_otherwise(at_the_cut, fates);
            EXPECT_EQ(t.found_once(known), found);
            if (testing::Test::HasFailure()) return;
        }
    }
    for (uint64_t n = 0; n < end - first; ++n) {
        SCOPED_TRACE("I/O " + std::to_string(n) + " of the next life fails");
        d.restore(image);
        t.mend([&](uint64_t at) { d.fail_operation(at + n); },
               [&](life& l, store& s) -> task<> { EXPECT_EQ(co_await describe(l, s), found); });
        d.clear_faults();
        d.cut_power(chance.coin() ? env::sim::cut_outcome::lose_all : env::sim::cut_outcome::keep_all);
        EXPECT_EQ(t.found_once(known), found);
        if (testing::Test::HasFailure()) return;
    }
    d.restore(image);
}

inline void cut_at_every_io(const disturbed_operation& what, const medium& on, const crash_sample& sample) {
    const uint64_t seed = 1 + sample.seed;
    env::sim::rng chance = env::sim::rng::stream(sample.seed, on.name);
    crash_trial::images known;
    good_run good = crash_trial(what, on, seed).run([](uint64_t) {});
    ASSERT_LT(good.first, good.end);
    for (uint64_t n = sample.seed % sample.every; n <= good.end - good.first; n += sample.every) {
        crash_trial t(what, on, seed);
        t.will_be_cut = true;
        t.disk().keep_cuts(true);
        t.run([&](uint64_t first) { t.disk().cut_power_at(first + n, env::sim::cut_outcome::lose_all); });
        t.disk().cut_power(env::sim::cut_outcome::lose_all);  // when the operation was over before
        t.disk().keep_cuts(false);
        const env::sim::media at_the_cut = t.disk().before_cut().clone();
        for (const auto& fates : fates_of(at_the_cut.unflushed().size(), chance, sample.outcomes)) {
            SCOPED_TRACE(std::string(what.name) + ", " + on.name + ", seed " + std::to_string(sample.seed) +
                         ": power cut at I/O " + std::to_string(n) + ", " + text_of(fates));
            t.disk().cut_otherwise(at_the_cut, fates);
            const std::size_t images = known.size();
            std::optional<env::sim::media> image;
            if (chance.one_in(sample.mended_one_in)) image = t.disk().save();
            const std::string now = t.found_once(known);
            if (t.succeeded) {
                EXPECT_EQ(now, good.after);
            } else if (what.atomic && now != good.before) {
                EXPECT_EQ(now, good.after);
            } else if (!what.atomic) {
                EXPECT_EQ(changed_elsewhere(now, good.before, good.after), "");
            }
            if (image && known.size() != images && !testing::Test::HasFailure()) {
                t.disk().restore(*image);
                disturb_mending(t, now, known, chance, 4);
            }
            if (testing::Test::HasFailure()) return;
        }
    }
}

inline void fail_every_io(const disturbed_operation& what, const medium& on, const crash_sample& sample) {
    const uint64_t seed = 1 + sample.seed;
    good_run good = crash_trial(what, on, seed).run([](uint64_t) {});
    for (uint64_t n = sample.seed % sample.every; n < good.end - good.first; n += sample.every) {
        for (bool then_crash : {false, true}) {
            SCOPED_TRACE(std::string(what.name) + ", " + on.name + ", seed " + std::to_string(sample.seed) + ": I/O " +
                         std::to_string(n) + " fails");
            crash_trial t(what, on, seed);
            good_run bad = t.run([&](uint64_t first) { t.disk().fail_operation(first + n); });
            const std::string& expected = t.succeeded ? good.after : good.before;
            if (t.succeeded || what.atomic) EXPECT_EQ(bad.after, expected);
            t.disk().cut_power(then_crash ? env::sim::cut_outcome::lose_all : env::sim::cut_outcome::keep_all);
            const std::string now = t.found();
            if (t.succeeded || what.atomic) EXPECT_EQ(now, expected);
            if (testing::Test::HasFailure()) return;
        }
    }
}

}  // namespace varve::blob
