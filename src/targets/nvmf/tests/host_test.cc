// The target as a host sees it: a whole host in the same process, and the administrator changing things meanwhile.
#include <fmt/format.h>

#include <algorithm>

#include "nvme/host/discovery.h"
#include "targets/nvmf/tests/test_system.h"

namespace varve::targets::nvmf {
namespace {

using nvme::status;
using nvme::host::block_command;
using nvme::host::controller;

class nvmf_host : public thread::in_every_world {};
INSTANTIATE_TEST_SUITE_P(worlds, nvmf_host, thread::every_world(), thread::world_name);

// Everything through one queue, with the digests asked for.
task<> works(test_system& s, bool header_digest, bool data_digest) {
    co_await s.start();
    test_disk* disk = co_await s.export_disk({});
    auto options = s.host();
    options.tcp.header_digest = header_digest;
    options.tcp.data_digest = data_digest;
    auto c = co_await controller::connect(options);
    auto q = co_await c->open_queue();
    const nvme::host::ns ns = *c->find(1);
    for (std::size_t size :
         {std::size_t{512}, std::size_t{4096}, std::size_t{8192}, std::size_t{131072}, std::size_t{400 * 512}}) {
        auto data = pattern(size, static_cast<uint32_t>(size));
        std::vector<std::byte> back(size);
        co_await ns.write(*q, 3, data);
        EXPECT_EQ(std::memcmp(disk->blocks.data() + 3 * 512, data.data(), size), 0);
        co_await ns.read(*q, 3, back);
        EXPECT_EQ(back, data);
        co_await ns.compare(*q, 3, data);
        back[size - 1] ^= std::byte{1};
        EXPECT_FALSE(co_await as_result(ns.compare(*q, 3, back)));
    }
    co_await ns.flush(*q);
    EXPECT_EQ(disk->times(bdev::op::flush), 1u);
    co_await ns.write_zeroes(*q, 4, 2);
    EXPECT_EQ(disk->blocks[4 * 512 + 700], std::byte{0});
    nvme::dsm_range ranges[2] = {{.blocks = 1, .slba = 9}, {.blocks = 2, .slba = 20}};
    co_await ns.deallocate(*q, ranges);
    EXPECT_EQ(disk->times(bdev::op::unmap), 2u);

    auto old = pattern(512, 1), fresh = pattern(512, 2);
    co_await ns.write(*q, 100, old);
    co_await ns.compare_and_write(*q, 100, old, fresh);
    EXPECT_FALSE(co_await as_result(ns.compare_and_write(*q, 100, old, old)));
    EXPECT_EQ(std::memcmp(disk->blocks.data() + 100 * 512, fresh.data(), 512), 0);

    nvme::copy_range source{};
    source.slba = 100;
    nvme::sqe copy{};
    copy.opcode = nvme::raw(nvme::nvm_opcode::copy);
    copy.nsid = 1;
    copy.set_slba(200);
    EXPECT_EQ(co_await status_of(*q, copy, std::as_writable_bytes(std::span(&source, 1))), status::success);
    EXPECT_EQ(std::memcmp(disk->blocks.data() + 200 * 512, fresh.data(), 512), 0);
    co_await c->close_queue(std::move(q));
    co_await c->disconnect();
}
TEST_IN_WORLDS(nvmf_host, reads_and_writes) {
    test_system(GetParam()).run([](test_system& s) { return works(s, false, false); });
}
TEST_P(nvmf_host, reads_and_writes_with_digests) {
    for (bool header : {false, true})
        for (bool data : {false, true})
            test_system(GetParam()).run([=](test_system& s) { return works(s, header, data); });
}

// What a device answers, and what a host asks wrongly.
task<> tells_errors(test_system& s) {
    co_await s.start();
    test_disk* disk = co_await s.export_disk({.num_blocks = 1000});
    auto c = co_await s.connect();
    auto q = co_await c->open_queue();
    std::vector<std::byte> block(512);
    using nvme::nvm_opcode;
    auto asked = [&](nvm_opcode o, uint32_t nsid, uint64_t lba) {
        return status_of(*q, block_command(o, nsid, lba, 1), block);
    };
    EXPECT_EQ(co_await asked(nvm_opcode::read, 2, 0), status::invalid_namespace_or_format);
    EXPECT_EQ(co_await asked(nvm_opcode::read, 0, 0), status::invalid_namespace_or_format);
    EXPECT_EQ(co_await asked(nvm_opcode::read, nvme::nsid_all, 0), status::invalid_namespace_or_format);
    EXPECT_EQ(co_await asked(nvm_opcode::read, 1, 1000), status::lba_out_of_range);
    EXPECT_EQ(co_await asked(nvm_opcode::write, 1, UINT64_MAX), status::lba_out_of_range);
    EXPECT_EQ(co_await status_of(*q, block_command(nvm_opcode::read, 1, 0, 2), block), status::data_sgl_length_invalid);
    EXPECT_EQ(co_await asked(static_cast<nvm_opcode>(0x7d), 1, 0), status::invalid_opcode);
    struct {
        bdev::status from;
        status read, write;
    } const answers[] = {
        {bdev::status::media_error, status::unrecovered_read_error, status::write_fault},
        {bdev::status::no_space, status::capacity_exceeded, status::capacity_exceeded},
        {bdev::status::read_only, status::namespace_write_protected, status::namespace_write_protected},
        {bdev::status::aborted, status::aborted_by_request, status::aborted_by_request},
        {bdev::status::conflict, status::reservation_conflict, status::reservation_conflict},
        {bdev::status::failed, status::internal_error, status::internal_error},
    };
    for (auto& a : answers) {
        disk->fail(bdev::op::read, a.from);
        disk->fail(bdev::op::write, a.from);
        EXPECT_EQ(co_await asked(nvm_opcode::read, 1, 0), a.read);
        EXPECT_EQ(co_await asked(nvm_opcode::write, 1, 0), a.write);
    }
    disk->fail(bdev::op::read, bdev::status::ok);
    EXPECT_EQ(co_await asked(nvm_opcode::read, 1, 999), status::success);
    co_await c->close_queue(std::move(q));
    co_await c->disconnect();
}
TEST_IN_WORLDS(nvmf_host, is_told_errors) { test_system(GetParam()).run(tells_errors); }

task<> sees_changes(test_system& s) {
    co_await s.start();
    auto c = co_await s.connect();
    unsigned changes = 0;
    c->on_namespaces_changed([&] { ++changes; });
    test_disk* disk = co_await s.export_disk({.name = "d0"}, 3);
    co_await s.until([&] { return c->find(3) != nullptr; }, "the namespace to be seen");
    co_await s.devices.resize(*disk, 1024);
    co_await s.until([&] { return c->find(3)->blocks == 1024; }, "its new size to be seen");
    auto q = co_await c->open_queue();
    std::vector<std::byte> block(512);
    EXPECT_EQ(co_await status_of(*q, block_command(nvme::nvm_opcode::read, 3, 1024, 1), block),
              status::lba_out_of_range);
    co_await s.call("nvmf_subsystem_remove_ns", s.with_nqn(R"("nsid": 3)"));
    co_await s.until([&] { return c->find(3) == nullptr; }, "its end to be seen");
    EXPECT_EQ(co_await status_of(*q, block_command(nvme::nvm_opcode::read, 3, 0, 1), block),
              status::invalid_namespace_or_format);
    // A bdev that goes takes its namespace along.
    co_await s.call("nvmf_subsystem_add_ns", s.with_nqn(R"("namespace": {"bdev_name": "d0"})"));
    co_await s.until([&] { return c->find(1) != nullptr; }, "the namespace to be seen again");
    co_await s.devices.remove("d0");
    co_await s.until([&] { return c->find(1) == nullptr; }, "the end of the device to be seen");
    EXPECT_GE(changes, 5u);
    co_await c->close_queue(std::move(q));
    co_await c->disconnect();
}
TEST_IN_WORLDS(nvmf_host, sees_namespaces_come_change_and_go) { test_system(GetParam()).run(sees_changes); }

task<> sees_what_is_shown(test_system& s) {
    co_await s.start();
    co_await s.add_disk({.name = "d0"});
    co_await s.call("nvmf_subsystem_add_ns",
                    s.with_nqn(R"("namespace": {"bdev_name": "d0", "no_auto_visible": true})"));
    auto c = co_await s.connect();
    auto q = co_await c->open_queue();
    std::vector<std::byte> block(512);
    nvme::sqe read = block_command(nvme::nvm_opcode::read, 1, 0, 1);
    EXPECT_EQ(c->find(1), nullptr);
    EXPECT_EQ(co_await status_of(*q, read, block), status::invalid_namespace_or_format);
    std::string host = fmt::format(R"("nsid": 1, "host": "{}")", test_host_nqn);
    co_await s.call("nvmf_ns_add_host", s.with_nqn(host));
    co_await s.until([&] { return c->find(1) != nullptr; }, "the namespace to be seen");
    EXPECT_EQ(co_await status_of(*q, read, block), status::success);
    co_await s.call("nvmf_ns_remove_host", s.with_nqn(host));
    co_await s.until([&] { return c->find(1) == nullptr; }, "the namespace to be hidden");
    EXPECT_EQ(co_await status_of(*q, read, block), status::invalid_namespace_or_format);
    co_await c->close_queue(std::move(q));
    co_await c->disconnect();
}
TEST_IN_WORLDS(nvmf_host, sees_what_it_is_shown) { test_system(GetParam()).run(sees_what_is_shown); }

task<> is_let_in(test_system& s) {
    co_await s.start();
    co_await s.call("nvmf_subsystem_allow_any_host", s.with_nqn(R"("allow_any_host": false)"));
    EXPECT_FALSE(co_await as_result(s.connect()));
    std::string host = fmt::format(R"("host": "{}")", test_host_nqn);
    co_await s.call("nvmf_subsystem_add_host", s.with_nqn(host));
    auto c = co_await s.connect();
    auto q = co_await c->open_queue();
    bool lost = false;
    c->on_lost([&](const error&) { lost = true; });
    co_await s.call("nvmf_subsystem_remove_host", s.with_nqn(host));
    co_await s.until([&] { return lost; }, "the host to be disconnected");
    co_await c->close_queue(std::move(q));
    co_await c->disconnect();
    EXPECT_FALSE(co_await as_result(s.connect()));
    auto unknown = s.host("nqn.2016-06.io.spdk:unknown");
    EXPECT_FALSE(co_await as_result(controller::connect(unknown)));
}
TEST_IN_WORLDS(nvmf_host, is_let_in_and_shown_the_door) { test_system(GetParam()).run(is_let_in); }

task<> follows_ana(test_system& s) {
    co_await s.start();
    const std::string two = R"("nqn": "nqn.2015-06.io.spdk:two")";
    const std::string here = two + R"(, "listen_address": )" + s.address_json();
    co_await s.call("nvmf_create_subsystem", "{" + two + R"(, "allow_any_host": true, "ana_reporting": true})");
    co_await s.call("nvmf_subsystem_add_listener", "{" + here + "}");
    co_await s.add_disk({.name = "d0"});
    co_await s.call("nvmf_subsystem_add_ns", "{" + two + R"(, "namespace": {"bdev_name": "d0", "anagrpid": 2}})");
    auto c = co_await controller::connect(s.host("nqn.2015-06.io.spdk:two"));
    auto q = co_await c->open_queue();
    unsigned told = 0;
    c->on_event([&](nvme::async_event) { ++told; });
    EXPECT_EQ(c->find(1)->ana_group, 2u);
    std::vector<std::byte> block(512);
    nvme::sqe read = block_command(nvme::nvm_opcode::read, 1, 0, 1);
    EXPECT_EQ(co_await status_of(*q, read, block), status::success);
    co_await s.call("nvmf_subsystem_listener_set_ana_state",
                    "{" + here + R"(, "ana_state": "inaccessible", "anagrpid": 2})");
    EXPECT_EQ(co_await status_of(*q, read, block), status::ana_inaccessible);
    co_await s.until([&] { return told == 1; }, "the event");
    std::vector<std::byte> page(64);
    co_await c->get_log_page(nvme::log_page::ana, 0, page);
    EXPECT_EQ(static_cast<unsigned>(page[8]), 1u);        // groups
    EXPECT_EQ(static_cast<unsigned>(page[16]), 2u);       // the group
    EXPECT_EQ(static_cast<unsigned>(page[16 + 16]), 3u);  // its state
    co_await s.call("nvmf_subsystem_set_ns_ana_group", "{" + two + R"(, "nsid": 1, "anagrpid": 5})");
    EXPECT_EQ(co_await status_of(*q, read, block), status::success);
    co_await s.call("nvmf_subsystem_listener_set_ana_state", "{" + here + R"(, "ana_state": "non_optimized"})");
    EXPECT_EQ(co_await status_of(*q, read, block), status::success);
    co_await c->close_queue(std::move(q));
    co_await c->disconnect();
}
TEST_IN_WORLDS(nvmf_host, follows_ana_states) { test_system(GetParam()).run(follows_ana); }

task<> read_forever(nvme::host::queue_pair& q, bool& stop, uint64_t& done) {
    std::vector<std::byte> memory(4096);
    while (!stop) {
        if (co_await status_of(q, block_command(nvme::nvm_opcode::read, 1, 8, 8), memory) == status::success) ++done;
        if (!q.ready()) co_return;
    }
}

// Its subsystem is deleted, or the whole target stopped, in the middle of the work, some of it stuck in the device.
task<> loses_all(test_system& s, bool stop_target) {
    co_await s.start();
    test_disk* disk = co_await s.export_disk({});
    auto c = co_await s.connect();
    std::vector<std::unique_ptr<nvme::host::queue_pair>> queues;
    for (int i = 0; i < 4; ++i) queues.push_back(co_await c->open_queue());
    gate readers;
    bool stop = false;
    uint64_t done = 0;
    for (auto& q : queues)
        for (int i = 0; i < 8; ++i) readers.spawn(read_forever(*q, stop, done), thread::unexpected);
    co_await s.until([&] { return done > 50; }, "reads");
    disk->held = true;
    co_await s.until([&] { return disk->waiting > 4; }, "reads that wait");
    gate deletion;
    deletion.spawn(stop_target ? s.service.stop() : s.service.target().delete_subsystem(test_nqn), thread::unexpected);
    co_await sleep(2 * milliseconds);
    EXPECT_EQ(deletion.inside(), 1u);
    if (!stop_target)
        co_await s.refused("nvmf_subsystem_remove_ns", s.with_nqn(R"("nsid": 1)"), -16, "Device or resource busy");
    disk->held = false;
    co_await deletion.close();
    stop = true;
    co_await readers.close();
    for (auto& q : queues) co_await c->close_queue(std::move(q));
    co_await c->disconnect();
    if (!stop_target) EXPECT_EQ((co_await s.call("nvmf_get_subsystems")).items()->size(), 1u);
}
TEST_IN_WORLDS(nvmf_host, loses_its_subsystem_under_load) {
    test_system(GetParam()).run([](test_system& s) { return loses_all(s, false); });
}
TEST_IN_WORLDS(nvmf_host, loses_its_target_under_load) {
    test_system(GetParam()).run([](test_system& s) { return loses_all(s, true); });
}

task<> discovers(test_system& s) {
    co_await s.start();
    co_await s.call("nvmf_create_subsystem", R"({"nqn": "nqn.2015-06.io.spdk:closed"})");
    co_await s.call("nvmf_subsystem_add_listener",
                    R"({"nqn": "nqn.2015-06.io.spdk:closed", "listen_address": )" + s.address_json() + "}");
    auto find = [](const nvme::host::discovery_log& log, std::string_view nqn) {
        return std::ranges::any_of(log.entries, [&](auto& e) { return std::string_view(e.subnqn) == nqn; });
    };
    auto log = co_await nvme::host::discover(s.host(std::string(nvme::discovery_nqn).c_str()));
    EXPECT_TRUE(find(log, test_nqn));
    EXPECT_FALSE(find(log, "nqn.2015-06.io.spdk:closed"));
    co_await s.call("nvmf_subsystem_add_host",
                    fmt::format(R"({{"nqn": "nqn.2015-06.io.spdk:closed", "host": "{}"}})", test_host_nqn));
    co_await s.call(
        "nvmf_discovery_add_referral",
        R"({"address": {"trtype": "TCP", "traddr": "127.0.0.2", "trsvcid": "8009"}, "subnqn": "nqn.2015-06.io.spdk:other"})");
    auto later = co_await nvme::host::discover(s.host(std::string(nvme::discovery_nqn).c_str()));
    EXPECT_TRUE(find(later, "nqn.2015-06.io.spdk:closed"));
    EXPECT_TRUE(find(later, "nqn.2015-06.io.spdk:other"));
    EXPECT_GT(later.generation, log.generation);
}
TEST_IN_WORLDS(nvmf_host, discovers_what_it_may_connect_to) { test_system(GetParam()).run(discovers); }

// A cache that a connected host was told is not there must not come.
task<> keeps_its_word(test_system& s) {
    co_await s.start();
    co_await s.export_disk({.name = "plain"});
    co_await s.add_disk({.name = "cached", .write_cache = true});
    const std::string add = s.with_nqn(R"("namespace": {"bdev_name": "cached"})");
    auto c = co_await s.connect();
    EXPECT_EQ(c->data().vwc & 1, 0);
    co_await s.refused("nvmf_subsystem_add_ns", add, -32602,
                       "Invalid parameters: bdev_name: cached has a volatile write cache");
    co_await c->disconnect();
    co_await s.until([&] { return s.service.target().find_subsystem(test_nqn)->controllers.empty(); },
                     "the host to be gone");
    co_await s.call("nvmf_subsystem_add_ns", add);
    c = co_await s.connect();
    EXPECT_EQ(c->data().vwc & 1, 1);
    co_await c->disconnect();
}
TEST_IN_WORLDS(nvmf_host, is_told_the_truth_about_caches) { test_system(GetParam()).run(keeps_its_word); }

}  // namespace
}  // namespace varve::targets::nvmf
