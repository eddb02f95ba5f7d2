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

}  // namespace
}  // namespace varve::targets::nvmf::protocol_tests
