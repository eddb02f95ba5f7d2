// Stores: made, found again, refused, gone.
#include "blob/format/page.h"
#include "modules/lvol/test_lvol.h"
#include "modules/lvol/volumes.h"
#include "thread/awaits.h"

namespace varve::modules::lvol {
namespace {

class lvol_stores_test : public thread::in_every_world {};
#define STORE_TEST(name) LVOL_TEST(lvol_stores_test, name)

STORE_TEST(makes_a_store_and_finds_it_again) {
    m.live([](life& s) -> task<> {
        std::string id = co_await s.make_store();
        json::value told = co_await s.store("lvs");
        EXPECT_EQ(told["uuid"], json::value(id));
        EXPECT_EQ(told["base_bdev"], json::value("disk"));
        EXPECT_EQ(told["cluster_size"], json::value(mib));
        EXPECT_EQ(told["block_size"], json::value(512));
        EXPECT_EQ(told["total_data_clusters"], told["free_clusters"]);
        EXPECT_EQ(told["total_data_clusters"], json::value(31));
        EXPECT_TRUE(told["max_growable_size"].unsigned_integer().has_value());
        EXPECT_EQ(co_await s.make_volume("thin", 8), *(co_await s.volume("thin"))["uuid"].string());
        co_await s.make_volume("thick", 3, false);
        EXPECT_EQ((co_await s.store("lvs"))["free_clusters"], json::value(28));
        co_await s.fill("lvs/thin", 2048, 4096, 7);
    });
    // Unloaded at the end: what it says on the disk of being in use is no.
    EXPECT_EQ(m.images["disk"][16], std::byte{1});
    m.live([](life& s) -> task<> {
        co_await s.plug("disk");
        EXPECT_EQ((co_await s.store("lvs"))["free_clusters"], json::value(27));
        co_await s.expect("lvs/thin", 2048, bdev::pattern(4096, 7));
        co_await s.expect("lvs/thin", 4096, std::vector<std::byte>(4096));
        EXPECT_EQ(s.find("lvs/thick")->num_blocks(), 3 * mib / 512);
        EXPECT_EQ(co_await s.code("bdev_lvol_delete_lvstore", R"({"lvs_name": "lvs"})"), 0);
        EXPECT_EQ(s.find("lvs/thin"), nullptr);
        EXPECT_TRUE(s.open("disk").has_value());
    });
    m.live([](life& s) -> task<> {
        co_await s.plug("disk");
        EXPECT_TRUE((co_await s.store("lvs")).is_null());
    });
}

STORE_TEST(making_one_can_be_refused) {
    m.live([](life& s) -> task<> {
        co_await s.plug("disk");
        auto refused = [](life& l, std::string params) {
            return l.refusal("bdev_lvol_create_lvstore", "{" + params + "}");
        };
        EXPECT_TRUE((co_await refused(s, R"("bdev_name": "no", "lvs_name": "lvs")")).starts_with("-19 No such device"));
        EXPECT_TRUE(
            (co_await refused(s, R"("bdev_name": "disk", "lvs_name": "")")).starts_with("-22 Invalid argument"));
        for (std::string more : {R"("cluster_sz": 1000)", R"("md_page_size": 5000)", R"("md_page_size": 131072)"}) {
            std::string got = co_await refused(s, R"("bdev_name": "disk", "lvs_name": "lvs", )" + more);
            EXPECT_TRUE(got.starts_with("-22 Invalid argument")) << more << got;
        }
        EXPECT_TRUE((co_await refused(s, R"("bdev_name": "disk", "lvs_name": "lvs", "cluster_sz": 512)"))
                        .starts_with("-32602 Invalid argument"));
        EXPECT_TRUE((co_await refused(s, R"("bdev_name": "disk", "lvs_name": "lvs", "clear_method": "UNMAP")"))
                        .starts_with("-32602 "));
        EXPECT_TRUE((co_await refused(s, R"("bdev_name": "disk", "lvs_name": "lvs", "clear_method": "so so")"))
                        .starts_with("-32602 "));
        EXPECT_EQ(co_await refused(s, R"("bdev_name": "disk", "lvs_name": "lvs")"), "done");
        EXPECT_TRUE(
            (co_await refused(s, R"("bdev_name": "disk", "lvs_name": "x")")).starts_with("-1 Operation not permitted"));
        co_await s.plug("second");
        EXPECT_TRUE(
            (co_await refused(s, R"("bdev_name": "second", "lvs_name": "lvs")")).starts_with("-17 File exists"));
        for (std::string clear : {"none", "write_zeroes", "unmap"}) {
            EXPECT_EQ(co_await refused(s, R"("bdev_name": "second", "lvs_name": "two", "cluster_sz": 65536, )"
                                          R"("clear_method": ")" +
                                              clear + R"(", "md_page_size": 8192)"),
                      "done");
            EXPECT_EQ(co_await s.code("bdev_lvol_delete_lvstore", R"({"lvs_name": "two"})"), 0);
        }
        EXPECT_EQ(co_await s.code("bdev_lvol_delete_lvstore", R"({"lvs_name": "two"})"), -19);
        EXPECT_EQ(co_await s.code("bdev_lvol_delete_lvstore"), -22);
        EXPECT_EQ(co_await s.code("bdev_lvol_get_lvstores", R"({"uuid": "what"})"), -19);
    });
}

// SPDK's codes and texts: no cluster, or no metadata page, is an invalid argument; metadata without room is no memory.
STORE_TEST(a_device_may_be_too_small_for_a_store) {
    m.live([](life& s) -> task<> {
        co_await s.plug(life::disk_properties("small", mib));
        auto refused = [](life& l, std::string more) {
            return l.refusal("bdev_lvol_create_lvstore", R"({"bdev_name": "small", "lvs_name": "lvs")" + more + "}");
        };
        std::string got = co_await refused(s, "");
        EXPECT_EQ(got, "-32602 Invalid argument: bdev small has 1048576 bytes, less than a cluster of 4194304");
        got = co_await refused(s, R"(, "cluster_sz": 65536, "num_md_pages_per_cluster_ratio": 5)");
        EXPECT_TRUE(got.starts_with("-32602 Invalid argument: ")) << got;
        for (std::string more :
             {R"(, "cluster_sz": 4096)", R"(, "cluster_sz": 65536, "num_md_pages_per_cluster_ratio": 4294967295)"}) {
            got = co_await refused(s, more);
            EXPECT_TRUE(got.starts_with("-32602 Cannot allocate memory: ")) << got;
        }
        EXPECT_TRUE(s.open("small").has_value());
        EXPECT_EQ(co_await refused(s, R"(, "cluster_sz": 1048576)"), "done");
    });
}

// What somebody writes already is not ours to take.
STORE_TEST(a_bdev_in_use_is_no_base) {
    m.live([](life& s) -> task<> {
        co_await s.plug("disk");
        bdev::descriptor writer = co_await s.open("disk");
        EXPECT_TRUE((co_await s.refusal("bdev_lvol_create_lvstore", R"({"bdev_name": "disk", "lvs_name": "lvs"})"))
                        .starts_with("-1 Operation not permitted"));
        writer.close();
        EXPECT_EQ(co_await s.code("bdev_lvol_create_lvstore", R"({"bdev_name": "disk", "lvs_name": "lvs"})"), 0);
        EXPECT_FALSE(s.open("disk").has_value());
    });
}

STORE_TEST(renaming_a_store_renames_every_alias) {
    m.live([](life& s) -> task<> {
        co_await s.make_store();
        std::string id = co_await s.make_volume("a", 1);
        co_await s.make_volume("b", 1);
        auto rename = [](life& l, std::string from, std::string to) {
            return l.refusal("bdev_lvol_rename_lvstore",
                             R"({"old_name": ")" + from + R"(", "new_name": ")" + to + R"("})");
        };
        EXPECT_TRUE((co_await rename(s, "no", "x")).starts_with("-2 Lvol store no not found"));
        EXPECT_EQ(co_await rename(s, "lvs", "lvs"), "done");
        co_await s.bdevs.add({.name = "taken/b", .num_blocks = 64});
        EXPECT_TRUE((co_await rename(s, "lvs", "taken")).starts_with("-32602 File exists"));
        EXPECT_EQ(s.find("taken/a"), nullptr);
        EXPECT_EQ(co_await rename(s, "lvs", "new"), "done");
        EXPECT_EQ(s.find("lvs/a"), nullptr);
        EXPECT_EQ(s.find("new/a"), s.find(id));
        EXPECT_EQ(s.find(id)->props().aliases, std::vector<std::string>{"new/a"});
        co_await s.plug("second");
        co_await s.call("bdev_lvol_create_lvstore", R"({"bdev_name": "second", "lvs_name": "other"})");
        EXPECT_TRUE((co_await rename(s, "other", "new")).starts_with("-32602 File exists"));
        EXPECT_EQ(co_await rename(s, "other", std::string(200, 'o')), "done");
    });
    m.live([](life& s) -> task<> {
        co_await s.plug("disk");
        co_await s.plug("second");
        EXPECT_NE(s.find("new/b"), nullptr);
        EXPECT_FALSE((co_await s.store(std::string(200, 'o'))).is_null());
    });
}

STORE_TEST(a_clash_of_names_loses_nothing) {
    m.live([](life& s) -> task<> {
        co_await s.make_store();
        co_await s.make_volume("vol", 1);
        co_await s.fill("lvs/vol", 0, 512, 1);
    });
    m.images["other"] = std::exchange(m.images["disk"], {});
    m.live([](life& s) -> task<> {
        co_await s.make_store();
        co_await s.make_volume("mine", 1);
    });
    const disk_image before = m.images["other"];
    m.live([](life& s) -> task<> {
        co_await s.plug("disk");
        co_await s.plug("other");
        EXPECT_EQ((co_await s.call("bdev_lvol_get_lvstores")).items()->size(), 1u);
        EXPECT_NE(s.lines.find("is not opened: File exists: lvstore lvs"), std::string::npos) << s.lines;
        EXPECT_TRUE((co_await s.refusal("bdev_lvol_import_lvstore", R"({"bdev_name": "other"})"))
                        .starts_with("-17 File exists: lvstore lvs"));
    });
    EXPECT_TRUE(m.images["other"] == before);
    m.live([](life& s) -> task<> {
        co_await s.plug("disk");
        co_await s.plug("other");
        EXPECT_EQ(co_await s.code("bdev_lvol_import_lvstore", R"({"bdev_name": "other", "lvs_name": "found"})"), 0);
        co_await s.expect("found/vol", 0, bdev::pattern(512, 1));
        EXPECT_NE(s.find("lvs/mine"), nullptr);
        EXPECT_EQ(co_await s.code("bdev_lvol_import_lvstore", R"({"bdev_name": "other"})"), -1);
        EXPECT_EQ(co_await s.code("bdev_lvol_import_lvstore", R"({"bdev_name": "none"})"), -19);
        co_await s.plug("empty");
        EXPECT_EQ(co_await s.code("bdev_lvol_import_lvstore", R"({"bdev_name": "empty"})"), -84);
    });
    m.live([](life& s) -> task<> {
        co_await s.plug("other");
        co_await s.plug("disk");
        EXPECT_NE(s.find("found/vol"), nullptr);
        EXPECT_NE(s.find("lvs/mine"), nullptr);
    });
    m.images["twin"] = m.images["disk"];  // another name would not help: its volumes have the same uuids
    m.live([](life& s) -> task<> {
        co_await s.plug("disk");
        co_await s.plug("twin");
        EXPECT_TRUE((co_await s.refusal("bdev_lvol_import_lvstore", R"({"bdev_name": "twin", "lvs_name": "t"})"))
                        .starts_with("-17 File exists"));
    });
}

// The client asks for it before it was looked at.
STORE_TEST(a_bdev_that_has_just_appeared_can_be_imported_under_another_name) {
    m.live([](life& s) -> task<> { co_await s.make_store(); });
    m.images["other"] = m.images["disk"];
    m.live([](life& s) -> task<> {
        co_await s.plug("taken");
        co_await s.call("bdev_lvol_create_lvstore", R"({"bdev_name": "taken", "lvs_name": "lvs"})");
        co_await s.bdevs.devices.add(std::make_unique<kept_disk>(life::disk_properties("other"), s.images["other"]));
        EXPECT_EQ(co_await s.refusal("bdev_lvol_import_lvstore", R"({"bdev_name": "other", "lvs_name": "found"})"),
                  "done");
        EXPECT_EQ((co_await s.store("found"))["base_bdev"], json::value("other"));
    });
}

// What was on the device is cleared by a job: it can be watched, and ended.
STORE_TEST(clearing_a_device_for_a_store_can_be_cancelled) {
    m.live([](life& s) -> task<> {
        kept_disk& d = *co_await s.plug(life::disk_properties("disk", 96 * mib));
        const std::string make =
            R"({"bdev_name": "disk", "lvs_name": "lvs", "cluster_sz": 1048576, "clear_method": "write_zeroes"})";
        blob::crew asking;
        std::string answer;
        asking.start(s.ask("bdev_lvol_create_lvstore", make, answer));
        json::value job;
        for (d.hold(bdev::op::unmap); job.is_null() && answer.empty(); job = co_await s.job("create")) {
            d.let_go();  // what the store's own regions need
            d.hold(bdev::op::unmap);
            co_await yield();
        }
        EXPECT_EQ(job["object"], json::value("lvs"));
        EXPECT_EQ(job["total"], json::value(95));
        co_await s.call("job_cancel", fmt::format(R"({{"id": {}}})", *job["id"].unsigned_integer()));
        d.let_go();
        co_await asking.done();
        EXPECT_TRUE(answer.starts_with("-32602 Operation canceled")) << answer;
        EXPECT_EQ(d.blocks[0], std::byte{}) << "no store";
        EXPECT_EQ(co_await s.refusal("bdev_lvol_create_lvstore", make), "done");
    });
}

// Two copies of a store, each to be opened under another name: the second finds out before it has written its own.
STORE_TEST(a_store_that_is_not_opened_keeps_its_name) {
    m.live([](life& s) -> task<> {
        co_await s.make_store();
        co_await s.make_volume("vol", 1);
    });
    m.images["copy"] = m.images["disk"];
    const disk_image before = m.images["copy"];
    m.live([](life& s) -> task<> {
        co_await s.plug("taken");
        co_await s.call("bdev_lvol_create_lvstore", R"({"bdev_name": "taken", "lvs_name": "lvs"})");
        kept_disk* d = co_await s.plug("disk");
        co_await s.plug("copy");
        auto import = [&s](std::string bdev, std::string name) {
            return s.refusal("bdev_lvol_import_lvstore",
                             fmt::format(R"({{"bdev_name": "{}", "lvs_name": "{}"}})", bdev, name));
        };
        d->hold(bdev::op::write);
        blob::crew asking;
        std::string answer;
        asking.start(s.ask("bdev_lvol_import_lvstore", R"({"bdev_name": "disk", "lvs_name": "found"})", answer));
        while (d->held() == 0) co_await yield();
        for (auto name : {"found", "other"}) {
            EXPECT_TRUE((co_await import("copy", name)).starts_with("-17 File exists")) << name;
        }
        EXPECT_EQ(co_await s.code("bdev_lvol_rename_lvstore", R"({"old_name": "lvs", "new_name": "found"})"), -32602);
        d->let_go();
        co_await asking.done();
        EXPECT_EQ(answer, "done");
        EXPECT_NE(s.find("found/vol"), nullptr);
        EXPECT_TRUE((co_await import("copy", "other")).starts_with("-17 File exists"));
    });
    EXPECT_TRUE(m.images["copy"] == before);
}

// A volume's names may be taken by another bdev: it has none then, and gets one when it is renamed or found again.
STORE_TEST(a_volume_whose_alias_is_taken_waits) {
    m.live([](life& s) -> task<> {
        co_await s.make_store();
        co_await s.make_volume("a", 1);
        co_await s.make_volume("b", 1);
    });
    m.live([](life& s) -> task<> {
        co_await s.bdevs.add({.name = "lvs/a", .num_blocks = 64});
        co_await s.plug("disk");
        json::value told = co_await s.volume("a");
        EXPECT_EQ(told["is_degraded"], json::value(true));
        EXPECT_EQ(told["degraded_reason"], json::value("File exists: bdev name lvs/a already exists"));
        EXPECT_NE(s.lines.find("lvol lvs/a"), std::string::npos);
        EXPECT_NE(s.find("lvs/b"), nullptr);
        std::string id = *told["uuid"].string();
        EXPECT_EQ(co_await s.code("bdev_lvol_rename", R"({"old_name": ")" + id + R"(", "new_name": "c"})"), 0);
        EXPECT_EQ(s.find("lvs/c"), s.find(id));
        EXPECT_EQ((co_await s.volume("c"))["is_degraded"], json::value(false));
    });
}

// A store that died, and of which it cannot be known what a volume has: nothing is given to others, and it is said why.
STORE_TEST(tells_why_nothing_is_free) {
    m.live([](life& s) -> task<> {
        co_await s.make_store();
        co_await s.make_volume("thick", 3, false);
        disk_image& crashed = s.images["crashed"] = s.disk().blocks;
        auto page = [&](std::size_t number) { return std::span(crashed).subspan(number * 4096).first<4096>(); };
        for (std::size_t i = 1; i < 256; ++i) {  // of the first cluster
            const auto header = blob::format::header_of(page(i));
            const bool extents = blob::format::crc_right(page(i)) && page(i)[16] == std::byte{6};
            if (extents && blob::format::is_blob_id(header.id)) std::ranges::fill(page(i), std::byte{0x55});
        }
    });
    m.live([](life& s) -> task<> {
        co_await s.plug(life::disk_properties("disk"), "crashed");
        EXPECT_EQ((co_await s.store("lvs"))["free_clusters"], json::value(0));
        const std::string why = "31 clusters without a known owner are not free";
        EXPECT_TRUE((co_await s.store("lvs"))["degraded_reason"].string()->starts_with(why));
        EXPECT_NE(s.lines.find("lvstore lvs: " + why), std::string::npos) << s.lines;
        EXPECT_EQ(co_await s.code("bdev_lvol_delete", R"({"name": "lvs/thick"})"), 0);
        EXPECT_TRUE((co_await s.store("lvs"))["degraded_reason"].is_null());
    });
}

STORE_TEST(the_base_may_go_under_load) {
    m.live([](life& s) -> task<> {
        co_await s.make_store();
        co_await s.make_volume("vol", 8);
        bool told = false, over = false;
        bdev::descriptor opened = co_await s.bdevs.devices.open(
            "lvs/vol", bdev::open_mode::read_write,
            [&](bdev::device_event e) { told = told || e == bdev::device_event::removed; });
        bdev::channel_ref c = opened.channel();
        auto block = bdev::pattern(512, 1);
        std::vector<std::unique_ptr<bdev::pending>> writes;
        for (uint64_t i = 0; i < 64; ++i) {
            writes.push_back(std::make_unique<bdev::pending>(bdev::op::write, i * 256, 1));
            writes.back()->data(block).go(*c);
        }
        gate all;
        auto go = [](life& l, bool& done) -> task<> {
            co_await l.unplug("disk");
            done = true;
        };
        all.spawn(go(s, over), [](const error&) {});
        int method = co_await s.code("bdev_lvol_snapshot", R"({"lvol_name": "lvs/vol", "snapshot_name": "x"})");
        EXPECT_NE(method, 1);
        for (auto& w : writes) co_await w->over.wait();
        while (!told) co_await yield();
        c = {};
        opened.close();
        co_await all.close();
        EXPECT_TRUE(over);
        EXPECT_TRUE((co_await s.store("lvs")).is_null());
        EXPECT_EQ(s.find("lvs/vol"), nullptr);
        co_await s.plug("disk");
        EXPECT_NE(s.find("lvs/vol"), nullptr);
        co_await s.unplug("disk");
    });
    m.live([](life& s) -> task<> {
        co_await s.plug("disk");
        EXPECT_NE(s.find("lvs/vol"), nullptr);
    });
}

STORE_TEST(nothing_is_lost_when_the_base_is_deleted) {
    m.live([](life& s) -> task<> {
        co_await s.make_store();
        co_await s.make_volume("vol", 8);
        {
            bdev::descriptor opened = co_await s.open("lvs/vol");
            bdev::channel_ref c = opened.channel();
            co_await bdev::write(*c, 5 * 2048, bdev::pattern(4096, 1));
        }
        co_await s.unplug("disk");
        co_await s.plug("disk");
        co_await s.expect("lvs/vol", 5 * 2048, bdev::pattern(4096, 1));
        volume* v = volume::of(s.bdevs.devices.find("lvs/vol"));
        EXPECT_TRUE(v->owner().blobs().super().clean) << "it was not unloaded";
    });
}

// Its own blob, that is, with its name and uuid. `pages`: what is done to the root page of that.
task<> damage_the_name(life& s, void (*pages)(std::span<std::byte>)) {
    const blob::store& b = volume::of(s.bdevs.devices.find("lvs/vol"))->owner().blobs();
    const uint64_t at = b.geometry().offset_of_md_page(blob::format::root_page_of(b.super_blob()));
    co_await s.unplug("disk");
    pages(std::span(s.images["disk"]).subspan(at, blob::format::page_size));
    co_await s.plug("disk");
}

STORE_TEST(the_volumes_are_served_when_the_name_of_their_store_is_lost) {
    m.live([](life& s) -> task<> {
        const std::string id = co_await s.make_store();
        co_await s.make_volume("vol", 4);
        co_await s.fill("lvs/vol", 0, 512, 1);
        co_await damage_the_name(s, [](std::span<std::byte> page) { page[100] ^= std::byte{4}; });
        json::value one_bit = co_await s.store("lvs");
        EXPECT_EQ(one_bit["uuid"], json::value(id));
        EXPECT_NE(one_bit["degraded_reason"], json::value()) << "nobody is told";
        co_await s.expect("lvs/vol", 0, bdev::pattern(512, 1));
        co_await damage_the_name(s, [](std::span<std::byte> page) { std::ranges::fill(page, std::byte{0x77}); });
        json::value all_of_it = co_await s.store("lvs_disk");
        EXPECT_NE(all_of_it["degraded_reason"], json::value()) << "nobody is told";
        co_await s.expect("lvs_disk/vol", 0, bdev::pattern(512, 1));
        EXPECT_EQ(co_await s.code("bdev_lvol_rename_lvstore", R"({"old_name": "lvs_disk", "new_name": "again"})"), 0);
        EXPECT_EQ((co_await s.store("again"))["degraded_reason"], json::value());
        co_await s.unplug("disk");
        co_await s.plug("disk");
        json::value renamed = co_await s.store("again");
        EXPECT_EQ(renamed["uuid"], all_of_it["uuid"]);
        EXPECT_EQ(renamed["degraded_reason"], json::value());
        co_await s.expect("again/vol", 0, bdev::pattern(512, 1));
        EXPECT_EQ((co_await s.call("bdev_lvol_get_lvols")).items()->size(), 1u);
    });
}

// A new name for such a store is a new blob: when the device fails meanwhile, it is no volume.
// Not even made, it would be to whoever takes a volume that cannot be read for one without clusters.
STORE_TEST(a_store_whose_name_and_only_volume_are_damaged_is_there) {
    m.live([](life& s) -> task<> {
        co_await s.make_store();
        co_await s.make_volume("vol", 4);
        co_await s.fill("lvs/vol", 0, 512, 1);
        const blob::store& b = volume::of(s.bdevs.devices.find("lvs/vol"))->owner().blobs();
        disk_image& crashed = s.images["crashed"] = s.disk().blocks;
        const uint32_t round = b.super().extension->double_write.header_page(0);  // it would mend them
        std::ranges::fill(std::span(crashed).subspan(b.geometry().offset_of_md_page(round), blob::format::page_size),
                          std::byte{});
        for (blob::blob_id id : b.blobs()) {
            auto root = std::span(crashed).subspan(b.geometry().offset_of_md_page(blob::format::root_page_of(id)),
                                                   blob::format::page_size);
            if (id == b.super_blob()) {
                std::ranges::fill(root, std::byte{});
            } else {
                std::ranges::fill(root.subspan(64), std::byte{0x77});
            }
        }
    });
    m.live([](life& s) -> task<> {
        co_await s.plug(life::disk_properties("disk"), "crashed");
        EXPECT_EQ((co_await s.store("lvs_disk"))["name"], json::value("lvs_disk")) << s.lines;
    });
}

STORE_TEST(a_name_that_could_not_be_written_is_no_volume) {
    m.live([](life& s) -> task<> {
        co_await s.make_store();
        co_await s.make_volume("vol", 4);
        co_await damage_the_name(s, [](std::span<std::byte> page) { std::ranges::fill(page, std::byte{0x77}); });
        co_await s.unplug("disk");
    });
    unsigned refused = 0;
    for (unsigned allowed = 0; allowed < 16; ++allowed) {
        SCOPED_TRACE(allowed);
        m.images["try"] = m.images["disk"];
        unsigned number = allowed;
        auto rename = [](life& s, unsigned& n) -> task<> {
            kept_disk& d = *co_await s.plug(life::disk_properties("disk"), "try");
            d.refuse_one_after(bdev::op::write, n);
            n = co_await s.code("bdev_lvol_rename_lvstore", R"({"old_name": "lvs_disk", "new_name": "again"})") == 0;
        };
        m.live(rename, number);
        refused += number == 0;
        auto load = [](life& s, unsigned& n) -> task<> {
            co_await s.plug(life::disk_properties("disk"), "try");
            const std::string name = n != 0 ? "again" : "lvs_disk";
            EXPECT_EQ((co_await s.store(name))["name"], json::value(name));
            // What the old name was in may stay as a volume that cannot be opened.
            EXPECT_LE((co_await s.call("bdev_lvol_get_lvols")).items()->size(), 1 + n);
        };
        m.live(load, number);
    }
    EXPECT_GT(refused, 0u);
}

STORE_TEST(a_store_grows_with_its_base) {
    m.live([](life& s) -> task<> {
        co_await s.make_store();
        co_await s.make_volume("vol", 4);
        co_await s.fill("lvs/vol", 0, 512, 1);
    });
    m.images["disk"].resize(48 * mib);
    m.live([](life& s) -> task<> {
        co_await s.plug(life::disk_properties("disk", 48 * mib));
        EXPECT_EQ((co_await s.store("lvs"))["total_data_clusters"], json::value(31));
        EXPECT_EQ(co_await s.code("bdev_lvol_grow_lvstore", R"({"lvs_name": "lvs"})"), 0);
        EXPECT_EQ((co_await s.store("lvs"))["total_data_clusters"], json::value(47));
        EXPECT_EQ(co_await s.code("bdev_lvol_grow_lvstore", R"({"lvs_name": "lvs"})"), 0);
        co_await s.make_volume("large", 40, false);
        EXPECT_EQ(co_await s.code("bdev_lvol_grow_lvstore", R"({"lvs_name": "no"})"), -19);
        EXPECT_EQ(co_await s.code("bdev_lvol_grow_lvstore"), -22);
    });
    m.live([](life& s) -> task<> {
        co_await s.plug(life::disk_properties("disk", 48 * mib));
        EXPECT_NE(s.find("lvs/large"), nullptr);
        co_await s.expect("lvs/vol", 0, bdev::pattern(512, 1));
    });
}

// A store on a volume of another store: the inner one ends first.
STORE_TEST(stores_may_lie_in_stores) {
    m.live([](life& s) -> task<> {
        co_await s.make_store();
        co_await s.make_volume("outer", 16);
        EXPECT_EQ(co_await s.code("bdev_lvol_create_lvstore",
                                  R"({"bdev_name": "lvs/outer", "lvs_name": "in", "cluster_sz": 1048576})"),
                  0);
        co_await s.call("bdev_lvol_create", R"({"lvs_name": "in", "lvol_name": "vol", "size_in_mib": 4})");
        co_await s.fill("in/vol", 0, 4096, 5);
    });
    EXPECT_EQ(m.images["disk"][16], std::byte{1});
    m.live([](life& s) -> task<> {
        co_await s.plug("disk");
        co_await s.expect("in/vol", 0, bdev::pattern(4096, 5));
        EXPECT_EQ(co_await s.code("bdev_lvol_delete_lvstore", R"({"lvs_name": "lvs"})"), 0);
        EXPECT_TRUE((co_await s.call("bdev_lvol_get_lvstores")).items()->empty());
    });
}

STORE_TEST(what_is_no_store_is_left_alone) {
    m.live([](life& s) -> task<> { co_await s.make_store(); });
    m.images["bent"] = m.images["disk"];
    m.images["bent"][100] ^= std::byte{3};  // under the checksum
    m.live([](life& s) -> task<> {
        co_await s.plug("bent");
        EXPECT_NE(s.lines.find("lvstore on bdev bent is not opened: Unexpected contents: super block: crc"),
                  std::string::npos)
            << s.lines;
        EXPECT_TRUE(s.open("bent").has_value());
        s.lines.clear();
        auto p = life::disk_properties("tiny", 2048);
        co_await s.plug(p);
        p = life::disk_properties("meta");
        p.block_size = 520;
        p.metadata_size = 8;
        p.metadata_interleaved = true;
        p.num_blocks = 64;
        co_await s.plug(p);
        EXPECT_EQ(s.lines, "");
        EXPECT_EQ(co_await s.code("bdev_lvol_create_lvstore", R"({"bdev_name": "meta", "lvs_name": "x"})"), -22);
    });
}

TEST_P(lvol_stores_test, a_thousand_volumes_are_all_there) {
    machine m(GetParam());
    m.live([](life& s) -> task<> {
        co_await s.plug("disk");
        co_await s.call("bdev_lvol_create_lvstore", R"({"bdev_name": "disk", "lvs_name": "lvs", "cluster_sz": 8192})");
        for (int i = 0; i < 1000; ++i) co_await s.make_volume(fmt::format("v{}", i), 1);
    });
    m.live([](life& s) -> task<> {
        co_await s.plug("disk");
        for (int i = 0; i < 1000; ++i) EXPECT_NE(s.find(fmt::format("lvs/v{}", i)), nullptr) << i;
        EXPECT_EQ((co_await s.call("bdev_lvol_get_lvols")).items()->size(), 1000u);
    });
}

INSTANTIATE_TEST_SUITE_P(worlds, lvol_stores_test, thread::every_world(), thread::world_name);

}  // namespace
}  // namespace varve::modules::lvol
