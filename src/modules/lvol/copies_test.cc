// What Longhorn's branch of SPDK adds: attributes, fragment maps, detaching, copies, checksums.
#include "modules/lvol/copies.h"

#include "modules/lvol/test_lvol.h"
#include "thread/awaits.h"

namespace varve::modules::lvol {
namespace {

class lvol_copies_test : public thread::in_every_world {};
#define COPIES_TEST(name) LVOL_TEST(lvol_copies_test, name)

constexpr uint64_t cluster_blocks = mib / 512;

// "lvs/low" <- "lvs/high", read-only both: clusters 0 and 2 in low, 2 and 5 in high, of 8.
task<> make_two(life& s) {
    co_await s.make_store();
    co_await s.make_volume("v", 8);
    co_await s.fill("lvs/v", 0, mib, 1);
    co_await s.fill("lvs/v", 2 * cluster_blocks, mib, 2);
    co_await s.call("bdev_lvol_snapshot", R"({"lvol_name": "lvs/v", "snapshot_name": "low"})");
    co_await s.fill("lvs/v", 2 * cluster_blocks, mib, 3);
    co_await s.fill("lvs/v", 5 * cluster_blocks, 4096, 4);
    co_await s.call("bdev_lvol_snapshot", R"({"lvol_name": "lvs/v", "snapshot_name": "high"})");
}
std::vector<std::byte> cluster_of(unsigned seed) { return bdev::pattern(mib, seed); }

// A bit at a time, as the definition has it.
uint64_t slow_crc(std::vector<std::byte> bytes, uint64_t before = 0) {
    uint64_t state = ~before;
    for (std::byte b : bytes) {
        state ^= std::to_integer<uint64_t>(b);
        for (int i = 0; i < 8; ++i) state = (state >> 1) ^ ((state & 1) != 0 ? 0xd800000000000000 : 0);
    }
    return ~state;
}

task<json::value> until_over(life& s, std::string method, uint64_t id) {
    for (;;) {
        json::value now = co_await s.call(method, fmt::format(R"({{"operation_id": {}}})", id));
        if (now["state"] != json::value("in progress")) co_return now;
        co_await yield();
    }
}

task<uint64_t> begin(life& s, std::string method, std::string params) {
    json::value started = co_await s.call(std::move(method), std::move(params));
    co_return *started["operation_id"].unsigned_integer();
}

// Of volumes, snapshots and clones; Longhorn's clients want to see it, and unchanged when there is another name.
COPIES_TEST(tells_when_volumes_were_made) {
    m.live([](life& s) -> task<> {
        co_await make_two(s);
        co_await s.call("bdev_lvol_snapshot", R"({"lvol_name": "lvs/v", "snapshot_name": "s"})");
        co_await s.call("bdev_lvol_clone", R"({"snapshot_name": "lvs/s", "clone_name": "c"})");
        for (std::string name : {"v", "s", "c"}) {
            const std::string made = s.find("lvs/" + name)->props().creation_time;
            EXPECT_EQ(made.size(), 20u) << made;
            EXPECT_EQ((co_await s.volume(name))["creation_time"], json::value(made));
        }
        const std::string made = s.find("lvs/c")->props().creation_time;
        co_await s.call("bdev_lvol_rename", R"({"old_name": "lvs/c", "new_name": "d"})");
        EXPECT_EQ((co_await s.volume("d"))["creation_time"], json::value(made));
        EXPECT_EQ(co_await s.code("bdev_lvol_set_xattr",
                                  R"({"name": "lvs/d", "xattr_name": "creation_time", "xattr_value": "b"})"),
                  -32602);
    });
}

COPIES_TEST(keeps_attributes) {
    m.live([](life& s) -> task<> {
        co_await make_two(s);
        co_await s.call("bdev_lvol_set_xattr", R"({"name": "lvs/v", "xattr_name": "a", "xattr_value": "b c"})");
        EXPECT_EQ(
            co_await s.refusal("bdev_lvol_set_xattr", R"({"name": "lvs/low", "xattr_name": "a", "xattr_value": "b"})"),
            "-32602 Operation not permitted: metadata is read-only");
        EXPECT_EQ(
            co_await s.code("bdev_lvol_set_xattr", R"({"name": "lvs/v", "xattr_name": "uuid", "xattr_value": "b"})"),
            -32602);
        EXPECT_EQ(
            co_await s.code("bdev_lvol_set_xattr", R"({"name": "lvs/no", "xattr_name": "a", "xattr_value": "b"})"),
            -19);
        co_await s.call("bdev_lvol_snapshot",
                        R"({"lvol_name": "lvs/v", "snapshot_name": "s", "xattrs": {"by": "user", "at": "noon"}})");
        EXPECT_EQ(co_await s.call("bdev_lvol_get_xattr", R"({"name": "lvs/s", "xattr_name": "at"})"),
                  json::value("noon"));
        for (auto bad : {R"([])", R"({"a": 1})", R"({"name": "x"})"}) {
            EXPECT_EQ(
                co_await s.code("bdev_lvol_snapshot",
                                fmt::format(R"({{"lvol_name": "lvs/v", "snapshot_name": "t", "xattrs": {}}})", bad)),
                -32602);
        }
        // What the store itself keeps of a blob (its parent's id) is no attribute of the volume, whatever its name.
        for (auto unknown : {"z", "SNAP"}) {
            EXPECT_EQ(co_await s.refusal("bdev_lvol_get_xattr",
                                         fmt::format(R"({{"name": "lvs/v", "xattr_name": "{}"}})", unknown)),
                      "-32603 No such file or directory");
        }
    });
    m.live([](life& s) -> task<> {
        co_await s.plug("disk");
        EXPECT_EQ(co_await s.call("bdev_lvol_get_xattr", R"({"name": "lvs/v", "xattr_name": "a"})"),
                  json::value("b c"));
        EXPECT_EQ(co_await s.call("bdev_lvol_get_xattr", R"({"name": "lvs/v", "xattr_name": "name"})"),
                  json::value("v"));
    });
}

COPIES_TEST(tells_where_clusters_are) {
    m.live([](life& s) -> task<> {
        co_await make_two(s);
        json::value all = co_await s.call("bdev_lvol_get_fragmap", R"({"name": "lvs/high"})");
        EXPECT_EQ(all["fragmap"], json::value("JA=="));  // bits 2 and 5
        EXPECT_EQ(all["num_clusters"], json::value(8));
        EXPECT_EQ(all["num_allocated_clusters"], json::value(2));
        EXPECT_EQ(all["cluster_size"], json::value(mib));
        json::value part =
            co_await s.call("bdev_lvol_get_fragmap", R"({"name": "lvs/low", "offset": 2097152, "size": 3145728})");
        EXPECT_EQ(part["fragmap"], json::value("AQ=="));
        EXPECT_EQ(part["num_clusters"], json::value(3));
        for (auto bad :
             {R"({"name": "lvs/low", "offset": 512})", R"({"name": "lvs/low", "size": 512})",
              R"({"name": "lvs/low", "offset": 8388608, "size": 1048576})", R"({"name": "lvs/low", "offset": 1048576})",
              R"({"name": "lvs/low", "offset": 18446744073708503040, "size": 2097152})"}) {
            EXPECT_EQ(co_await s.code("bdev_lvol_get_fragmap", bad), -32602) << bad;
        }
    });
}

COPIES_TEST(leaves_its_parent) {
    m.live([](life& s) -> task<> {
        co_await make_two(s);
        co_await s.call("bdev_lvol_detach_parent", R"({"name": "lvs/high"})");
        co_await s.expect("lvs/high", 0, std::vector<std::byte>(mib));
        co_await s.expect("lvs/high", 2 * cluster_blocks, cluster_of(3));
        co_await s.expect("lvs/v", 2 * cluster_blocks, cluster_of(3));
        EXPECT_EQ(s.specific("lvs/high")["clone"], json::value(false));
        EXPECT_EQ(co_await s.code("bdev_lvol_detach_parent", R"({"name": "lvs/high"})"), -32602);
    });
}

COPIES_TEST(copies_what_a_volume_has_itself) {
    m.live([](life& s) -> task<> {
        co_await make_two(s);
        co_await s.plug(life::disk_properties("to", 8 * mib));
        co_await s.fill("to", 0, 8 * mib, 9);
        uint64_t id = co_await begin(s, "bdev_lvol_start_shallow_copy",
                                     R"({"src_lvol_name": "lvs/high", "dst_bdev_name": "to"})");
        EXPECT_EQ(co_await s.code("bdev_lvol_delete", R"({"name": "lvs/high"})"), -32603) << "it is being read";
        json::value end = co_await until_over(s, "bdev_lvol_check_shallow_copy", id);
        EXPECT_EQ(end["state"], json::value("complete"));
        EXPECT_EQ(end["copied_clusters"], json::value(2));
        EXPECT_EQ(end["total_clusters"], json::value(2));
        EXPECT_EQ(co_await s.code("bdev_lvol_check_shallow_copy", fmt::format(R"({{"operation_id": {}}})", id)), -19)
            << "told once";
        auto untouched = bdev::pattern(8 * mib, 9);
        co_await s.expect("to", 0, {untouched.begin(), untouched.begin() + 2 * mib});
        co_await s.expect("to", 2 * cluster_blocks, cluster_of(3));
        auto last = bdev::pattern(4096, 4);
        last.resize(mib);
        co_await s.expect("to", 5 * cluster_blocks, last);
    });
}

COPIES_TEST(copies_some_clusters_and_unmaps_others) {
    m.live([](life& s) -> task<> {
        co_await make_two(s);
        co_await s.plug(life::disk_properties("to", 8 * mib));
        co_await s.fill("to", 0, 8 * mib, 9);
        uint64_t id = co_await begin(s, "bdev_lvol_start_range_shallow_copy",
                                     R"({"src_lvol_name": "lvs/high", "dst_bdev_name": "to", "clusters": [2, 3]})");
        json::value end = co_await until_over(s, "bdev_lvol_check_shallow_copy", id);
        EXPECT_EQ(end["copied_clusters"], json::value(1));
        EXPECT_EQ(end["unmapped_clusters"], json::value(1));
        auto wanted = bdev::pattern(8 * mib, 9);
        std::ranges::copy(cluster_of(3), wanted.begin() + 2 * mib);
        std::fill_n(wanted.begin() + 3 * mib, mib, std::byte{0});
        co_await s.expect("to", 0, wanted);
    });
}

// Clients compare what volumes have got: what can be unmapped is, and zeroes are written only over something else.
COPIES_TEST(unmaps_first_and_writes_zeroes_only_where_they_are_missing) {
    m.live([](life& s) -> task<> {
        co_await make_two(s);
        bdev::properties unsure = life::disk_properties("unsure", 8 * mib);
        unsure.unmap_zeroes = false;
        bdev::properties none = life::disk_properties("none", 8 * mib);
        none.offered &= ~bdev::op_bit(bdev::op::unmap);
        none.unmap_zeroes = false;
        for (bdev::properties p : {unsure, none}) {
            std::string name = p.name;
            kept_disk& d = *co_await s.plug(std::move(p));
            co_await s.fill(name, 0, 4 * mib, 9);  // the other half holds zeroes
            uint64_t id = co_await begin(
                s, "bdev_lvol_start_range_shallow_copy",
                R"({"src_lvol_name": "lvs/high", "dst_bdev_name": ")" + name + R"(", "clusters": [0, 1, 6, 7]})");
            json::value end = co_await until_over(s, "bdev_lvol_check_shallow_copy", id);
            EXPECT_EQ(end["state"], json::value("complete"));
            EXPECT_EQ(end["unmapped_clusters"], json::value(4));
            EXPECT_EQ(d.seen(bdev::op::unmap), name == "unsure" ? 4u : 0u) << name;
            EXPECT_EQ(d.seen(bdev::op::write_zeroes), name == "unsure" ? 0u : 2u) << name;
            co_await s.expect(name, 0, std::vector<std::byte>(2 * mib));
        }
    });
}

COPIES_TEST(counting_what_shows_keeps_nobody_waiting) {
    m.live([](life& s) -> task<> {
        co_await s.make_store();
        co_await s.make_volume("v", 2'000'000);
        co_await s.make_volume("t", 2'000'000);
        co_await s.fill("lvs/v", 1'999'999 * cluster_blocks, 4096, 1);
        co_await s.call("bdev_lvol_snapshot", R"({"lvol_name": "lvs/v", "snapshot_name": "s"})");
        uint64_t id =
            co_await begin(s, "bdev_lvol_start_deep_copy", R"({"src_lvol_name": "lvs/s", "dst_bdev_name": "lvs/t"})");
        json::value soon = co_await s.call("bdev_lvol_check_deep_copy", fmt::format(R"({{"operation_id": {}}})", id));
        EXPECT_EQ(soon["total_clusters"], json::value(0)) << "it was counted before anybody had a turn";
        json::value end = co_await until_over(s, "bdev_lvol_check_deep_copy", id);
        EXPECT_EQ(end["state"], json::value("complete"));
        EXPECT_EQ(end["total_clusters"], json::value(1));
        EXPECT_EQ(end["processed_clusters"], json::value(1));
        co_await s.expect("lvs/t", 1'999'999 * cluster_blocks, bdev::pattern(4096, 1));
    });
}

COPIES_TEST(copies_all_that_shows) {
    m.live([](life& s) -> task<> {
        co_await make_two(s);
        co_await s.plug(life::disk_properties("to", 8 * mib));
        uint64_t id =
            co_await begin(s, "bdev_lvol_start_deep_copy", R"({"src_lvol_name": "lvs/high", "dst_bdev_name": "to"})");
        EXPECT_EQ(co_await s.code("bdev_lvol_check_shallow_copy", fmt::format(R"({{"operation_id": {}}})", id)), -19);
        json::value end = co_await until_over(s, "bdev_lvol_check_deep_copy", id);
        EXPECT_EQ(end["state"], json::value("complete"));
        EXPECT_EQ(end["processed_clusters"], json::value(3));
        co_await s.expect("to", 0, cluster_of(1));
        co_await s.expect("to", 2 * cluster_blocks, cluster_of(3));
    });
}

COPIES_TEST(refuses_copies_that_cannot_be) {
    m.live([](life& s) -> task<> {
        co_await make_two(s);
        co_await s.plug(life::disk_properties("small", 7 * mib));
        bdev::properties large_blocks = life::disk_properties("large", 8 * mib);
        large_blocks.block_size = 4096;
        large_blocks.num_blocks /= 8;
        co_await s.plug(large_blocks);
        auto copy = [&s](const char* from, const char* to) {
            return s.refusal("bdev_lvol_start_shallow_copy",
                             fmt::format(R"({{"src_lvol_name": "{}", "dst_bdev_name": "{}"}})", from, to));
        };
        EXPECT_EQ(co_await copy("lvs/no", "small"), "-19 No such device: there is no lvol bdev lvs/no");
        EXPECT_EQ((co_await copy("lvs/v", "small")).substr(0, 31), "-32602 Operation not permitted:");
        EXPECT_EQ((co_await copy("lvs/low", "no")).substr(0, 22), "-32602 No such device:");
        EXPECT_EQ((co_await copy("lvs/low", "small")).substr(0, 24), "-32602 Invalid argument:");
        EXPECT_EQ((co_await copy("lvs/low", "large")).substr(0, 24), "-32602 Invalid argument:");
        EXPECT_EQ(co_await s.code("bdev_lvol_start_range_shallow_copy",
                                  R"({"src_lvol_name": "lvs/low", "dst_bdev_name": "lvs/v", "clusters": [8]})"),
                  -32602);
        EXPECT_EQ((co_await copy("lvs/low", "disk")).substr(0, 31), "-32602 Operation not permitted:");
        for (std::string itself : {std::string("lvs/low"), s.find("lvs/low")->name()}) {
            std::string got = co_await copy("lvs/low", itself.c_str());
            EXPECT_EQ(got.substr(0, 31), "-32602 Operation not permitted:") << got;
        }
    });
}

COPIES_TEST(ends_a_copy_when_a_bdev_goes) {
    m.live([](life& s) -> task<> {
        co_await make_two(s);
        co_await s.plug(life::disk_properties("to", 8 * mib));
        const std::string params = R"({"src_lvol_name": "lvs/high", "dst_bdev_name": "to"})";
        uint64_t id = co_await begin(s, "bdev_lvol_start_shallow_copy", params);
        co_await s.unplug("to");
        json::value end = co_await until_over(s, "bdev_lvol_check_shallow_copy", id);
        if (end["state"] == json::value("error")) {
            EXPECT_EQ(end["error"].string()->substr(0, 14), "No such device");
        }
        co_await s.plug(life::disk_properties("to", 8 * mib));
        id = co_await begin(s, "bdev_lvol_start_shallow_copy", params);
        co_await s.unplug("disk");
        end = co_await until_over(s, "bdev_lvol_check_shallow_copy", id);
        EXPECT_EQ(s.find("lvs/high"), nullptr);
    });
}

COPIES_TEST(sums_snapshots) {
    m.live([](life& s) -> task<> {
        co_await make_two(s);
        const std::string high = R"({"name": "lvs/high"})", low = R"({"name": "lvs/low"})";
        EXPECT_EQ(co_await s.code("bdev_lvol_get_snapshot_checksum", high), -19);
        EXPECT_EQ(co_await s.refusal("bdev_lvol_register_snapshot_checksum", R"({"name": "lvs/v"})"),
                  "-32603 Operation not permitted: lvs/v is not a snapshot");
        co_await s.call("bdev_lvol_register_snapshot_checksum", low);
        EXPECT_EQ(co_await s.refusal("bdev_lvol_get_snapshot_range_checksums",
                                     R"({"name": "lvs/low", "cluster_start_index": 0, "cluster_count": 8})"),
                  "-19 No such device: no checksums of the clusters of lvs/low are registered");
        co_await s.call("bdev_lvol_register_snapshot_range_checksums", high);
        auto last = bdev::pattern(4096, 4);
        last.resize(mib);
        EXPECT_EQ((co_await s.call("bdev_lvol_get_snapshot_checksum", high))["checksum"],
                  json::value(slow_crc(last, slow_crc(cluster_of(3)))));
        EXPECT_EQ((co_await s.call("bdev_lvol_get_snapshot_checksum", low))["checksum"],
                  json::value(slow_crc(cluster_of(2), slow_crc(cluster_of(1)))));
        auto range = [&s](std::string indexes) {
            return s.call("bdev_lvol_get_snapshot_range_checksums", R"({"name": "lvs/high", )" + indexes + "}");
        };
        auto one = [](uint64_t index, uint64_t sum) {
            return json::value(json::object{{"cluster_index", index}, {"checksum", sum}});
        };
        EXPECT_EQ(co_await range(R"("cluster_start_index": 4, "cluster_count": 18446744073709551615)"),
                  json::value(json::array{one(4, 0), one(5, slow_crc(last)), one(6, 0), one(7, 0)}))
            << "what it does not have itself counts as 0, and there is nothing beyond its end";
        EXPECT_EQ(co_await range(R"("cluster_start_index": 4, "cluster_count": 1)"),
                  json::value(json::array{one(4, 0)}));
        EXPECT_EQ(co_await range(R"("cluster_start_index": 8, "cluster_count": 1)"), json::value(json::array{}));
        EXPECT_EQ(co_await s.code("bdev_lvol_stop_snapshot_checksum", high), -3) << "nothing to stop";
    });
    m.live([](life& s) -> task<> {
        co_await s.plug("disk");
        EXPECT_EQ((co_await s.call("bdev_lvol_get_snapshot_checksum", R"({"name": "lvs/low"})"))["checksum"],
                  json::value(slow_crc(cluster_of(2), slow_crc(cluster_of(1)))));
        co_await s.call("bdev_lvol_delete", R"({"name": "lvs/low"})");
        EXPECT_EQ(co_await s.code("bdev_lvol_get_snapshot_checksum", R"({"name": "lvs/high"})"), -19)
            << "it has more clusters now";
    });
}

COPIES_TEST(checks_a_store_while_it_serves) {
    m.live([](life& s) -> task<> {
        co_await make_two(s);
        json::value told = co_await s.call("bdev_lvol_check", R"({"lvs_name": "lvs"})");
        EXPECT_EQ(told["clean"], json::value(true));
        EXPECT_EQ(told["errors"], json::value(0));
        EXPECT_EQ(co_await s.code("bdev_lvol_check", R"({"lvs_name": "no"})"), -19);
        EXPECT_EQ(co_await s.code("bdev_lvol_check", "{}"), -22);
        json::value jobs = co_await s.call("job_get_jobs");
        EXPECT_EQ((*jobs.items())[0]["kind"], json::value("check"));
        EXPECT_EQ((*jobs.items())[0]["state"], json::value("complete"));
        EXPECT_EQ((*jobs.items())[0]["object"], json::value("lvs"));
    });
}

// A job of which four clusters are under way and the next waits for one of them to end: paused then, it begins no more.
task<> paused_when_all_hands_are_full(life& s, std::string kind) {
    kept_disk& d = s.disk();
    while (d.held() < 4) co_await yield();
    co_await life::pass_turns();
    EXPECT_EQ(d.held(), 4u);
    json::value job = co_await s.job(kind);
    const std::string this_job = fmt::format(R"({{"id": {}}})", *job["id"].unsigned_integer());
    co_await s.call("job_pause", this_job);
    d.let_go();
    for (int i = 0; i < 5; ++i) co_await life::pass_turns();
    EXPECT_EQ((co_await s.job(kind))["done"], json::value(4));
    EXPECT_EQ((co_await s.job(kind))["state"], json::value("paused"));
    co_await s.call("job_resume", this_job);
}

COPIES_TEST(a_paused_copy_begins_no_cluster) {
    m.live([](life& s) -> task<> {
        co_await s.make_store();
        co_await s.make_volume("v", 8);
        co_await s.fill("lvs/v", 0, 8 * mib, 1);
        co_await s.call("bdev_lvol_snapshot", R"({"lvol_name": "lvs/v", "snapshot_name": "s"})");
        co_await s.plug("other");
        s.disk().hold(bdev::op::read);
        const uint64_t id = co_await begin(s, "bdev_lvol_start_shallow_copy",
                                           R"({"src_lvol_name": "lvs/s", "dst_bdev_name": "other"})");
        co_await paused_when_all_hands_are_full(s, "shallow copy");
        json::value done = co_await until_over(s, "bdev_lvol_check_shallow_copy", id);
        EXPECT_EQ(done["state"], json::value("complete"));
        EXPECT_EQ(done["copied_clusters"], json::value(8));
    });
}

COPIES_TEST(a_paused_inflation_begins_no_cluster) {
    m.live([](life& s) -> task<> {
        co_await s.make_store();
        co_await s.make_volume("v", 8);
        co_await s.fill("lvs/v", 0, 8 * mib, 1);
        co_await s.call("bdev_lvol_snapshot", R"({"lvol_name": "lvs/v", "snapshot_name": "s"})");
        s.disk().hold(bdev::op::read);
        blob::crew asking;
        std::string answer;
        asking.start(s.ask("bdev_lvol_inflate", R"({"name": "lvs/v"})", answer));
        co_await paused_when_all_hands_are_full(s, "inflate");
        co_await asking.done();
        EXPECT_EQ(answer, "done");
    });
}

INSTANTIATE_TEST_SUITE_P(worlds, lvol_copies_test, thread::every_world(), thread::world_name);

// As with SPDK: whoever writes, and be it another copy, keeps a copy out; while one runs nobody else writes there.
COPIES_TEST(a_destination_has_one_writer) {
    m.live([](life& s) -> task<> {
        co_await make_two(s);
        co_await s.plug("to");
        const std::string params = R"({"src_lvol_name": "lvs/low", "dst_bdev_name": "to"})";
        bdev::descriptor writer = co_await s.open("to");
        EXPECT_EQ(co_await s.refusal("bdev_lvol_start_deep_copy", params),
                  "-32602 Operation not permitted: to is open for writing");
        writer.close();
        auto& to = static_cast<kept_disk&>(*s.bdevs.devices.find("to"));
        to.hold(bdev::op::write);
        uint64_t id = co_await begin(s, "bdev_lvol_start_deep_copy", params);
        EXPECT_FALSE(s.open("to").has_value());
        EXPECT_TRUE(s.bdevs.devices.open("to", bdev::open_mode::read_only, {}).has_value());
        EXPECT_EQ(co_await s.refusal("bdev_lvol_start_shallow_copy",
                                     R"({"src_lvol_name": "lvs/high", "dst_bdev_name": "to"})"),
                  "-32602 Operation not permitted: bdev to already claimed: type read_many_write_one by module lvol");
        while (to.held() == 0) co_await yield();
        to.let_go();
        EXPECT_EQ((co_await until_over(s, "bdev_lvol_check_deep_copy", id))["state"], json::value("complete"));
        EXPECT_TRUE(s.open("to").has_value());
    });
}

// Four clusters are under way, and perhaps one has had its turn and waits for them.
COPIES_TEST(a_copy_can_be_cancelled) {
    m.live([](life& s) -> task<> {
        co_await s.make_store();
        co_await s.make_volume("v", 8);
        co_await s.fill("lvs/v", 0, 8 * mib, 1);
        co_await s.call("bdev_lvol_set_read_only", R"({"name": "lvs/v"})");
        kept_disk& to = *co_await s.plug("to");
        to.hold(bdev::op::write);
        uint64_t id =
            co_await begin(s, "bdev_lvol_start_deep_copy", R"({"src_lvol_name": "lvs/v", "dst_bdev_name": "to"})");
        while (to.held() < 4) co_await yield();
        json::value job = co_await s.job("deep copy");
        EXPECT_EQ(job["object"], json::value("lvs/v to to"));
        co_await s.call("job_cancel", fmt::format(R"({{"id": {}}})", *job["id"].unsigned_integer()));
        to.let_go();
        json::value end = co_await until_over(s, "bdev_lvol_check_deep_copy", id);
        EXPECT_EQ(end["state"], json::value("error"));
        EXPECT_EQ(end["error"], json::value("Operation canceled"));
        EXPECT_LE(*end["processed_clusters"].unsigned_integer(), 5u);
        EXPECT_TRUE(s.open("to").has_value()) << "it is nobody's any more";
    });
}

// Cluster 2 is written there, 3 unmapped.
COPIES_TEST(a_copy_that_cannot_be_written_says_so) {
    m.live([](life& s) -> task<> {
        co_await make_two(s);
        kept_disk& to = *co_await s.plug("to");
        for (bdev::op refused : {bdev::op::write, bdev::op::unmap, bdev::op::flush}) {
            to.refuse(bdev::op_bit(refused));
            uint64_t id = co_await begin(s, "bdev_lvol_start_range_shallow_copy",
                                         R"({"src_lvol_name": "lvs/high", "dst_bdev_name": "to", "clusters": [2, 3]})");
            json::value end = co_await until_over(s, "bdev_lvol_check_shallow_copy", id);
            EXPECT_EQ(end["state"], json::value("error")) << bdev::name_of(refused);
            const std::string* why = end["error"].string();
            EXPECT_TRUE(why != nullptr && why->starts_with("Input/output error")) << bdev::name_of(refused);
        }
    });
}

}  // namespace
}  // namespace varve::modules::lvol
