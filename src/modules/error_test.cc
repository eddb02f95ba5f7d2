#include "modules/error.h"

#include "bdev/awaits.h"
#include "bdev/test_module.h"

namespace varve::modules {
namespace {

using namespace bdev;

class error_test : public thread::in_every_world {};
#define ERROR_TEST(name) MODULE_TEST(TEST_IN_WORLDS, error_test, name, make_error())

task<> make_disk(module_system& s) { co_await s.bdevs.add({.name = "disk", .num_blocks = 64}); }

struct error_stack {
    descriptor opened;
    channel_ref channel;
    std::vector<std::byte> memory = pattern(1024, 3);
    task<status> ask(op what, uint64_t lba = 0) { return answer_to(*channel, what, lba, 2, memory); }
};
task<error_stack> make_error_stack(module_system& s) {
    co_await make_disk(s);
    co_await s.call("bdev_error_create", R"({"base_name": "disk"})");
    error_stack out{.opened = co_await s.open("EE_disk")};
    out.channel = out.opened.channel();
    co_return out;
}
task<> inject(module_system& s, std::string_view rest) {
    co_await s.call("bdev_error_inject_error", R"({"name": "EE_disk", )" + std::string(rest) + "}");
}

ERROR_TEST(come_as_often_as_asked_for) {
    error_stack e = co_await make_error_stack(s);
    EXPECT_EQ(co_await e.ask(op::read), status::ok);
    co_await inject(s, R"("io_type": "read", "error_type": "failure", "num": 2)");
    EXPECT_EQ(co_await e.ask(op::write), status::ok);
    EXPECT_EQ(co_await e.ask(op::read), status::failed);
    EXPECT_EQ(co_await e.ask(op::read), status::failed);
    EXPECT_EQ(co_await e.ask(op::read), status::ok);
    co_await inject(s, R"("io_type": "all", "error_type": "nomem")");
    for (op o : {op::read, op::write, op::unmap, op::flush}) {
        EXPECT_EQ(co_await e.ask(o), status::no_memory) << name_of(o);
        EXPECT_EQ(co_await e.ask(o), status::ok) << name_of(o);
    }
    EXPECT_EQ(co_await e.ask(op::write_zeroes), status::ok) << "never struck";
    co_await inject(s, R"("io_type": "write", "error_type": "nvme_failure", "nvme_sct": 2, "nvme_sc": 128)");
    EXPECT_EQ(co_await e.ask(op::write), nvme_status(2, 128));
    co_await inject(s, R"("io_type": "all", "error_type": "failure", "num": 9)");
    co_await inject(s, R"("io_type": "flush", "error_type": "failure", "num": 0)");
    EXPECT_EQ(co_await e.ask(op::flush), status::ok);
    EXPECT_EQ(co_await e.ask(op::read), status::failed);
    co_await inject(s, R"("io_type": "clear", "error_type": "failure")");
    for (op o : {op::read, op::write, op::unmap, op::flush}) EXPECT_EQ(co_await e.ask(o), status::ok) << name_of(o);
}

ERROR_TEST(keep_requests_until_resumed_or_reset) {
    error_stack e = co_await make_error_stack(s);
    co_await inject(s, R"("io_type": "read", "error_type": "pending", "num": 3)");
    std::array<pending, 3> kept{pending(op::read, 0, 2), pending(op::read, 0, 2), pending(op::read, 0, 2)};
    for (pending& r : kept) r.data(e.memory).go(*e.channel);
    EXPECT_EQ(co_await e.ask(op::read), status::ok) << "the fourth";
    EXPECT_FALSE(kept[0].done || kept[1].done || kept[2].done);
    EXPECT_TRUE(e.channel->abort(kept[1]));
    co_await kept[1].over.wait();
    EXPECT_EQ(kept[1].status, status::aborted);
    co_await s.call("bdev_error_resume_pending", R"({"name": "EE_disk"})");
    for (pending* r : {&kept[0], &kept[2]}) {
        co_await r->over.wait();
        EXPECT_EQ(r->status, status::ok);
    }
    co_await inject(s, R"("io_type": "write", "error_type": "pending", "num": 1)");
    pending w(op::write, 0, 2);
    w.data(e.memory).go(*e.channel);
    co_await reset(*e.channel);
    co_await w.over.wait();
    EXPECT_EQ(w.status, status::aborted);
    EXPECT_EQ(co_await e.ask(op::write), status::ok);
}

ERROR_TEST(wait_for_a_queue_depth) {
    error_stack e = co_await make_error_stack(s);
    co_await inject(s, R"("io_type": "read", "error_type": "failure", "num": 10, "queue_depth": 2)");
    EXPECT_EQ(co_await e.ask(op::read), status::ok);
    std::array<pending, 3> batch{pending(op::read, 0, 2), pending(op::read, 0, 2), pending(op::read, 0, 2)};
    for (pending& r : batch) r.data(e.memory).go(*e.channel);
    for (pending& r : batch) co_await r.over.wait();
    EXPECT_EQ(batch[0].status, status::ok);
    EXPECT_EQ(batch[1].status, status::ok);
    EXPECT_EQ(batch[2].status, status::failed) << "two were under way";
}

ERROR_TEST(corrupt_one_byte) {
    error_stack e = co_await make_error_stack(s);
    const auto good = e.memory;
    co_await inject(s,
                    R"("io_type": "write", "error_type": "corrupt_data", "corrupt_offset": 600, "corrupt_value": 7)");
    // In pieces, with the byte inside the second: the memory of whoever writes stays as it is.
    iovec pieces[] = {{e.memory.data(), 512}, {e.memory.data() + 512, 512}};
    pending w(op::write, 6, 2);
    w.iov = pieces;
    w.iov_count = 2;
    w.go(*e.channel);
    co_await w.over.wait();
    EXPECT_EQ(w.status, status::ok);
    EXPECT_EQ(w.iov, pieces);
    EXPECT_EQ(e.memory, good);
    std::vector<std::byte> in(1024);
    co_await read(*e.channel, 6, in);
    EXPECT_EQ(in[600], good[600] ^ std::byte{7});
    in[600] = good[600];
    EXPECT_EQ(in, good);

    co_await write(*e.channel, 6, good);
    co_await inject(s, R"("io_type": "read", "error_type": "corrupt_data", "corrupt_offset": 0, "corrupt_value": 1)");
    co_await read(*e.channel, 6, in);
    EXPECT_EQ(in[0], good[0] ^ std::byte{1});
    co_await read(*e.channel, 6, in);
    EXPECT_EQ(in, good) << "once";
    co_await inject(s, R"("io_type": "all", "error_type": "corrupt_data", "corrupt_offset": 1024, "corrupt_value": 1)");
    co_await write(*e.channel, 6, good);
    co_await read(*e.channel, 6, in);
    EXPECT_EQ(in, good) << "beyond the data";
}

ERROR_TEST(refuse) {
    error_stack e = co_await make_error_stack(s);
    auto code = [&](const char* rest) {
        return s.code("bdev_error_inject_error",
                      R"({"name": "EE_disk", "io_type": "read", )" + std::string(rest) + "}");
    };
    EXPECT_EQ(co_await code(R"("error_type": "nvme_failure")"), -22);
    EXPECT_EQ(co_await code(R"("error_type": "failure", "nvme_sc": 1)"), -22);
    EXPECT_EQ(co_await code(R"("error_type": "corrupt_data")"), -22);
    EXPECT_EQ(co_await code(R"("error_type": "corrupt_data", "corrupt_value": 256)"), -32602);
    EXPECT_EQ(co_await code(R"("error_type": "nvme_failure", "nvme_sct": 8)"), -32602);
    EXPECT_EQ(co_await code(R"("error_type": "other")"), -32602);
    EXPECT_EQ(
        co_await s.code("bdev_error_inject_error", R"({"name": "disk", "io_type": "read", "error_type": "failure"})"),
        -19);
    EXPECT_EQ(co_await s.code("bdev_error_resume_pending", R"({"name": "disk"})"), -19);
    EXPECT_EQ(co_await s.code("bdev_error_create", R"({"base_name": "disk"})"), -17);
    EXPECT_EQ(co_await s.code("bdev_error_delete", R"({"name": "EE_other"})"), -19);
    EXPECT_EQ(co_await e.ask(op::read), status::ok);
}

ERROR_TEST(what_is_saved_makes_the_same_again) {
    co_await make_disk(s);
    co_await s.call("bdev_error_create", R"({"base_name": "disk", "uuid": "11111111-2222-3333-4444-555555555555"})");
    co_await s.call("bdev_error_create", R"({"base_name": "nowhere"})");
    std::string lines = s.saved();
    EXPECT_NE(lines.find("nowhere"), std::string::npos) << lines;
    for (const char* name : {"EE_disk", "EE_nowhere"}) {
        co_await s.call("bdev_error_delete", R"({"name": ")" + std::string(name) + R"("})");
    }
    EXPECT_EQ(s.saved(), "");
    co_await s.load(lines);
    EXPECT_EQ(s.saved(), lines);
    EXPECT_EQ(s.find("EE_disk")->props().uuid.to_string(), "11111111-2222-3333-4444-555555555555");
}

INSTANTIATE_TEST_SUITE_P(worlds, error_test, thread::every_world(), thread::world_name);

}  // namespace
}  // namespace varve::modules
