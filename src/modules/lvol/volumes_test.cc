// Volumes through their methods.
#include "modules/lvol/test_lvol.h"

namespace varve::modules::lvol {
namespace {

class lvol_volumes_test : public thread::in_every_world {};
#define VOLUME_TEST(name) LVOL_TEST(lvol_volumes_test, name)

VOLUME_TEST(a_volume_is_what_its_clients_expect) {
    m.live([](life& s) -> task<> {
        std::string store = co_await s.make_store(), id = co_await s.make_volume("vol", 5);
        const bdev::properties& p = s.find("lvs/vol")->props();
        EXPECT_EQ(p.name, id);
        EXPECT_EQ(p.aliases, std::vector<std::string>{"lvs/vol"});
        EXPECT_EQ(p.uuid.to_string(), id);
        EXPECT_EQ(p.product_name, "Logical Volume");
        EXPECT_EQ(p.num_blocks, 5 * mib / 512);
        EXPECT_TRUE(p.write_cache);
        EXPECT_EQ(s.specific(id), (json::object{{"lvol_store_uuid", store},
                                                {"base_bdev", "disk"},
                                                {"thin_provision", true},
                                                {"num_allocated_clusters", 0},
                                                {"snapshot", false},
                                                {"clone", false},
                                                {"esnap_clone", false}}));
        EXPECT_EQ(co_await s.volume("vol"), (json::object{{"alias", "lvs/vol"},
                                                          {"uuid", id},
                                                          {"name", "vol"},
                                                          {"is_thin_provisioned", true},
                                                          {"is_snapshot", false},
                                                          {"is_clone", false},
                                                          {"is_esnap_clone", false},
                                                          {"is_degraded", false},
                                                          {"num_allocated_clusters", 0},
                                                          {"lvs", json::object{{"name", "lvs"}, {"uuid", store}}},
                                                          {"creation_time", s.find(id)->props().creation_time}}));
        EXPECT_EQ(s.saved(), "");  // all of it is on the disk
        co_await s.call("bdev_lvol_delete", R"({"name": "lvs/vol"})");
        EXPECT_EQ(s.find(id), nullptr);
        EXPECT_TRUE((co_await s.volume("vol")).is_null());
    });
}

VOLUME_TEST(making_one_can_be_refused) {
    m.live([](life& s) -> task<> {
        std::string id = co_await s.make_store();
        auto refused = [](life& l, std::string params) {
            return l.refusal("bdev_lvol_create", R"({"lvol_name": "vol", )" + params + "}");
        };
        EXPECT_TRUE((co_await refused(s, R"("size_in_mib": 1)")).starts_with("-22 Invalid argument"));
        EXPECT_TRUE((co_await refused(s, R"("size_in_mib": 1, "lvs_name": "lvs", "uuid": ")" + id + R"(")"))
                        .starts_with("-22 Invalid argument"));
        EXPECT_TRUE((co_await refused(s, R"("size_in_mib": 1, "lvs_name": "no")")).starts_with("-19 No such device"));
        EXPECT_TRUE((co_await refused(s, R"("size_in_mib": 1, "uuid": "rubbish")")).starts_with("-19 No such device"));
        EXPECT_TRUE((co_await refused(s, R"("lvs_name": "lvs")")).starts_with("-32602 Invalid parameters"));
        EXPECT_TRUE((co_await refused(s, R"("lvs_name": "lvs", "size": 1, "size_in_mib": 1)"))
                        .starts_with("-32602 Invalid parameters"));
        EXPECT_TRUE((co_await refused(s, R"("lvs_name": "lvs", "size_in_mib": 18446744073709551615)"))
                        .starts_with("-22 Invalid argument"));
        EXPECT_TRUE((co_await refused(s, R"("lvs_name": "lvs", "size_in_mib": 32)"))
                        .starts_with("-32602 No space left on device"));
        EXPECT_EQ(co_await refused(s, R"("lvs_name": "lvs", "size": 1)"), "done");  // clients of the past
        EXPECT_EQ(s.find("lvs/vol")->num_blocks(), mib / 512);
        EXPECT_TRUE((co_await refused(s, R"("lvs_name": "lvs", "size_in_mib": 1)")).starts_with("-17 File exists"));
        EXPECT_TRUE(
            (co_await s.refusal("bdev_lvol_create", R"({"lvol_name": "", "lvs_name": "lvs", "size_in_mib": 1})"))
                .starts_with("-22 Invalid argument"));
        co_await s.bdevs.add({.name = "lvs/taken", .num_blocks = 64});
        EXPECT_TRUE(
            (co_await s.refusal("bdev_lvol_create", R"({"lvol_name": "taken", "lvs_name": "lvs", "size_in_mib": 1})"))
                .starts_with("-17 File exists"));
        EXPECT_TRUE((co_await s.refusal("bdev_lvol_delete", R"({"name": "disk"})")).starts_with("-19 No such device"));
        EXPECT_EQ((co_await s.store("lvs"))["free_clusters"], json::value(30));
    });
}

// Both ask for one name before either has it.
VOLUME_TEST(a_name_is_taken_while_its_volume_is_made) {
    m.live([](life& s) -> task<> {
        co_await s.make_store();
        int codes[2] = {1, 1};
        gate all;
        auto one = [](life& l, int& code) -> task<> {
            code = co_await l.code("bdev_lvol_create", R"({"lvol_name": "vol", "lvs_name": "lvs", "size_in_mib": 1})");
        };
        for (int& code : codes) all.spawn(one(s, code), [](const error&) {});
        co_await all.close();
        EXPECT_EQ(codes[0], 0);
        EXPECT_EQ(codes[1], -17);
    });
}

// Its bdev cannot be had, and then the device fails: what stays on it stays listed, and keeps its name.
VOLUME_TEST(what_cannot_be_removed_again_stays_listed) {
    bool listed_once = false;
    m.live([](life& s) -> task<> { co_await s.make_store(); });
    for (unsigned allowed = 0; allowed < 12; ++allowed) {
        SCOPED_TRACE(allowed);
        m.images["try"] = m.images["disk"];
        unsigned number = allowed;
        auto make = [](life& s, unsigned& n) -> task<> {
            kept_disk& d = *co_await s.plug(life::disk_properties("disk"), "try");
            d.hold(bdev::op::write);
            blob::crew asking;
            std::string answer;
            asking.start(s.ask("bdev_lvol_create",
                               R"({"lvs_name": "lvs", "lvol_name": "v", "size_in_mib": 1, "thin_provision": true})",
                               answer));
            while (d.held() == 0) co_await yield();
            co_await s.bdevs.add({.name = "lvs/v", .num_blocks = 64});
            d.refuse_after(bdev::op::write, n);
            d.let_go();
            co_await asking.done();
            EXPECT_NE(answer, "done");
            n = static_cast<unsigned>((co_await s.call("bdev_lvol_get_lvols")).items()->size());
            if (n != 0) {
                EXPECT_NE((co_await s.volume("v"))["degraded_reason"], json::value());
                EXPECT_TRUE((co_await s.refusal("bdev_lvol_create", R"({"lvs_name": "lvs", "lvol_name": "v", )"
                                                                    R"("size_in_mib": 1})"))
                                .starts_with("-17 File exists"));
            }
        };
        m.live(make, number);
        listed_once = listed_once || number != 0;
        auto load = [](life& s, unsigned& n) -> task<> {
            co_await s.plug(life::disk_properties("disk"), "try");
            EXPECT_LE((co_await s.call("bdev_lvol_get_lvols")).items()->size(), n);
        };
        m.live(load, number);
    }
    EXPECT_TRUE(listed_once);
}

VOLUME_TEST(snapshots_and_clones_show_and_know_each_other) {
    m.live([](life& s) -> task<> {
        co_await s.make_store();
        co_await s.make_volume("vol", 4);
        co_await s.fill("lvs/vol", 0, 8192, 1);
        json::value id = co_await s.call("bdev_lvol_snapshot", R"({"lvol_name": "lvs/vol", "snapshot_name": "snap"})");
        co_await s.fill("lvs/vol", 8, 4096, 2);
        co_await s.call("bdev_lvol_clone", R"({"snapshot_name": "lvs/snap", "clone_name": "copy"})");
        EXPECT_EQ(s.specific(*id.string())["clones"], json::value(json::array{"vol", "copy"}));
        EXPECT_EQ(s.specific("lvs/snap")["snapshot"], json::value(true));
        EXPECT_TRUE(s.find("lvs/snap")->props().read_only);
        EXPECT_EQ(s.specific("lvs/copy")["base_snapshot"], json::value("snap"));
        EXPECT_EQ(s.specific("lvs/copy")["clone"], json::value(true));
        co_await s.expect("lvs/snap", 0, bdev::pattern(8192, 1));
        co_await s.expect("lvs/copy", 0, bdev::pattern(8192, 1));
        co_await s.expect("lvs/vol", 8, bdev::pattern(4096, 2));
        EXPECT_TRUE((co_await s.refusal("bdev_lvol_snapshot", R"({"lvol_name": "lvs/vol", "snapshot_name": "copy"})"))
                        .starts_with("-32602 File exists"));
        EXPECT_TRUE((co_await s.refusal("bdev_lvol_snapshot", R"({"lvol_name": "lvs/snap", "snapshot_name": "x"})"))
                        .starts_with("-32602 Invalid argument"));
        EXPECT_TRUE((co_await s.refusal("bdev_lvol_snapshot", R"({"lvol_name": "lvs/no", "snapshot_name": "x"})"))
                        .starts_with("-19 No such device"));
        EXPECT_TRUE((co_await s.refusal("bdev_lvol_clone", R"({"snapshot_name": "lvs/vol", "clone_name": "x"})"))
                        .starts_with("-32602 Invalid argument"));
        EXPECT_TRUE((co_await s.refusal("bdev_lvol_clone", R"({"snapshot_name": "disk", "clone_name": "x"})"))
                        .starts_with("-19 No such device"));
        // Two clones keep a snapshot; one takes it over.
        EXPECT_TRUE((co_await s.refusal("bdev_lvol_delete", R"({"name": "lvs/snap"})"))
                        .starts_with("-32603 Operation not permitted"));
        EXPECT_NE(s.find("lvs/snap"), nullptr);
    });
    m.live([](life& s) -> task<> {
        co_await s.plug("disk");
        EXPECT_EQ((co_await s.volume("snap"))["is_snapshot"], json::value(true));
        co_await s.call("bdev_lvol_delete", R"({"name": "lvs/copy"})");
        co_await s.call("bdev_lvol_delete", R"({"name": "lvs/snap"})");
        EXPECT_EQ((co_await s.volume("vol"))["is_clone"], json::value(false));
        co_await s.expect("lvs/vol", 0, bdev::pattern(4096, 1));
        co_await s.expect("lvs/vol", 8, bdev::pattern(4096, 2));
    });
}

VOLUME_TEST(renaming_changes_the_alias_alone) {
    m.live([](life& s) -> task<> {
        co_await s.make_store();
        std::string id = co_await s.make_volume("vol", 1);
        co_await s.make_volume("other", 1);
        auto rename = [](life& l, std::string from, std::string to) {
            return l.refusal("bdev_lvol_rename", R"({"old_name": ")" + from + R"(", "new_name": ")" + to + R"("})");
        };
        EXPECT_EQ(co_await rename(s, "lvs/vol", "new"), "done");
        EXPECT_EQ(s.find("lvs/vol"), nullptr);
        EXPECT_EQ(s.find("lvs/new"), s.find(id));
        EXPECT_EQ(s.find(id)->props().aliases, std::vector<std::string>{"lvs/new"});
        EXPECT_TRUE((co_await rename(s, id, "other")).starts_with("-32602 File exists"));
        EXPECT_TRUE((co_await rename(s, id, "new")).starts_with("-32602 File exists"));
        EXPECT_TRUE((co_await rename(s, id, "")).starts_with("-32602 Invalid argument"));
        EXPECT_TRUE((co_await rename(s, "lvs/vol", "x")).starts_with("-19 No such device"));
        EXPECT_EQ(co_await rename(s, "lvs/other", std::string(255, 'l')), "done");
        EXPECT_TRUE((co_await rename(s, id, std::string(256, 'l'))).starts_with("-32602 Invalid argument"));
        co_await s.call("bdev_lvol_snapshot", R"({"lvol_name": "lvs/new", "snapshot_name": "snap"})");
        EXPECT_EQ(co_await rename(s, "lvs/snap", "kept"), "done");
    });
    m.live([](life& s) -> task<> {
        co_await s.plug("disk");
        for (std::string name : {"lvs/new", "lvs/kept"}) EXPECT_NE(s.find(name), nullptr) << name;
        EXPECT_NE(s.find("lvs/" + std::string(255, 'l')), nullptr);
        EXPECT_EQ(co_await s.code("bdev_lvol_rename",
                                  R"({"old_name": "lvs/)" + std::string(255, 'l') + R"(", "new_name": "short"})"),
                  0);
    });
    m.live([](life& s) -> task<> {
        co_await s.plug("disk");
        EXPECT_NE(s.find("lvs/short"), nullptr);
    });
}

VOLUME_TEST(resizing_is_told_to_whoever_has_it_open) {
    m.live([](life& s) -> task<> {
        co_await s.make_store();
        co_await s.make_volume("vol", 4);
        int told = 0;
        bdev::descriptor opened =
            co_await s.bdevs.devices.open("lvs/vol", bdev::open_mode::read_write,
                                          [&](bdev::device_event e) { told += e == bdev::device_event::resized; });
        bdev::channel_ref c = opened.channel();
        auto resize = [](life& l, std::string size) {
            return l.refusal("bdev_lvol_resize", R"({"name": "lvs/vol", )" + size + "}");
        };
        EXPECT_EQ(co_await resize(s, R"("size_in_mib": 9)"), "done");
        EXPECT_EQ(opened->num_blocks(), 9 * mib / 512);
        EXPECT_EQ(told, 1);
        co_await bdev::write(*c, 8 * mib / 512, bdev::pattern(512, 3));
        EXPECT_EQ(co_await resize(s, R"("size": 2097153)"), "done");
        EXPECT_EQ(opened->num_blocks(), 3 * mib / 512);
        EXPECT_EQ(told, 2);
        EXPECT_EQ(co_await bdev::answer_to(*c, bdev::op::flush, 0, 0), bdev::status::ok);
        std::vector<std::byte> block(512);
        EXPECT_EQ(co_await bdev::answer_to(*c, bdev::op::read, 3 * mib / 512, 1, block), bdev::status::out_of_range);
        EXPECT_EQ((co_await s.volume("vol"))["num_allocated_clusters"], json::value(0));
        // What was given up comes back as zeroes.
        EXPECT_EQ(co_await resize(s, R"("size_in_mib": 9)"), "done");
        co_await s.expect("lvs/vol", 8 * mib / 512, std::vector<std::byte>(512));
        EXPECT_TRUE((co_await resize(s, R"("size_in_mib": 17592186044415)")).starts_with("-32602 "));
        EXPECT_EQ(opened->num_blocks(), 9 * mib / 512);
        EXPECT_TRUE((co_await s.refusal("bdev_lvol_resize", R"({"name": "disk", "size_in_mib": 1})"))
                        .starts_with("-19 No such device"));
    });
    m.live([](life& s) -> task<> {
        co_await s.plug("disk");
        EXPECT_EQ(s.find("lvs/vol")->num_blocks(), 9 * mib / 512);
        co_await s.call("bdev_lvol_set_read_only", R"({"name": "lvs/vol"})");
        EXPECT_TRUE((co_await s.refusal("bdev_lvol_resize", R"({"name": "lvs/vol", "size_in_mib": 1})"))
                        .starts_with("-32602 Operation not permitted"));
        EXPECT_EQ(s.find("lvs/vol")->num_blocks(), 9 * mib / 512);
    });
}

VOLUME_TEST(a_resize_that_is_refused_is_not_seen) {
    m.live([](life& s) -> task<> {
        co_await s.make_store();
        co_await s.make_volume("vol", 4);
        int told = 0;
        bdev::descriptor opened =
            co_await s.bdevs.devices.open("lvs/vol", bdev::open_mode::read_write,
                                          [&](bdev::device_event e) { told += e == bdev::device_event::resized; });
        kept_disk& d = s.disk();
        d.hold(bdev::op::write);
        blob::crew asking;
        std::string answer;
        asking.start(s.ask("bdev_lvol_inflate", R"({"name": "lvs/vol"})", answer));
        while (d.held() == 0) co_await yield();
        for (int size : {1, 9}) {
            EXPECT_TRUE((co_await s.refusal("bdev_lvol_resize",
                                            fmt::format(R"({{"name": "lvs/vol", "size_in_mib": {}}})", size)))
                            .starts_with("-32602 Device or resource busy"));
        }
        d.let_go();
        co_await asking.done();
        EXPECT_EQ(answer, "done");
        EXPECT_EQ(told, 0);
        EXPECT_EQ(opened->num_blocks(), 4 * mib / 512);
    });
}

VOLUME_TEST(what_is_set_read_only_refuses_writes_at_once) {
    m.live([](life& s) -> task<> {
        co_await s.make_store();
        co_await s.make_volume("vol", 2);
        bdev::descriptor opened = co_await s.open("lvs/vol");
        bdev::channel_ref c = opened.channel();
        co_await bdev::write(*c, 0, bdev::pattern(512, 1));
        co_await s.call("bdev_lvol_set_read_only", R"({"name": "lvs/vol"})");
        auto block = bdev::pattern(512, 2);
        EXPECT_EQ(co_await bdev::answer_to(*c, bdev::op::write, 0, 1, block), bdev::status::read_only);
        co_await s.expect("lvs/vol", 0, bdev::pattern(512, 1));
        EXPECT_EQ(co_await s.code("bdev_lvol_clone", R"({"snapshot_name": "lvs/vol", "clone_name": "c"})"), 0);
        EXPECT_EQ(co_await s.code("bdev_lvol_set_read_only", R"({"name": "lvs/no"})"), -19);
    });
    m.live([](life& s) -> task<> {
        co_await s.plug("disk");
        EXPECT_TRUE(s.find("lvs/vol")->props().read_only);
        EXPECT_FALSE(s.find("lvs/c")->props().read_only);
    });
}

VOLUME_TEST(old_and_odd_names_find_a_volume) {
    m.live([](life& s) -> task<> {
        co_await s.make_store();
        std::string id = co_await s.make_volume("vol", 1);
        EXPECT_EQ(co_await s.code("bdev_lvol_delete", R"({"name": ")" + id + R"("})"), 0);
        co_await s.make_volume("vol", 1);
        EXPECT_EQ(co_await s.code("bdev_lvol_delete", R"({"name": "lvs/"})"), -19);
        EXPECT_EQ(co_await s.code("bdev_lvol_get_lvols", R"({"lvs_name": "no"})"), -19);
        EXPECT_EQ(co_await s.code("bdev_lvol_get_lvols", R"({"lvs_name": "lvs", "lvs_uuid": "x"})"), -22);
        EXPECT_EQ((co_await s.call("bdev_lvol_get_lvols", R"({"lvs_name": "lvs"})")).items()->size(), 1u);
    });
}

INSTANTIATE_TEST_SUITE_P(worlds, lvol_volumes_test, thread::every_world(), thread::world_name);

// --- what takes long

// A thick one of 4 MiB.
task<std::string> make_clearing(life& s, std::string name, std::string method) {
    return s.refusal("bdev_lvol_create", fmt::format(R"({{"lvs_name": "lvs", "lvol_name": "{}", "size_in_mib": 4, )"
                                                     R"("clear_method": "{}"}})",
                                                     name, method));
}
task<std::string> remove(life& s, std::string name) {
    return s.refusal("bdev_lvol_delete", fmt::format(R"({{"name": "lvs/{}"}})", name));
}
task<json::value> free_clusters(life& s) { co_return (co_await s.store("lvs"))["free_clusters"]; }

// Bytes that are not zero, of all clusters but the metadata's.
int64_t bytes_that_show(std::span<const std::byte> data) {
    return std::ssize(data) - std::ranges::count(data, std::byte{});
}
int64_t bytes_left(life& s) { return bytes_that_show(std::span(s.disk().blocks).subspan(mib)); }

// Unmapping does not make zeroes there, so nothing is cleared in the background.
task<> make_plain_store(life& s) {
    bdev::properties p = life::disk_properties("disk");
    p.unmap_zeroes = false;
    co_await s.plug(p);
    co_await s.call("bdev_lvol_create_lvstore", R"({"bdev_name": "disk", "lvs_name": "lvs", "cluster_sz": 1048576})");
}

VOLUME_TEST(a_volume_is_gone_before_what_it_had_is_cleared) {
    m.live([](life& s) -> task<> {
        co_await s.make_store();
        co_await life::pass_turns();
        const json::value empty = co_await free_clusters(s);
        EXPECT_EQ(co_await make_clearing(s, "vol", "write_zeroes"), "done");
        co_await s.fill("lvs/vol", 0, 4 * mib, 1);
        const json::value with_it = co_await free_clusters(s);
        kept_disk& d = s.disk();
        d.hold(bdev::op::write_zeroes);
        EXPECT_EQ(co_await remove(s, "vol"), "done");
        EXPECT_TRUE((co_await s.volume("vol")).is_null());
        while (d.held() == 0) co_await yield();
        json::value job = co_await s.job("delete");
        EXPECT_EQ(job["object"], json::value("lvs/vol"));
        EXPECT_EQ(job["state"], json::value("running"));
        EXPECT_EQ(job["total"], json::value(4));
        EXPECT_EQ(co_await free_clusters(s), with_it) << "nobody gets them before";
        EXPECT_EQ(co_await make_clearing(s, "vol", "none"), "done") << "its name is free";
        d.let_go();
        while ((co_await s.job("delete"))["state"] == json::value("running")) co_await yield();
        EXPECT_EQ((co_await s.job("delete"))["done"], json::value(4));
        EXPECT_EQ(co_await remove(s, "vol"), "done");
        EXPECT_EQ(co_await free_clusters(s), empty);
        EXPECT_EQ(bytes_left(s), 0);
    });
}

VOLUME_TEST(a_store_may_be_closed_while_what_a_volume_had_is_cleared) {
    m.live([](life& s) -> task<> {
        co_await make_plain_store(s);
        for (auto name : {"a", "b"}) EXPECT_EQ(co_await make_clearing(s, name, "write_zeroes"), "done");
        kept_disk& d = s.disk();
        d.hold(bdev::op::write_zeroes);
        EXPECT_EQ(co_await remove(s, "a"), "done");
        json::value job = co_await s.job("delete");
        co_await s.call("job_pause", fmt::format(R"({{"id": {}}})", *job["id"].unsigned_integer()));
        d.let_go();
        co_await life::pass_turns();
        d.hold(bdev::op::write_zeroes);
        EXPECT_EQ(co_await remove(s, "b"), "done");
        co_await life::pass_turns();
        d.let_go();
    });
    m.live([](life& s) -> task<> {
        bdev::properties p = life::disk_properties("disk");
        p.unmap_zeroes = false;
        co_await s.plug(p);
        EXPECT_EQ((co_await s.store("lvs"))["free_clusters"], (co_await s.store("lvs"))["total_data_clusters"]);
    });
}

VOLUME_TEST(what_a_volume_had_is_unmapped_or_left_as_it_says) {
    m.live([](life& s) -> task<> {
        co_await make_plain_store(s);
        kept_disk& d = s.disk();
        unsigned wanted = d.seen(bdev::op::unmap);
        for (std::string method : {"none", "unmap", "default"}) {
            EXPECT_EQ(co_await make_clearing(s, "vol", method), "done");
            co_await s.fill("lvs/vol", 0, 4 * mib, 1);
            EXPECT_EQ(d.seen(bdev::op::unmap), wanted);
            EXPECT_EQ(co_await remove(s, "vol"), "done");
            while ((co_await s.job("delete"))["state"] == json::value("running")) co_await yield();
            wanted += method != "none";
            EXPECT_EQ(d.seen(bdev::op::unmap), wanted) << method;
            EXPECT_EQ(bytes_left(s) != 0, method == "none") << method;
            EXPECT_EQ(co_await make_clearing(s, "next", "none"), "done");
            co_await s.expect("lvs/next", 0, std::vector<std::byte>(4 * mib));
            EXPECT_EQ(co_await remove(s, "next"), "done");
        }
    });
}

task<> until_cleared(life& s, std::string kind) {
    while ((co_await s.job(kind))["state"] == json::value("running")) co_await yield();
}

const std::array<std::string, 3> clear_methods{"write_zeroes", "unmap", "none"};

// The disk holds what clears; then a job has so many clusters to clear, which are free afterwards. With "none" there is
// no job.
task<> expect_clearing(life& s, std::string method, std::string kind, std::string object, uint64_t clusters) {
    kept_disk& d = s.disk();
    co_await life::pass_turns();
    EXPECT_EQ(d.held() != 0, method != "none") << method;
    const uint64_t before = *(co_await free_clusters(s)).unsigned_integer();
    if (method != "none") {
        json::value job = co_await s.job(kind);
        EXPECT_EQ(job["object"], json::value(object));
        EXPECT_EQ(job["state"], json::value("running"));
        EXPECT_EQ(job["total"], json::value(clusters));
    }
    d.let_go();
    co_await until_cleared(s, kind);
    EXPECT_EQ(*(co_await free_clusters(s)).unsigned_integer() - before, method == "none" ? 0 : clusters)
        << "nobody gets them before";
}

// The volume goes, and nothing of what it or others had is lost.
task<> expect_all_is_free(life& s, const json::value& wanted) {
    EXPECT_EQ(co_await remove(s, "vol"), "done");
    co_await until_cleared(s, "delete");
    EXPECT_EQ(co_await free_clusters(s), wanted);
    co_await s.make_volume("all", 31, false);
    EXPECT_EQ(co_await remove(s, "all"), "done");
    co_await until_cleared(s, "delete");
}

VOLUME_TEST(what_is_cut_off_is_cleared_as_the_volume_says) {
    m.live([](life& s) -> task<> {
        co_await make_plain_store(s);
        const json::value empty = co_await free_clusters(s);
        const std::vector<std::byte> data = bdev::pattern(4 * mib, 1);
        const int64_t kept = bytes_that_show(std::span(data).first(mib)), all = bytes_that_show(data);
        for (const std::string& method : clear_methods) {
            EXPECT_EQ(co_await make_clearing(s, "vol", method), "done");
            co_await s.fill("lvs/vol", 0, 4 * mib, 1);
            s.disk().hold(method == "unmap" ? bdev::op::unmap : bdev::op::write_zeroes);
            EXPECT_EQ(co_await s.refusal("bdev_lvol_resize", R"({"name": "lvs/vol", "size_in_mib": 1})"), "done");
            EXPECT_EQ(s.find("lvs/vol")->num_blocks(), mib / 512);
            co_await expect_clearing(s, method, "resize", "lvs/vol", 3);
            EXPECT_EQ(bytes_left(s), method == "none" ? all : kept) << method;
            co_await expect_all_is_free(s, empty);
        }
    });
}

// The clone has two clusters of its own; the other two become its.
VOLUME_TEST(what_a_snapshot_leaves_is_cleared_as_it_says) {
    m.live([](life& s) -> task<> {
        co_await make_plain_store(s);
        const json::value empty = co_await free_clusters(s);
        const std::vector<std::byte> first = bdev::pattern(4 * mib, 1), second = bdev::pattern(2 * mib, 2);
        const int64_t shown = bytes_that_show(second) + bytes_that_show(std::span(first).subspan(2 * mib));
        for (const std::string& method : clear_methods) {
            EXPECT_EQ(co_await make_clearing(s, "vol", method), "done");
            co_await s.fill("lvs/vol", 0, 4 * mib, 1);
            co_await s.call("bdev_lvol_snapshot", R"({"lvol_name": "lvs/vol", "snapshot_name": "snap"})");
            co_await s.fill("lvs/vol", 0, 2 * mib, 2);
            s.disk().hold(method == "unmap" ? bdev::op::unmap : bdev::op::write_zeroes);
            EXPECT_EQ(co_await remove(s, "snap"), "done");
            EXPECT_TRUE((co_await s.volume("snap")).is_null());
            co_await expect_clearing(s, method, "delete", "lvs/snap", 2);
            EXPECT_EQ(bytes_left(s) == shown, method != "none") << method;
            co_await s.expect("lvs/vol", 0, second);
            co_await s.expect("lvs/vol", 2 * mib / 512, {first.begin() + 2 * mib, first.end()});
            co_await expect_all_is_free(s, empty);
        }
    });
}

// Also where everything else is cleared in the background.
VOLUME_TEST(what_is_to_be_left_is_not_unmapped_in_the_background) {
    m.live([](life& s) -> task<> {
        co_await s.make_store();
        EXPECT_EQ(co_await make_clearing(s, "left", "none"), "done");
        EXPECT_EQ(co_await make_clearing(s, "vol", "default"), "done");
        co_await s.fill("lvs/left", 0, 4 * mib, 1);
        co_await s.fill("lvs/vol", 0, 4 * mib, 2);
        EXPECT_GT(bytes_left(s), 4 * mib);
        for (auto name : {"left", "vol"}) EXPECT_EQ(co_await remove(s, name), "done");
        co_await life::pass_turns();
        EXPECT_GT(bytes_left(s), 0);
        EXPECT_LE(bytes_left(s), 4 * mib);
        co_await s.make_volume("all", 31, false);
        EXPECT_EQ(bytes_left(s), 0);
    });
}

VOLUME_TEST(clearing_for_a_thick_volume_can_be_cancelled) {
    m.live([](life& s) -> task<> {
        co_await make_plain_store(s);
        const json::value empty = co_await free_clusters(s);
        kept_disk& d = s.disk();
        blob::crew asking;
        std::string answer;
        d.hold(bdev::op::write_zeroes);
        asking.start(
            s.ask("bdev_lvol_create", R"({"lvs_name": "lvs", "lvol_name": "vol", "size_in_mib": 20})", answer));
        while (d.held() == 0 && answer.empty()) co_await yield();
        json::value job = co_await s.job("create");
        EXPECT_EQ(job["object"], json::value("lvs/vol"));
        EXPECT_EQ(job["total"], json::value(20));
        co_await s.call("job_cancel", fmt::format(R"({{"id": {}}})", *job["id"].unsigned_integer()));
        d.let_go();
        co_await asking.done();
        EXPECT_TRUE(answer.starts_with("-32602 Operation canceled")) << answer;
        EXPECT_EQ(co_await free_clusters(s), empty);
        co_await s.make_volume("vol", 4, false);
        d.hold(bdev::op::write_zeroes);
        blob::crew growing;
        growing.start(s.ask("bdev_lvol_resize", R"({"name": "lvs/vol", "size_in_mib": 20})", answer));
        while (d.held() == 0) co_await yield();
        EXPECT_EQ((co_await s.job("resize"))["total"], json::value(16));
        co_await s.fill("lvs/vol", 0, 4096, 3);  // whoever writes is not kept waiting
        d.let_go();
        co_await growing.done();
        EXPECT_EQ(answer, "done");
        co_await s.expect("lvs/vol", 0, bdev::pattern(4096, 3));
    });
}

}  // namespace
}  // namespace varve::modules::lvol
