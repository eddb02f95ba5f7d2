// Queues that work as they should: connect, identify, read, write, digests, R2T, the SUCCESS flag.
#include <gtest/gtest.h>

#include "nvme/identify.h"
#include "targets/nvmf/protocol_tests/test_host.h"

namespace varve::targets::nvmf::protocol_tests {
namespace {

using nvme::status;

task<> identifies(test_target& t) {
    test_host h(t);
    co_await h.connect();
    reply r = co_await h.command(admin_command(nvme::admin_opcode::identify, 4096, nvme::raw(nvme::cns::controller)));
    EXPECT_EQ(r.code(), status::success);
    EXPECT_EQ(r.data.size(), 4096u);
    auto id = read_as<nvme::identify_controller>(r.data);
    EXPECT_EQ(id.cntlid, h.controller_id);
    EXPECT_STREQ(id.subnqn, t.nqn.c_str());
    h.line.end();
    co_await h.until_closed();
}

TEST(nvmf_queue, identifies) { test_target().run(identifies); }

task<> writes_and_reads(test_target& t) {
    test_host h(t);
    co_await h.connect();
    for (uint8_t digests : {0, 1, 2, 3}) {
        for (uint8_t hpda : {0, 31}) {
            test_host q(t);
            co_await q.connect_io(h.controller_id, {.qid = static_cast<uint16_t>(1 + digests * 2 + (hpda != 0))},
                                  digests, hpda);
            for (bool in_capsule : {true, false}) {
                std::string data = pattern(4096, digests + in_capsule);
                EXPECT_EQ(co_await q.status_of(write_command(1, 16, 8, in_capsule), data), status::success);
                reply r = co_await q.command(read_command(1, 16, 8));
                EXPECT_EQ(r.code(), status::success);
                EXPECT_TRUE(r.data == data);
            }
            q.line.end();
            co_await q.until_closed();
        }
    }
    h.line.end();
    co_await h.until_closed();
}

TEST(nvmf_queue, writes_and_reads) { test_target().run(writes_and_reads); }

// Every byte of a session alone, and every pair.
task<> takes_any_delivery(test_target& t) {
    for (std::size_t most : {1, 2, 3, 7, 71, 73, 4095}) {
        test_host h(t), q(t);
        h.line.delivery_max = q.line.delivery_max = most;
        co_await h.connect({}, 3);
        co_await q.connect_io(h.controller_id, {.qid = 1}, 3);
        std::string data = pattern(4096, 3);
        EXPECT_EQ(co_await q.status_of(write_command(1, 0, 8), data), status::success);
        EXPECT_EQ(co_await q.status_of(write_command(1, 8, 8, false), data), status::success);
        reply r = co_await q.command(read_command(1, 0, 16));
        EXPECT_TRUE(r.data == data + data);
        h.line.end();
        co_await h.until_closed();
        co_await q.until_closed();  // the controller takes it along
    }
}

TEST(nvmf_queue, takes_any_delivery) { test_target().run(takes_any_delivery); }

// Heads advance with what has ended, so that no host has more under way than the queue has entries.
task<> counts_heads(test_target& t) {
    test_host h(t), q(t);
    co_await h.connect();
    q.line.acknowledge = true;
    reply r = co_await q.associate({.qid = 1, .controller_id = h.controller_id, .entries = 4});
    EXPECT_EQ(r.completion.sqhd, 1u);
    t.disk->hold = true;
    for (unsigned i = 0; i < 3; ++i) q.submit(read_command(1, i, 1));
    co_await until([&] { return t.disk->held.size() == 3; }, "reads at the disk");
    t.disk->let_go();
    for (uint16_t head : {2, 3, 0}) EXPECT_EQ((co_await q.next_reply()).completion.sqhd, head);
}
TEST(nvmf_queue, counts_heads) { test_target().run(counts_heads); }

task<> no_flow_control(test_target& t) {
    test_host h(t), q(t);
    connect_wish wish{.attributes = nvme::connect_attribute::disable_sq_flow_control};
    reply r = co_await h.associate(wish);
    EXPECT_EQ(r.completion.sqhd, 0xffffu);
    EXPECT_EQ((co_await h.command(property_set(nvme::property::cc, enabled_configuration))).completion.sqhd, 0u);
    wish.qid = 1;
    wish.controller_id = h.controller_id;
    r = co_await q.associate(wish);
    EXPECT_EQ(r.completion.sqhd, 0xffffu);
    EXPECT_EQ((co_await q.command(write_command(1, 0, 1), pattern(512, 1))).completion.sqhd, 0u);
    EXPECT_TRUE((co_await q.command(read_command(1, 0, 1))).left_out);
}
TEST(nvmf_queue, no_flow_control) { test_target().run(no_flow_control); }

// --- the same queue again

task<> connects_again(test_target& t) {
    test_host h(t), old(t), fresh(t, t.options.cpus - 1), twin(t);
    co_await h.connect();
    co_await old.connect_io(h.controller_id);
    connect_wish wish{.qid = 1, .controller_id = h.controller_id};
    reply r = co_await twin.associate(wish);  // the first is well
    EXPECT_EQ(r.code(), status::invalid_queue_id);
    EXPECT_FALSE(r.completion.dnr());
    t.disk->hold = true;
    old.submit(read_command(1, 0, 1));
    co_await until([&] { return !t.disk->held.empty(); }, "a read at the disk");
    old.line.end();
    co_await fresh.open();
    co_await fresh.init();
    uint16_t connect = fresh.submit(connect_command(wish), connect_data_of(wish));
    co_await sleep(2 * seconds);
    EXPECT_EQ(fresh.line.from_target, "");
    t.disk->let_go();
    EXPECT_EQ((co_await fresh.reply_to(connect)).code(), status::success);
    EXPECT_EQ(co_await fresh.status_of(read_command(1, 0, 1)), status::success);
}
TEST(nvmf_queue, connects_again) { test_target().run(connects_again); }
TEST(nvmf_queue, connects_again_on_another_reactor) { test_target({.cpus = 2}).run(connects_again); }

// The old one does not end: the new one is refused in the end, and may try again.
task<> does_not_wait_for_ever(test_target& t) {
    test_host h(t), old(t), fresh(t);
    co_await h.connect();
    co_await old.connect_io(h.controller_id);
    t.disk->hold = true;
    old.submit(read_command(1, 0, 1));
    co_await until([&] { return !t.disk->held.empty(); }, "a read at the disk");
    old.line.end();
    reply r = co_await fresh.associate({.qid = 1, .controller_id = h.controller_id});
    EXPECT_EQ(r.code(), status::invalid_queue_id);
    EXPECT_FALSE(r.completion.dnr());
    t.disk->let_go();
}
TEST(nvmf_queue, does_not_wait_for_ever) { test_target().run(does_not_wait_for_ever); }

}  // namespace
}  // namespace varve::targets::nvmf::protocol_tests
