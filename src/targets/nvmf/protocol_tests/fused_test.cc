// Fused compare and write (Base 3.4.2): halves belong together by their arrival, whatever way their data takes, and end
// together.
#include <gtest/gtest.h>

#include "targets/nvmf/protocol_tests/test_host.h"

namespace varve::targets::nvmf::protocol_tests {
namespace {

using nvme::status;

nvme::sqe half(nvme::nvm_opcode opcode, bool in_capsule, uint32_t nsid = 1) {
    nvme::sqe c = io_command(opcode, nsid, 8, 1);
    if (in_capsule) c.dptr = nvme::sgl_descriptor::in_capsule(512);
    c.set_flags(opcode == nvme::nvm_opcode::compare ? nvme::fuse::first : nvme::fuse::second, nvme::data_pointer::sgl);
    return c;
}

struct both {
    status first, second;
};
task<both> ask(test_host& q, nvme::sqe first, nvme::sqe second, std::string old, std::string fresh) {
    uint16_t a = q.submit(first, std::move(old)), b = q.submit(second, std::move(fresh));
    status of_first = (co_await q.reply_to(a)).code();
    co_return both{of_first, (co_await q.reply_to(b)).code()};
}

task<> pairs_by_arrival(test_target& t) {
    test_host h(t), q(t);
    co_await h.connect();
    co_await q.connect_io(h.controller_id, {.qid = 1});
    std::string now(512, '\0');
    EXPECT_EQ(co_await q.status_of(write_command(1, 8, 1), now), status::success);
    unsigned seed = 1;
    for (bool first_inside : {true, false}) {
        for (bool second_inside : {true, false}) {
            std::string next = pattern(512, ++seed);
            both r = co_await ask(q, half(nvme::nvm_opcode::compare, first_inside),
                                  half(nvme::nvm_opcode::write, second_inside), now, next);
            EXPECT_EQ(r.first, status::success);
            EXPECT_EQ(r.second, status::success);
            EXPECT_TRUE((co_await q.command(read_command(1, 8, 1))).data == next);
            r = co_await ask(q, half(nvme::nvm_opcode::compare, first_inside),
                             half(nvme::nvm_opcode::write, second_inside), now, now);
            EXPECT_EQ(r.first, status::compare_failure);
            EXPECT_EQ(r.second, status::aborted_failed_fused);
            EXPECT_TRUE((co_await q.command(read_command(1, 8, 1))).data == next);
            now = next;
        }
    }
    h.line.end();
    co_await q.until_closed();
}

TEST(nvmf_fused, pairs_by_arrival) { test_target().run(pairs_by_arrival); }

task<> ends_together(test_target& t) {
    test_host h(t), q(t);
    co_await h.connect();
    co_await q.connect_io(h.controller_id, {.qid = 1});
    std::string data(512, '\0');
    for (bool inside : {true, false}) {
        // The second half has no namespace; then the first; then its data cannot be described.
        both r = co_await ask(q, half(nvme::nvm_opcode::compare, inside), half(nvme::nvm_opcode::write, true, 77), data,
                              data);
        EXPECT_EQ(r.first, status::aborted_failed_fused);
        EXPECT_EQ(r.second, status::invalid_namespace_or_format);
        r = co_await ask(q, half(nvme::nvm_opcode::compare, true, 77), half(nvme::nvm_opcode::write, inside), data,
                         data);
        EXPECT_EQ(r.first, status::invalid_namespace_or_format);
        EXPECT_EQ(r.second, status::aborted_failed_fused);
        nvme::sqe wrong = half(nvme::nvm_opcode::compare, false);
        wrong.dptr.identifier = 0x20;
        r = co_await ask(q, wrong, half(nvme::nvm_opcode::write, inside), {}, data);
        EXPECT_EQ(r.first, status::sgl_type_invalid);
        EXPECT_EQ(r.second, status::aborted_failed_fused);
    }
    // Something between them, and a second half alone.
    uint16_t a = q.submit(half(nvme::nvm_opcode::compare, true), data), b = q.submit(read_command(1, 0, 1)),
             c = q.submit(half(nvme::nvm_opcode::write, true), data);
    EXPECT_EQ((co_await q.reply_to(a)).code(), status::aborted_missing_fused);
    EXPECT_EQ((co_await q.reply_to(b)).code(), status::success);
    EXPECT_EQ((co_await q.reply_to(c)).code(), status::aborted_missing_fused);
    h.line.end();
    co_await q.until_closed();
}

TEST(nvmf_fused, ends_together) { test_target().run(ends_together); }

}  // namespace
}  // namespace varve::targets::nvmf::protocol_tests
