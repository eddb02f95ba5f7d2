// Connections that end at every moment, from either side, and what goes with them.
#include <gtest/gtest.h>

#include "targets/nvmf/protocol_tests/test_host.h"

namespace varve::targets::nvmf::protocol_tests {
namespace {

using nvme::status;

// Nothing is left of hosts.
task<> all_gone(test_target& t) {
    co_await until([&] { return t.cnode1->controllers.empty() && t.group().connections.empty(); },
                   "the end of all controllers and connections");
    EXPECT_EQ(t.group().buffers().buffers_in_use(), 0u);
}

// --- by the host, at every byte of a session

task<> ends_at_every_byte(test_target& t) {
    connect_wish wish;
    test_host any(t);
    nvme::sqe connect = connect_command(wish);
    std::string session = test_host::ic_req() + any.capsule(connect, connect_data_of(wish)) +
                          any.capsule(property_set(nvme::property::cc, enabled_configuration)) +
                          any.capsule(admin_command(nvme::admin_opcode::async_event_request)) +
                          any.capsule(admin_command(nvme::admin_opcode::identify, 4096, 1));
    for (std::size_t at = 0; at <= session.size(); ++at) {
        test_host h(t);
        co_await h.open();
        h.send(session.substr(0, at));
        // Some are taken by surprise.
        if (at % 3 != 0) co_await sleep(static_cast<time_ns>(at % 7) * microseconds);
        h.line.end(at % 2 == 0 ? 0 : -ECONNRESET);
        co_await h.until_closed();
    }
    co_await all_gone(t);
}
TEST(nvmf_ending, at_every_byte) { test_target().run(ends_at_every_byte); }

task<> ends_at_every_moment(test_target& t) {
    for (time_ns moment = 0; moment < 400 * microseconds; moment += 3 * microseconds) {
        test_host h(t);
        co_await h.open();
        connect_wish wish;
        h.send(test_host::ic_req() + h.capsule(connect_command(wish), connect_data_of(wish)) +
               h.capsule(property_set(nvme::property::cc, enabled_configuration)) +
               h.capsule(admin_command(nvme::admin_opcode::async_event_request)) +
               h.capsule(admin_command(nvme::admin_opcode::identify, 4096, 1)) +
               h.capsule(property_set(nvme::property::cc, 0)));
        co_await sleep(moment);
        h.line.end();
        co_await h.until_closed();
    }
    co_await all_gone(t);
}
TEST(nvmf_ending, at_every_moment) { test_target().run(ends_at_every_moment); }
TEST(nvmf_ending, at_every_moment_of_two_reactors) { test_target({.cpus = 2}).run(ends_at_every_moment); }

task<> io_queue_ends_at_every_moment(test_target& t) {
    for (time_ns moment = 0; moment < 300 * microseconds; moment += 3 * microseconds) {
        test_host h(t), q(t, t.options.cpus - 1);
        co_await h.connect();
        co_await q.open();
        connect_wish wish{.qid = 1, .controller_id = h.controller_id};
        q.send(test_host::ic_req() + q.capsule(connect_command(wish), connect_data_of(wish)) +
               q.capsule(read_command(1, 0, 8)) + q.capsule(read_command(1, 8, 8)));
        co_await sleep(moment);
        (moment % 2 == 0 ? q : h).line.end();
        co_await sleep(moment % 11 * microseconds);
        (moment % 2 == 0 ? h : q).line.end();
        co_await h.until_closed();
        co_await q.until_closed();
    }
    co_await all_gone(t);
}
TEST(nvmf_ending, io_queue_at_every_moment) { test_target().run(io_queue_ends_at_every_moment); }
TEST(nvmf_ending, io_queue_at_every_moment_of_two_reactors) {
    test_target({.cpus = 2}).run(io_queue_ends_at_every_moment);
}

// --- with things under way

task<> ends_with_block_requests(test_target& t) {
    for (bool admin_first : {false, true}) {
        test_host h(t), q(t);
        co_await h.connect();
        co_await q.connect_io(h.controller_id);
        t.disk->hold = true;
        for (unsigned i = 0; i < 5; ++i) q.submit(read_command(1, i, 1));
        co_await until([&] { return t.disk->held.size() == 5; }, "reads at the disk");
        (admin_first ? h : q).line.end();
        co_await sleep(20 * milliseconds);
        EXPECT_EQ(t.cnode1->controllers.size(), 1u);
        t.disk->let_go();
        h.line.end();
        co_await h.until_closed();
        co_await q.until_closed();
        co_await all_gone(t);
    }
}
TEST(nvmf_ending, with_block_requests) { test_target().run(ends_with_block_requests); }

task<> ends_with_data_awaited(test_target& t) {
    test_host h(t), q(t);
    co_await h.connect();
    co_await q.connect_io(h.controller_id);
    q.answer_r2t = false;
    uint16_t first = q.submit(write_command(1, 0, 8, false), pattern(4096, 1));
    q.submit(write_command(1, 8, 8, false), pattern(4096, 2));
    co_await until([&] { return q.line.from_target.size() == 2 * sizeof(tcp::r2t); }, "two R2Ts");
    auto asked = read_as<tcp::r2t>(co_await q.receive());
    EXPECT_EQ(asked.cccid, first);
    q.send(q.h2c_data(first, asked.ttag, 0, pattern(4096, 1), true).substr(0, 1000));
    co_await sleep(1 * milliseconds);
    q.line.end();
    h.line.end();
    co_await all_gone(t);
}
TEST(nvmf_ending, with_data_awaited) { test_target().run(ends_with_data_awaited); }

task<> ends_with_sends_under_way(test_target& t) {
    for (bool taken : {false, true}) {
        test_host h(t), q(t);
        co_await h.connect();
        co_await q.connect_io(h.controller_id);
        (taken ? q.line.acknowledge : q.line.hold_sends) = !taken;
        for (unsigned i = 0; i < 20; ++i) q.submit(read_command(1, i, 8));
        for (unsigned i = 0; i < 3; ++i) q.submit(write_command(1, i, 8, false), pattern(4096, i));
        co_await sleep(1 * milliseconds);
        EXPECT_GT(t.group().buffers().buffers_in_use(), 0u);
        q.line.end(-EPIPE);
        co_await q.until_closed();
        h.line.end();
        co_await all_gone(t);
    }
}
TEST(nvmf_ending, with_sends_under_way) { test_target().run(ends_with_sends_under_way); }

task<> ends_with_half_a_fused_pair(test_target& t) {
    test_host h(t), q(t);
    co_await h.connect();
    co_await q.connect_io(h.controller_id);
    nvme::sqe compare = write_command(1, 0, 1);
    compare.opcode = nvme::raw(nvme::nvm_opcode::compare);
    compare.set_flags(nvme::fuse::first, nvme::data_pointer::sgl);
    q.submit(compare, pattern(512, 0));
    co_await sleep(1 * milliseconds);
    EXPECT_EQ(t.group().buffers().buffers_in_use(), 1u);
    q.line.end();
    h.line.end();
    co_await all_gone(t);
}
TEST(nvmf_ending, with_half_a_fused_pair) { test_target().run(ends_with_half_a_fused_pair); }

// --- with the controller in the middle of something

// CC.EN = 0 waits for the I/O queues; meanwhile the admin queue's connection ends.
task<> ends_during_a_reset(test_target& t) {
    for (uint32_t configuration : {0u, enabled_configuration | 1u << 14}) {
        for (time_ns gap : {0, 100, 500, 999, 1000, 1001, 1500}) {
            test_host h(t), q(t);
            co_await h.connect();
            co_await q.connect_io(h.controller_id);
            t.disk->hold = true;
            q.submit(read_command(1, 0, 1));
            co_await until([&] { return !t.disk->held.empty(); }, "a read at the disk");
            h.submit(property_set(nvme::property::cc, configuration));
            co_await sleep(gap * microseconds);
            h.line.end();
            co_await h.until_closed();
            co_await sleep(3 * milliseconds);
            t.disk->let_go();
            co_await q.until_closed();
            co_await all_gone(t);
        }
    }
}
TEST(nvmf_ending, during_a_reset) { test_target().run(ends_during_a_reset); }
TEST(nvmf_ending, during_a_reset_of_two_reactors) { test_target({.cpus = 2}).run(ends_during_a_reset); }

task<> resets_with_commands_running(test_target& t) {
    test_host h(t), q(t);
    co_await h.connect();
    co_await q.connect_io(h.controller_id);
    t.disk->hold = true;
    q.submit(read_command(1, 0, 1));
    co_await until([&] { return !t.disk->held.empty(); }, "a read at the disk");
    uint16_t reset = h.submit(property_set(nvme::property::cc, 0));
    uint16_t event = h.submit(admin_command(nvme::admin_opcode::async_event_request));
    co_await sleep(5 * milliseconds);
    EXPECT_EQ(h.line.from_target, "");
    t.disk->let_go();
    reply r = co_await h.reply_to(reset);
    EXPECT_EQ(r.code(), status::success);
    r = co_await h.reply_to(event);
    EXPECT_NE(r.code(), status::success);
    EXPECT_TRUE(q.line.over);
    r = co_await h.command(property_get(nvme::property::csts));
    EXPECT_EQ(r.dw0(), 0u);
    // And again.
    r = co_await h.command(property_set(nvme::property::cc, enabled_configuration));
    EXPECT_EQ(r.code(), status::success);
    test_host again(t);
    co_await again.connect_io(h.controller_id);
    EXPECT_EQ(co_await again.status_of(read_command(1, 0, 1)), status::success);
}
TEST(nvmf_ending, resets_with_commands_running) { test_target().run(resets_with_commands_running); }

// --- by the administrator

task<> deletes_a_subsystem_during_connects(test_target& t) {
    for (time_ns moment = 0; moment < 200 * microseconds; moment += 7 * microseconds) {
        std::string nqn = "nqn.2016-06.io.spdk:short-lived";
        subsystem* s = co_await t.target->create_subsystem({.nqn = nqn, .allow_any_host = true});
        co_await s->add_listener({.at = t.at});
        test_host h(t), q(t, t.options.cpus - 1);
        connect_wish wish{.subnqn = nqn};
        co_await h.open();
        h.send(test_host::ic_req() + h.capsule(connect_command(wish), connect_data_of(wish)) +
               h.capsule(property_set(nvme::property::cc, enabled_configuration)) +
               h.capsule(admin_command(nvme::admin_opcode::identify, 4096, 1)) +
               h.capsule(log_command(nvme::log_page::ana, 4096)));
        co_await sleep(moment);
        co_await q.open();
        wish.qid = 1;
        wish.controller_id = 1;
        q.send(test_host::ic_req() + q.capsule(connect_command(wish), connect_data_of(wish)));
        co_await sleep(moment / 3);
        co_await t.target->delete_subsystem(nqn);
        h.line.end();
        q.line.end();
        co_await h.until_closed();
        co_await q.until_closed();
    }
    co_await all_gone(t);
}
TEST(nvmf_ending, subsystem_during_connects) { test_target().run(deletes_a_subsystem_during_connects); }
TEST(nvmf_ending, subsystem_during_connects_of_two_reactors) {
    test_target({.cpus = 2}).run(deletes_a_subsystem_during_connects);
}

// A connection without a controller outlives all subsystems and transports for a moment.
task<> stops_with_strangers(test_target& t) {
    test_host silent(t), half(t), h(t), q(t);
    co_await silent.open();
    co_await half.open();
    co_await h.connect();
    co_await q.connect_io(h.controller_id);
    half.send(test_host::ic_req());
    t.disk->hold = true;
    for (unsigned i = 0; i < 4; ++i) q.submit(read_command(1, i, 1));
    co_await until([&] { return t.disk->held.size() == 4; }, "reads at the disk");
    t.keep_target = true;
    bool stopped = false;
    start_detached(t.target->stop(), [&](result<> outcome) {
        EXPECT_TRUE(outcome);
        stopped = true;
    });
    co_await sleep(10 * milliseconds);
    EXPECT_FALSE(stopped);
    connect_wish wish;
    // They speak while everything is being taken down.
    half.line.delivery_max = 1;
    half.send(half.capsule(connect_command(wish), connect_data_of(wish)));
    silent.line.delivery_max = 1;
    silent.send(test_host::ic_req());
    t.disk->let_go();
    co_await until([&] { return stopped; }, "the end of the target");
    EXPECT_TRUE(silent.line.over && half.line.over && h.line.over && q.line.over);
}
TEST(nvmf_ending, target_with_strangers) { test_target().run(stops_with_strangers); }

// --- namespaces that go while a command of several requests is at work on them

task<> removes_a_namespace_under_ranges(test_target& t) {
    for (bool copies : {false, true}) {
        test_host h(t), q(t);
        co_await h.connect();
        co_await q.connect_io(h.controller_id);
        t.disk->hold = true;
        uint16_t cid = 0;
        if (copies) {
            nvme::copy_range ranges[3]{};
            for (unsigned i = 0; i < 3; ++i) ranges[i].slba = i * 16;
            nvme::sqe c = make_command(nvme::nvm_opcode::copy, 1);
            c.dptr = nvme::sgl_descriptor::in_capsule(sizeof ranges);
            c.set_slba(1024);
            c.cdw12 = 2;
            cid = q.submit(c, bytes_of(ranges));
        } else {
            nvme::dsm_range ranges[3]{};
            for (unsigned i = 0; i < 3; ++i) ranges[i] = {.attributes = 0, .blocks = 8, .slba = i * 16};
            nvme::sqe c = make_command(nvme::nvm_opcode::dataset_management, 1);
            c.dptr = nvme::sgl_descriptor::in_capsule(sizeof ranges);
            c.cdw10 = 2;
            c.cdw11 = nvme::dsm::deallocate;
            cid = q.submit(c, bytes_of(ranges));
        }
        co_await until([&] { return t.disk->held.size() == 1; }, "the first range");
        bool removed = false;
        start_detached(t.cnode1->remove_namespace(1), [&](result<> outcome) {
            EXPECT_TRUE(outcome);
            removed = true;
        });
        co_await sleep(1 * milliseconds);
        EXPECT_FALSE(removed);
        EXPECT_EQ(co_await q.status_of(read_command(1, 0, 1)), status::invalid_namespace_or_format);
        t.disk->let_go();
        reply r = co_await q.reply_to(cid);
        EXPECT_EQ(r.code(), status::success);
        co_await until([&] { return removed; }, "the end of the namespace");
        EXPECT_EQ(t.disk->channels, 0u);
        co_await t.cnode1->add_namespace({.nsid = 1, .bdev_name = "disk"});
        EXPECT_EQ(co_await q.status_of(read_command(1, 0, 1)), status::success);
    }
}
TEST(nvmf_ending, namespace_under_ranges) { test_target().run(removes_a_namespace_under_ranges); }

}  // namespace
}  // namespace varve::targets::nvmf::protocol_tests
