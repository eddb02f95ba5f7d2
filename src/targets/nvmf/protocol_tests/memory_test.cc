// Whose memory it is: buffers when there are none, hosts that hold them in vain, and what was in them before.
#include <gtest/gtest.h>

#include "targets/nvmf/protocol_tests/test_host.h"

namespace varve::targets::nvmf::protocol_tests {
namespace {

using nvme::status;

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
