// Methods that change stores and volumes, once for each I/O they issue: with that I/O failing, and with the power of
// the whole machine cut there. A system that starts afterwards shows the state before or the state after: stores,
// names, aliases, uuids, sizes, parents, attributes and contents. What was answered is never lost, and it can be gone
// on with.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "blob/test_crash.h"
#include "env/sim/lone_world.h"
#include "modules/lvol/test_lvol.h"
#include "thread/awaits.h"

namespace varve::modules::lvol {
namespace {

using env::sim::cut_outcome;

constexpr uint64_t cluster = 8 * 1024, disk_bytes = 2 * mib;

// A system from its start to its end, on the disks of a machine.
struct crash_life {
    crash_life(thread::runtime& rt, std::string& log_lines)
        : devices(rt), module(std::make_unique<logging_module>(log_lines)) {
        module->attach(methods, devices);
    }
    task<json::value> call(std::string method, std::string params = "{}") {
        json::value parsed = co_await json::parse(params);
        co_return co_await methods.call(method, std::move(parsed), rpc::states::runtime);
    }
    task<> create(std::string name, unsigned clusters, bool thin, std::string clear = "default") {
        co_await call("bdev_lvol_create",
                      fmt::format(R"({{"lvs_name": "lvs", "lvol_name": "{}", "size": {}, "thin_provision": {}, )"
                                  R"("clear_method": "{}"}})",
                                  name, clusters * cluster, thin, clear));
    }
    task<> create_store(std::string on) {
        co_await call("bdev_lvol_create_lvstore",
                      fmt::format(R"({{"bdev_name": "{}", "lvs_name": "lvs", "cluster_sz": {}}})", on, cluster));
    }
    task<> snapshot(std::string of, std::string name) {
        co_await call("bdev_lvol_snapshot", fmt::format(R"({{"lvol_name": "{}", "snapshot_name": "{}"}})", of, name));
    }
    task<> named(std::string method, std::string name) {
        co_await call(std::move(method), fmt::format(R"({{"name": "{}"}})", name));
    }
    task<> fill(std::string name, uint64_t lba, std::size_t bytes, unsigned seed) {
        bdev::descriptor opened = co_await devices.open(name, bdev::open_mode::read_write, {});
        bdev::channel_ref c = opened.channel();
        std::vector<std::byte> plain = bdev::pattern(bytes, seed);
        blob::data_bytes data(plain.begin(), plain.end());
        co_await bdev::write(*c, lba, data);
        co_await bdev::flush(*c);
    }
    // What goes on in the background has come to its end.
    task<> settle(env::sim::disk& on) {
        for (unsigned quiet = 0; quiet < 100;) {
            co_await yield();
            quiet = on.in_flight() == 0 ? quiet + 1 : 0;
        }
    }
    // All that clients can see, with a sum of the contents.
    task<std::string> describe() {
        std::string text;
        json::value stores = co_await call("bdev_lvol_get_lvstores");
        for (const json::value& s : *stores.items()) text += json::write(s) + '\n';
        json::value volumes = co_await call("bdev_lvol_get_lvols");
        for (const json::value& v : *volumes.items()) {
            text += json::write(v);
            const bdev::device* d = devices.find(*v["uuid"].string());
            if (d == nullptr) {
                text += " NO BDEV\n";
                continue;
            }
            text += fmt::format(" {} blocks, read-only {}, {}", d->num_blocks(), d->props().read_only,
                                json::write(d->driver_specific()["lvol"]));
            for (const std::string& alias : d->props().aliases) text += " " + alias;
            auto note = co_await as_result(
                call("bdev_lvol_get_xattr", fmt::format(R"({{"name": "{}", "xattr_name": "note"}})", d->name())));
            text += note ? " note " + json::write(*note) + " :" : " :";
            bdev::descriptor opened = co_await devices.open(d->name(), bdev::open_mode::read_only, {});
            bdev::channel_ref c = opened.channel();
            blob::data_bytes data(cluster);
            for (uint64_t at = 0; at < opened->num_blocks(); at += cluster / 512) {
                co_await bdev::read(*c, at, data);
                text += " " + blob::hash_of(data);
            }
            text += '\n';
        }
        co_return text;
    }

    bdev::registry devices;
    rpc::registry methods;
    std::unique_ptr<bdev::module> module;
};

struct crash_machine {
    explicit crash_machine(bool cached)
        : world(1 + thread::test_seed(), {.cpus = 1}),
          disk(world.inside().add_disk("/disk", disk_bytes, {.volatile_cache = cached})),
          other(world.inside().add_disk("/other", disk_bytes, {.volatile_cache = cached})) {}

    template <class Body>
    void live(Body body) {
        for (env::sim::disk* d : {&disk, &other}) d->restore_power();
        thread::runtime_options options;
        options.cpus.emplace().add(0);
        auto rt = std::move(*thread::runtime::make(world, options));
        result<> outcome;
        {
            crash_life here(*rt, lines);
            rt->app_thread().post([&] {
                start_detached(whole(here, body), [&](result<> o) {
                    outcome = std::move(o);
                    rt->stop();
                });
            });
            rt->run();
        }
        EXPECT_TRUE(outcome) << outcome.error().message();
    }
    task<> plug(crash_life& l, std::string name) {
        auto file = co_await world.open("/" + name, {});
        co_await l.devices.add(std::make_unique<blob::sim_base>(std::move(file), disk.options(), name));
        co_await l.devices.wait_for_examine();
    }
    task<> plug_all(crash_life& l) {
        bdev::properties p;
        p.name = "golden";
        p.uuid = *uuid::parse("11111111-2222-4333-8444-555555555555");
        p.num_blocks = 4 * cluster / 512;
        auto golden = std::make_unique<bdev::ram_device>(p);
        golden->blocks = bdev::pattern(4 * cluster, 9);
        co_await l.devices.add(std::move(golden));
        co_await plug(l, "other");
        co_await plug(l, "disk");
    }
    void cut_power(cut_outcome how) {
        disk.cut_power(how);
        other.cut_power(how);
    }

    env::sim::lone_world world;
    env::sim::disk &disk, &other;
    std::string lines;

  private:
    template <class Body>
    task<> whole(crash_life& here, Body& body) {
        result<> outcome = co_await as_result(body(here));
        co_await here.module->stop();
        co_await here.devices.remove_all();
        co_await std::move(outcome);
    }
};

struct operation {
    const char* name;
    task<> (*prepare)(crash_machine&, crash_life&);
    task<> (*act)(crash_life&);
    bool closes = false;    // the store, also when it fails
    bool in_steps = false;  // clusters are given one by one, and stay when it fails; what they show is the same
};

task<> nothing(crash_machine&, crash_life&) { co_return; }
task<> a_store(crash_machine&, crash_life& l) { co_await l.create_store("disk"); }
// v, a clone of snapshot s, both with data; a thick volume; w, thin with data.
task<> volumes_of_all_kinds(crash_machine&, crash_life& l) {
    co_await l.create_store("disk");
    co_await l.create("v", 4, true);
    co_await l.fill("lvs/v", 0, 3 * cluster, 1);
    co_await l.snapshot("lvs/v", "s");
    co_await l.fill("lvs/v", 8, cluster, 2);
    co_await l.create("thick", 3, false, "write_zeroes");
    co_await l.fill("lvs/thick", 0, cluster, 3);
    co_await l.create("w", 4, true, "write_zeroes");
    co_await l.fill("lvs/w", 16, 2 * cluster, 4);
}
task<> a_smaller_disk(crash_machine&, crash_life& l) {
    bdev::device& d = *l.devices.find("disk");
    co_await l.devices.resize(d, disk_bytes / 2 / 512);
    co_await l.create_store("disk");
    co_await l.create("v", 4, true);
    co_await l.fill("lvs/v", 0, cluster, 1);
    co_await l.devices.resize(d, disk_bytes / 512);
}
// On "disk" a store of the same name as the one that is open on "other".
task<> a_clash(crash_machine& m, crash_life& l) {
    co_await l.create_store("disk");
    co_await l.create("v", 4, true);
    co_await l.fill("lvs/v", 0, cluster, 1);
    co_await l.devices.remove("disk");
    co_await l.devices.wait_for_examine();
    co_await l.create_store("other");
    co_await l.create("o", 2, true);
    co_await l.fill("lvs/o", 0, cluster, 2);
    co_await m.plug(l, "disk");
}
task<> a_clone_of_a_bdev(crash_machine& m, crash_life& l) {
    co_await volumes_of_all_kinds(m, l);
    co_await l.call("bdev_lvol_clone_bdev", R"({"bdev": "golden", "lvs_name": "lvs", "clone_name": "e"})");
    co_await l.fill("lvs/e", 8, 4096, 5);
}
std::string long_name() { return std::string(200, 'n'); }

const operation operations[] = {
    {"create a store", nothing, [](crash_life& l) { return l.create_store("disk"); }},
    {"create a thin volume", a_store, [](crash_life& l) { return l.create("c", 4, true); }},
    {"create a thick volume", volumes_of_all_kinds, [](crash_life& l) { return l.create("c", 5, false); }},
    {"create a volume with a long name", volumes_of_all_kinds,
     [](crash_life& l) { return l.create(long_name(), 5, true); }},
    {"snapshot", volumes_of_all_kinds, [](crash_life& l) { return l.snapshot("lvs/v", "c"); }},
    {"snapshot with attributes", volumes_of_all_kinds,
     [](crash_life& l) -> task<> {
         co_await l.call("bdev_lvol_snapshot",
                         R"({"lvol_name": "lvs/thick", "snapshot_name": "c", "xattrs": {"note": "of a snapshot"}})");
     }},
    {"clone", volumes_of_all_kinds,
     [](crash_life& l) -> task<> {
         co_await l.call("bdev_lvol_clone", R"({"snapshot_name": "lvs/s", "clone_name": "c"})");
     }},
    {"clone a bdev", volumes_of_all_kinds,
     [](crash_life& l) -> task<> {
         co_await l.call("bdev_lvol_clone_bdev", R"({"bdev": "golden", "lvs_name": "lvs", "clone_name": "c"})");
     }},
    {"rename a volume", volumes_of_all_kinds,
     [](crash_life& l) -> task<> {
         co_await l.call("bdev_lvol_rename", R"({"old_name": "lvs/v", "new_name": "renamed"})");
     }},
    {"give a volume a long name", volumes_of_all_kinds,
     [](crash_life& l) -> task<> {
         co_await l.call("bdev_lvol_rename", fmt::format(R"({{"old_name": "lvs/v", "new_name": "{}"}})", long_name()));
     }},
    {"make a thin volume larger", volumes_of_all_kinds,
     [](crash_life& l) -> task<> { co_await l.call("bdev_lvol_resize", R"({"name": "lvs/v", "size": 90000})"); }},
    {"make a thick volume larger", volumes_of_all_kinds,
     [](crash_life& l) -> task<> { co_await l.call("bdev_lvol_resize", R"({"name": "lvs/thick", "size": 50000})"); }},
    {"make a volume smaller", volumes_of_all_kinds,
     [](crash_life& l) -> task<> { co_await l.call("bdev_lvol_resize", R"({"name": "lvs/w", "size": 8192})"); }},
    {"delete a thick volume", volumes_of_all_kinds,
     [](crash_life& l) { return l.named("bdev_lvol_delete", "lvs/thick"); }},
    {"delete a thin volume", volumes_of_all_kinds, [](crash_life& l) { return l.named("bdev_lvol_delete", "lvs/w"); }},
    {"delete a clone", volumes_of_all_kinds, [](crash_life& l) { return l.named("bdev_lvol_delete", "lvs/v"); }},
    {"delete a snapshot", volumes_of_all_kinds, [](crash_life& l) { return l.named("bdev_lvol_delete", "lvs/s"); }},
    {"make read-only", volumes_of_all_kinds, [](crash_life& l) { return l.named("bdev_lvol_set_read_only", "lvs/v"); }},
    {"inflate", volumes_of_all_kinds, [](crash_life& l) { return l.named("bdev_lvol_inflate", "lvs/v"); }, false, true},
    {"decouple", volumes_of_all_kinds, [](crash_life& l) { return l.named("bdev_lvol_decouple_parent", "lvs/v"); },
     false, true},
    {"detach", volumes_of_all_kinds, [](crash_life& l) { return l.named("bdev_lvol_detach_parent", "lvs/v"); }},
    {"set the parent", volumes_of_all_kinds,
     [](crash_life& l) -> task<> {
         co_await l.call("bdev_lvol_set_parent", R"({"lvol_name": "lvs/w", "parent_name": "lvs/s"})");
     }},
    {"set a bdev as parent", volumes_of_all_kinds,
     [](crash_life& l) -> task<> {
         co_await l.call("bdev_lvol_set_parent_bdev", R"({"lvol_name": "lvs/w", "parent_name": "golden"})");
     }},
    {"set an attribute", volumes_of_all_kinds,
     [](crash_life& l) -> task<> {
         co_await l.call("bdev_lvol_set_xattr", R"({"name": "lvs/v", "xattr_name": "note", "xattr_value": "seen"})");
     }},
    {"inflate a clone of a bdev", a_clone_of_a_bdev,
     [](crash_life& l) { return l.named("bdev_lvol_inflate", "lvs/e"); }, false, true},
    {"rename a store", volumes_of_all_kinds,
     [](crash_life& l) -> task<> {
         co_await l.call("bdev_lvol_rename_lvstore", R"({"old_name": "lvs", "new_name": "renamed"})");
     }},
    {"give a store a long name", volumes_of_all_kinds,
     [](crash_life& l) -> task<> {
         co_await l.call("bdev_lvol_rename_lvstore",
                         fmt::format(R"({{"old_name": "lvs", "new_name": "{}"}})", long_name()));
     }},
    {"grow a store", a_smaller_disk,
     [](crash_life& l) -> task<> { co_await l.call("bdev_lvol_grow_lvstore", R"({"lvs_name": "lvs"})"); }},
    {"import a store under another name", a_clash,
     [](crash_life& l) -> task<> {
         co_await l.call("bdev_lvol_import_lvstore", R"({"bdev_name": "disk", "lvs_name": "second"})");
     }},
    {"delete a store", volumes_of_all_kinds,
     [](crash_life& l) -> task<> { co_await l.call("bdev_lvol_delete_lvstore", R"({"lvs_name": "lvs"})"); }, true},
};

struct good_run {
    std::string before, after;    // what the next life finds
    std::string is, will_be;      // what this one shows
    uint64_t first = 0, end = 0;  // numbers of the I/Os
};

// Without how many clusters there are, where an operation may have been done in part.
std::string comparable(const operation& what, std::string text) {
    if (!what.in_steps) return text;
    for (const std::string_view key : {"\"free_clusters\":", "\"num_allocated_clusters\":"}) {
        for (std::size_t at = 0; (at = text.find(key, at)) != std::string::npos;) {
            at += key.size();
            text.erase(at, text.find_first_of(",}", at) - at);
        }
    }
    return text;
}

class trial {
  public:
    trial(const operation& what, bool cached) : _what(what), m(cached) {}

    // Up to the operation and, unless it is left out, through it; then the power is gone.
    template <class Fault>
    void run(Fault fault, bool acts = true) {
        m.live([&](crash_life& l) -> task<> {
            co_await m.plug_all(l);
            co_await _what.prepare(m, l);
            co_await l.settle(m.disk);
            seen.is = co_await l.describe();
            seen.first = m.disk.ops_issued();
            fault(seen.first);
            if (acts) succeeded = (co_await as_result(_what.act(l))).has_value();
            co_await l.settle(m.disk);
            seen.end = m.disk.ops_issued();
            auto shown = co_await as_result(l.describe());  // it reads, and the power may go meanwhile
            EXPECT_TRUE(shown || !m.disk.powered()) << shown.error().message();
            if (shown) seen.will_be = std::move(*shown);
            m.disk.cut_power_at(UINT64_MAX);
            m.cut_power(at_the_end);
        });
    }
    // What a new system shows; and that another one shows it again after something was made and deleted.
    std::string found() {
        std::string text;
        m.live([&](crash_life& l) -> task<> {
            co_await m.plug_all(l);
            text = co_await l.describe();
            json::value stores = co_await l.call("bdev_lvol_get_lvstores");
            for (const json::value& s : *stores.items()) {
                const std::string name = *s["name"].string();
                co_await l.call("bdev_lvol_create",
                                fmt::format(R"({{"lvs_name": "{}", "lvol_name": "more", "size": 9000}})", name));
                co_await l.named("bdev_lvol_delete", name + "/more");
            }
            co_await l.settle(m.disk);
        });
        for (const env::sim::disk* d : {&m.disk, &m.other}) {
            if (text.find("\"base_bdev\":\"" + d->name().substr(1)) != std::string::npos)
                EXPECT_EQ(blob::fsck(*d, true), "");
        }
        m.live([&](crash_life& l) -> task<> {
            co_await m.plug_all(l);
            EXPECT_EQ(co_await l.describe(), text);
        });
        return text;
    }
    const std::string& found_once(std::map<uint64_t, std::string>& known) {
        auto [at, fresh] = known.try_emplace(m.disk.durable_hash() * 31 + m.other.durable_hash());
        if (fresh) at->second = found();
        return at->second;
    }

    good_run seen;
    bool succeeded = false;
    cut_outcome at_the_end = cut_outcome::lose_all;

  private:
    const operation& _what;

  public:
    crash_machine m;
};

good_run undisturbed(const operation& what, bool cached) {
    trial t(what, cached), before(what, cached);
    t.run([](uint64_t) {});
    EXPECT_TRUE(t.succeeded);
    t.seen.after = t.found();
    before.run([](uint64_t) {}, false);
    t.seen.before = before.found();
    EXPECT_NE(t.seen.before, t.seen.after);
    return t.seen;
}

void cut_at_every_io(const operation& what, bool cached, std::size_t outcomes) {
    const good_run good = undisturbed(what, cached);
    std::map<uint64_t, std::string> known;
    env::sim::rng chance = env::sim::rng::stream(thread::test_seed(), what.name);
    for (uint64_t n = 0; n <= good.end - good.first && !testing::Test::HasFailure(); ++n) {
        trial t(what, cached);
        t.m.disk.keep_cuts(true);
        t.run([&](uint64_t first) {
            t.m.disk.cut_power_at(first + n, cut_outcome::lose_all,
                                  [&] { t.m.other.cut_power(cut_outcome::lose_all); });
        });
        t.m.disk.keep_cuts(false);
        const env::sim::media at_the_cut = t.m.disk.before_cut().clone(), other = t.m.other.save();
        for (const auto& fates : blob::fates_of(at_the_cut.unflushed().size(), chance, outcomes)) {
            SCOPED_TRACE(std::string(what.name) + ": power cut at I/O " + std::to_string(n) + ", " +
                         blob::text_of(fates));
            t.m.disk.cut_otherwise(at_the_cut, fates);
            t.m.other.restore(other);
            const std::string& now = t.found_once(known);
            if (t.succeeded || comparable(what, now) != comparable(what, good.before)) EXPECT_EQ(now, good.after);
            if (testing::Test::HasFailure()) return;
        }
    }
}

void fail_every_io(const operation& what, bool cached) {
    const good_run good = undisturbed(what, cached);
    for (uint64_t n = 0; n < good.end - good.first && !testing::Test::HasFailure(); ++n) {
        SCOPED_TRACE(std::string(what.name) + ": I/O " + std::to_string(n) + " fails");
        trial t(what, cached);
        t.at_the_end = n % 2 == 0 ? cut_outcome::lose_all : cut_outcome::keep_all;
        t.run([&](uint64_t first) { t.m.disk.fail_operation(first + n); });
        auto same = [&](const std::string& one, const std::string& other) {
            EXPECT_EQ(comparable(what, one), comparable(what, other));
        };
        if (t.succeeded || !what.closes) same(t.seen.will_be, t.succeeded ? good.will_be : good.is);
        const std::string now = t.found();
        // A store whose end was not flushed may have ended all the same.
        if (!t.succeeded && what.closes && now == good.after) continue;
        same(now, t.succeeded ? good.after : good.before);
    }
}

class lvol_crash : public testing::TestWithParam<operation> {};
INSTANTIATE_TEST_SUITE_P(methods, lvol_crash, testing::ValuesIn(operations), [](const auto& info) {
    std::string name = info.param.name;
    std::ranges::replace(name, ' ', '_');
    std::ranges::replace(name, '-', '_');
    return name;
});

TEST_P(lvol_crash, power_cut_at_every_io) {
    thread::for_each_seed(
        [] {
            for (bool cached : {false, true}) cut_at_every_io(GetParam(), cached, 6);
        },
        1);
}
TEST_P(lvol_crash, every_io_fails) {
    thread::for_each_seed(
        [] {
            for (bool cached : {false, true}) fail_every_io(GetParam(), cached);
        },
        1);
}

}  // namespace
}  // namespace varve::modules::lvol
