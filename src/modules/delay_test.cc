#include "modules/delay.h"

#include "bdev/awaits.h"
#include "bdev/test_module.h"
#include "thread/awaits.h"

namespace varve::modules {
namespace {

using namespace bdev;

class delay_test : public thread::in_every_world {};
#define DELAY_TEST(name) MODULE_TEST(TEST_IN_WORLDS, delay_test, name, make_delay())

task<ram_device*> make_disk(module_system& s) { return s.bdevs.add({.name = "disk", .num_blocks = 64}); }

task<> make_delay_on(module_system& s, const char* base, uint64_t read_us, uint64_t p99_read_us, uint64_t write_us) {
    co_await s.call("bdev_delay_create", R"({"name": "d", "base_bdev_name": ")" + std::string(base) +
                                             R"(", "avg_read_latency": )" + std::to_string(read_us) +
                                             R"(, "p99_read_latency": )" + std::to_string(p99_read_us) +
                                             R"(, "avg_write_latency": )" + std::to_string(write_us) +
                                             R"(, "p99_write_latency": )" + std::to_string(write_us) + "}");
}
task<time_ns> time_of(channel& c, op what, std::span<std::byte> memory) {
    time_ns begin = thread::here().now();
    EXPECT_EQ(co_await answer_to(c, what, 0, 1, memory), status::ok);
    co_return thread::here().now() - begin;
}

DELAY_TEST(delays_reads_and_writes) {
    co_await make_disk(s);
    co_await make_delay_on(s, "disk", 2000, 2000, 5000);
    descriptor opened = co_await s.open("d");
    channel_ref c = opened.channel();
    std::vector<std::byte> memory(512);
    EXPECT_GE(co_await time_of(*c, op::read, memory), 2 * milliseconds);
    EXPECT_GE(co_await time_of(*c, op::write, memory), 5 * milliseconds);
    co_await flush(*c);
    co_await s.call("bdev_delay_update_latency",
                    R"({"delay_bdev_name": "d", "latency_type": "avg_read", "latency_us": 9000})");
    co_await s.call("bdev_delay_update_latency",
                    R"({"delay_bdev_name": "d", "latency_type": "p99_read", "latency_us": 9000})");
    EXPECT_GE(co_await time_of(*c, op::read, memory), 9 * milliseconds);
    // Many at once: all of them, each not before its time.
    std::array<pending, 3> batch{pending(op::read, 0, 1), pending(op::read, 1, 1), pending(op::write, 2, 1)};
    time_ns begin = thread::here().now();
    for (pending& r : batch) r.data(memory).go(*c);
    for (pending& r : batch) co_await r.over.wait();
    EXPECT_GE(thread::here().now() - begin, 9 * milliseconds);
}

DELAY_TEST(delayed_requests_can_be_recalled) {
    ram_device* disk = co_await make_disk(s);
    co_await make_delay_on(s, "disk", 3'600'000'000, 3'600'000'000, 3'600'000'000);
    descriptor opened = co_await s.open("d");
    channel_ref c = opened.channel();
    std::vector<std::byte> memory(512);
    pending aborted(op::read, 0, 1), reset_away(op::write, 0, 1);
    aborted.data(memory).go(*c);
    reset_away.data(memory).go(*c);
    // The base is done with them, so that they wait here.
    auto done_below = [&](op o) { return disk->opened.load()->stats(o).ops; };
    while (done_below(op::read) + done_below(op::write) != 2) co_await yield();
    EXPECT_TRUE(c->abort(aborted));
    co_await aborted.over.wait();
    EXPECT_EQ(aborted.status, status::aborted);
    EXPECT_FALSE(c->abort(aborted)) << "it is over";
    co_await reset(*c);
    EXPECT_TRUE(reset_away.done);
    EXPECT_EQ(reset_away.status, status::aborted);
}

// An hour or nothing: which it was is seen by whether it has come back.
DELAY_TEST(one_read_in_a_hundred_takes_longer) {
    ram_device* disk = co_await make_disk(s);
    co_await make_delay_on(s, "disk", 0, 3'600'000'000, 0);
    descriptor opened = co_await s.open("d");
    channel_ref c = opened.channel();
    std::vector<std::byte> memory(512);
    constexpr unsigned count = 3000;
    std::vector<std::unique_ptr<pending>> all;
    for (unsigned i = 0; i < count; ++i) {
        all.push_back(std::make_unique<pending>(op::read, 0, 1));
        all.back()->data(memory).go(*c);
    }
    while (disk->opened.load()->stats(op::read).ops != count) co_await yield();
    auto late = static_cast<unsigned>(std::ranges::count_if(all, [](const auto& r) { return !r->done; }));
    EXPECT_GE(late, 5u);
    EXPECT_LE(late, 90u);
    co_await reset(*c);
}

DELAY_TEST(refuse) {
    co_await make_disk(s);
    auto code = [&](const char* latencies) {
        return s.code("bdev_delay_create",
                      R"({"name": "d", "base_bdev_name": "disk", )" + std::string(latencies) + "}");
    };
    EXPECT_EQ(co_await code(
                  R"("avg_read_latency": 2, "p99_read_latency": 1, "avg_write_latency": 1, "p99_write_latency": 1)"),
              -22);
    EXPECT_EQ(co_await code(
                  R"("avg_read_latency": 1, "p99_read_latency": 1, "avg_write_latency": 2, "p99_write_latency": 1)"),
              -22);
    EXPECT_EQ(
        co_await code(
            R"("avg_read_latency": 1, "p99_read_latency": 18446744073709551615, "avg_write_latency": 2, "p99_write_latency": 2)"),
        -32602);
    EXPECT_EQ(s.find("d"), nullptr);
    EXPECT_EQ(co_await s.code("bdev_delay_update_latency",
                              R"({"delay_bdev_name": "disk", "latency_type": "avg_read", "latency_us": 1})"),
              -32602);
    EXPECT_EQ(co_await s.code("bdev_delay_delete", R"({"name": "disk"})"), -19);
}

DELAY_TEST(what_is_saved_makes_the_same_again) {
    co_await make_disk(s);
    co_await make_delay_on(s, "disk", 10, 20, 40);
    // More on average than at the worst: no creating call could say that.
    co_await s.call("bdev_delay_update_latency",
                    R"({"delay_bdev_name": "d", "latency_type": "avg_read", "latency_us": 50})");
    std::string lines = s.saved();
    co_await s.call("bdev_delay_delete", R"({"name": "d"})");
    EXPECT_EQ(s.saved(), "");
    co_await s.load(lines);
    EXPECT_EQ(s.saved(), lines);
    const json::value latencies = s.find("d")->driver_specific()["delay"];
    EXPECT_EQ(latencies["avg_read_latency"], json::value(50));
    EXPECT_EQ(latencies["p99_read_latency"], json::value(20));
    EXPECT_EQ(latencies["p99_write_latency"], json::value(40));
}

INSTANTIATE_TEST_SUITE_P(worlds, delay_test, thread::every_world(), thread::world_name);

}  // namespace
}  // namespace varve::modules
