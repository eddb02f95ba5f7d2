// What a host may get wrong, and what it gets for it.
#include <gtest/gtest.h>

#include <algorithm>

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

// The C2HTermReq, after whatever was answered before.
task<tcp::term_req> last_word(test_host& h) {
    while (true) {
        std::string pdu = co_await h.receive();
        if (pdu[0] == static_cast<char>(tcp::pdu_type::c2h_term_req)) co_return read_as<tcp::term_req>(pdu);
    }
}

// Flags that say otherwise than what was agreed.
task<> digest_flags(test_target& t) {
    test_host h(t);
    co_await h.connect();
    uint16_t qid = 0;
    for (uint8_t agreed : {0, 1, 2, 3}) {
        for (uint8_t wrong : {tcp::pdu_flag::header_digest, tcp::pdu_flag::data_digest}) {
            for (bool with_data : {false, true}) {
                test_host q(t);
                co_await q.connect_io(h.controller_id, {.qid = ++qid}, agreed);
                std::string pdu =
                    with_data ? q.capsule(write_command(1, 0, 1), pattern(512, 1)) : q.capsule(read_command(1, 0, 1));
                pdu[offsetof(tcp::common_header, flags)] ^= static_cast<char>(wrong);
                q.send(pdu);
                if (!with_data && wrong == tcp::pdu_flag::data_digest) {  // says nothing where there is no data
                    if ((agreed & tcp::digest_enable::header) == 0)
                        EXPECT_EQ((co_await q.next_reply()).code(), status::success);
                    continue;
                }
                tcp::term_req term = co_await last_word(q);
                EXPECT_EQ(term.fes, nvme::raw(tcp::fatal_error::invalid_header_field));
                EXPECT_EQ(term.fei, offsetof(tcp::common_header, flags));
            }
        }
    }
}
TEST(nvmf_refusal, digest_flags) { test_target().run(digest_flags); }

// More data in a PDU than ICResp, or Identify, allows.
task<> too_much_data(test_target& t) {
    test_host h(t);
    co_await h.connect();
    for (bool in_capsule : {true, false}) {
        test_host q(t);
        co_await q.connect_io(h.controller_id, {.qid = static_cast<uint16_t>(in_capsule ? 1 : 2)});
        if (in_capsule) {
            q.send(q.capsule(write_command(1, 0, 9), pattern(9 * 512, 1)));
        } else {
            q.answer_r2t = false;
            uint16_t cid = q.submit(write_command(1, 0, 256, false), pattern(128 << 10, 1));
            auto asked = read_as<tcp::r2t>(co_await q.receive());
            q.send(q.h2c_data(cid, asked.ttag, 0, pattern((128 << 10) + 4, 1), true));
        }
        EXPECT_EQ((co_await last_word(q)).fes, nvme::raw(tcp::fatal_error::limit_exceeded));
    }
    EXPECT_TRUE(std::ranges::find(t.disk->seen, bdev::op::write) == t.disk->seen.end());
}
TEST(nvmf_refusal, too_much_data) { test_target().run(too_much_data); }

// What the socket had received before the target closed it.
task<> late_commands(test_target& t) {
    test_host h(t), q(t);
    co_await h.connect();
    co_await q.connect_io(h.controller_id);
    q.line.late = true;
    q.line.to_target = q.capsule(write_command(1, 0, 1), pattern(512, 1)) + q.capsule(read_command(1, 0, 1));
    co_await call_on(t.group().thread(), [&]() -> task<> {
        for (qpair& each : t.group().connections)
            if (each.id == 1) each.disconnect();
        co_return;
    });
    co_await q.until_closed();
    co_await sleep(1 * milliseconds);
    EXPECT_EQ(t.disk->seen.size(), 0u);
}
TEST(nvmf_refusal, late_commands) { test_target().run(late_commands); }

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
