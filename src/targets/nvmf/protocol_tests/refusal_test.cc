// What a host may get wrong, and what it gets for it.
#include <gtest/gtest.h>

#include "targets/nvmf/protocol_tests/test_host.h"

namespace varve::targets::nvmf::protocol_tests {
namespace {

using nvme::status;

// A host that was connected before a restart comes back before the configuration does.
task<> refused_hosts_may_try_again(test_target& t) {
    for (const char* nqn : {"nqn.2016-06.io.spdk:cnode77", "nqn.2016-06.io.spdk:cnode9"}) {
        if (std::string_view(nqn).ends_with('9')) co_await t.target->create_subsystem({.nqn = nqn});
        test_host h(t);
        reply r = co_await h.associate({.subnqn = nqn});
        EXPECT_NE(r.code(), status::success);
        EXPECT_FALSE(r.completion.dnr());
    }
}
TEST(nvmf_refusal, may_be_tried_again) { test_target().run(refused_hosts_may_try_again); }

task<> silent_connections_end(test_target& t) {
    test_host silent(t), half(t), h(t);
    co_await silent.open();
    co_await half.open();
    co_await half.init();
    co_await h.connect();
    co_await sleep(29 * seconds);
    EXPECT_FALSE(silent.line.over || half.line.over);
    co_await sleep(2 * seconds);
    EXPECT_TRUE(silent.line.over && half.line.over);
    EXPECT_FALSE(h.line.over);
}
TEST(nvmf_refusal, silence) { test_target().run(silent_connections_end); }

// The peer reads why, in spite of answers that are queued and sends that are slow, and nothing comes after that.
task<> terminates(test_target& t) {
    test_host h(t), q(t);
    co_await h.connect();
    co_await q.connect_io(h.controller_id);
    q.line.acknowledge = false;
    t.disk->hold = true;
    q.submit(read_command(1, 0, 1));
    q.submit(admin_command(nvme::admin_opcode::security_receive));
    co_await sleep(1 * milliseconds);
    q.send(q.h2c_data(7, 9999, 0, "abcd", true));
    t.disk->let_go();
    q.line.acknowledge = true;
    q.line.poke();
    while (true) {
        std::string pdu = co_await q.receive();
        if (pdu[0] == static_cast<char>(tcp::pdu_type::capsule_resp)) continue;
        auto term = read_as<tcp::term_req>(pdu);
        EXPECT_EQ(term.ch.type, nvme::raw(tcp::pdu_type::c2h_term_req));
        EXPECT_EQ(term.fes, nvme::raw(tcp::fatal_error::invalid_header_field));
        EXPECT_EQ(term.fei, offsetof(tcp::h2c_data, ttag));
        break;
    }
    co_await q.until_closed();
    EXPECT_EQ(q.line.from_target, "");
}
TEST(nvmf_refusal, says_why) { test_target().run(terminates); }

// The send of ICResp is slow: the queue's size comes while it is under way.
task<> grows_batches_late(test_target& t) {
    test_host h(t), q(t);
    co_await h.connect();
    q.line.acknowledge = false;
    co_await q.connect_io(h.controller_id, {.qid = 1, .entries = 128});
    q.line.acknowledge = true;
    q.line.poke();
    for (unsigned round = 0; round < 3; ++round) {
        t.disk->hold = true;
        for (unsigned i = 0; i < 100; ++i) q.submit(read_command(1, i, 1));
        co_await until([&] { return t.disk->held.size() == 100; }, "reads at the disk");
        uint64_t before = q.line.sends;
        t.disk->let_go();
        for (unsigned i = 0; i < 100; ++i) EXPECT_EQ((co_await q.next_reply()).code(), status::success);
        EXPECT_LE(q.line.sends - before, 4u);
    }
}
TEST(nvmf_refusal, no_small_batches) { test_target().run(grows_batches_late); }

task<> short_buffers(test_target& t) {
    test_host h(t);
    co_await h.connect();
    using enum nvme::admin_opcode;
    for (uint32_t length : {0u, 4u, 4092u})
        EXPECT_EQ(co_await h.status_of(admin_command(identify, length, 1)), status::invalid_field);
    for (uint32_t length : {0u, 15u}) {
        EXPECT_EQ(co_await h.status_of(admin_command(get_features, length, 0x81, 1)), status::invalid_field);
        EXPECT_EQ(co_await h.status_of(admin_command(get_features, length, 0x16)), status::invalid_field);
    }
    EXPECT_EQ(co_await h.status_of(admin_command(get_features, 16, 0x81, 1)), status::success);
    EXPECT_EQ(co_await h.status_of(admin_command(identify, 1 << 20, 1)), status::invalid_field);
}
TEST(nvmf_refusal, short_buffers) { test_target().run(short_buffers); }

}  // namespace
}  // namespace varve::targets::nvmf::protocol_tests
