// Whose memory it is: buffers when there are none, hosts that hold them in vain, and what was in them before.
#include <gtest/gtest.h>

#include "targets/nvmf/protocol_tests/test_host.h"

namespace varve::targets::nvmf::protocol_tests {
namespace {

using nvme::status;

// Writes whose data the host holds back take all the memory there is. What comes in capsules goes through all the same,
// two at a time.
task<> spares(test_target& t) {
    test_host h(t), q(t);
    co_await h.connect();
    co_await q.connect_io(h.controller_id, {.qid = 1, .entries = 64});
    q.answer_r2t = false;
    std::vector<uint16_t> large;
    for (unsigned i = 0; i < 17; ++i)
        large.push_back(q.submit(write_command(1, i * 128, 128, false), pattern(65536, i)));
    for (unsigned i = 17; i < 33; ++i) large.push_back(q.submit(write_command(1, 0, 128, false), pattern(65536, i)));
    co_await until([&] { return t.group().stats.pending_data_buffer != 0; }, "writes that wait for memory");
    t.disk->hold = true;
    const uint64_t waited = t.group().stats.pending_data_buffer;
    std::vector<uint16_t> small;
    for (unsigned i = 0; i < 5; ++i) small.push_back(q.submit(write_command(1, 4000 + i, 1), pattern(512, 100 + i)));
    co_await until([&] { return t.disk->held.size() == 2; }, "two writes with spare buffers");
    EXPECT_GT(t.group().stats.pending_data_buffer, waited);  // the third
    co_await sleep(1 * milliseconds);
    EXPECT_EQ(t.disk->held.size(), 2u);
    for (unsigned more = 0; more < 2; ++more) {  // each that ends lets another in
        auto [request, on] = t.disk->held.front();
        t.disk->held.pop_front();
        on->post([&t, request] { t.disk->carry_out(*request); });
        co_await until([&] { return t.disk->held.size() == 2; }, "the spare buffer's next user");
    }
    t.disk->let_go();
    q.answer_r2t = true;
    for (uint16_t cid : small) EXPECT_EQ((co_await q.reply_to(cid)).code(), status::success);
    for (unsigned i = 0; i < 5; ++i)
        EXPECT_EQ(std::memcmp(t.disk->blocks.data() + (4000 + i) * 512, pattern(512, 100 + i).data(), 512), 0);
    for (auto& r2t : std::exchange(q.r2ts, {})) q.answer(r2t);
    for (uint16_t cid : large) EXPECT_EQ((co_await q.reply_to(cid)).code(), status::success);
    q.line.end();
    h.line.end();
    co_await until([&] { return t.group().connections.empty(); }, "the end of the connections");
    EXPECT_EQ(t.group().buffers().buffers_in_use(), 0u);
}
TEST(nvmf_memory, spares_for_capsules) { test_target({.buffer_limit = 2 << 20}).run(spares); }

task<> keep_alive(test_host& h, unsigned for_seconds) {
    for (unsigned second = 0; second < for_seconds; ++second) {
        co_await sleep(1 * seconds);
        EXPECT_EQ(co_await h.status_of(admin_command(nvme::admin_opcode::keep_alive)), status::success);
    }
}

// A host that never sends what was asked for, or half a capsule, while its admin queue is as alive as can be.
task<> silent_writers(test_target& t) {
    for (unsigned how = 0; how < 3; ++how) {
        test_host h(t), q(t);
        co_await h.connect({.keep_alive_ms = 10'000});
        co_await q.connect_io(h.controller_id);
        q.answer_r2t = false;
        std::string data = pattern(4096, 1);
        uint16_t cid = 0;
        tcp::r2t asked{};
        if (how == 2) {
            q.send(q.capsule(write_command(1, 0, 8), data).substr(0, 1000));
        } else {
            cid = q.submit(write_command(1, 0, 8, false), data);
            asked = read_as<tcp::r2t>(co_await q.receive());
        }
        std::size_t sent = 0;
        for (unsigned second = 0; second < 29; ++second) {
            co_await keep_alive(h, 1);
            if (how == 1 && second % 5 == 0) {  // slow, but not silent
                q.send(q.h2c_data(cid, asked.ttag, static_cast<uint32_t>(sent), data.substr(sent, 512), false));
                sent += 512;
            }
        }
        EXPECT_FALSE(q.line.over);
        if (how == 1) {
            co_await keep_alive(h, 24);
            EXPECT_FALSE(q.line.over);
            q.send(q.h2c_data(cid, asked.ttag, static_cast<uint32_t>(sent), data.substr(sent), true));
            EXPECT_EQ((co_await q.next_reply()).code(), status::success);
            co_await keep_alive(h, 40);  // with nothing to be sent, a host may be silent
            EXPECT_FALSE(q.line.over);
        } else {
            co_await sleep(2 * seconds);
            EXPECT_TRUE(q.line.over);
            EXPECT_EQ(t.group().buffers().buffers_in_use(), 0u);
        }
    }
}
TEST(nvmf_memory, silent_writers) { test_target().run(silent_writers); }

// It is the target that does not read: for want of a slot, while a command takes its time at the disk.
task<> patient_writers(test_target& t) {
    test_host h(t), q(t);
    co_await h.connect();
    co_await q.connect_io(h.controller_id, {.qid = 1, .entries = 2});
    t.disk->hold = true;
    q.answer_r2t = false;
    uint16_t write = q.submit(write_command(1, 0, 8, false), pattern(4096, 1));
    auto asked = read_as<tcp::r2t>(co_await q.receive());
    for (unsigned i = 0; i < 30; ++i) q.submit(read_command(1, i, 1));
    co_await until([&] { return q.line.paused; }, "a target that stops reading");
    q.answer(asked);
    co_await sleep(100 * seconds);
    EXPECT_FALSE(q.line.over);
    t.disk->let_go();
    EXPECT_EQ((co_await q.reply_to(write)).code(), status::success);
}
TEST(nvmf_memory, patient_writers) { test_target().run(patient_writers); }

// --- what was there before

task<> leaves_no_traces(test_target& t) {
    test_host h(t), q(t);
    co_await h.connect();
    co_await q.connect_io(h.controller_id);
    for (bool in_capsule : {true, false}) {
        EXPECT_EQ(co_await q.status_of(write_command(1, 0, 8, in_capsule), pattern(4096, 1)), status::success);
        reply r = co_await q.command(read_command(1, 0, 8));
        EXPECT_EQ(r.data, std::string(4096, '\0'));
    }
    EXPECT_EQ(co_await q.status_of(write_command(1, 0, 256, false), pattern(256 * 512, 1)), status::success);
    reply r = co_await q.command(read_command(1, 0, 256));
    EXPECT_EQ(r.data, std::string(256 * 512, '\0'));
}
test_options forgetful() {
    test_options how;
    how.disk.leaves_memory = true;
    return how;
}
TEST(nvmf_memory, leaves_no_traces) { test_target(forgetful()).run(leaves_no_traces); }

}  // namespace
}  // namespace varve::targets::nvmf::protocol_tests
