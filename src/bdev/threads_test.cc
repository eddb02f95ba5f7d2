// A device used from several threads at once while the app thread freezes, resets, limits, resizes and removes it.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "bdev/core/device_state.h"
#include "bdev/test_device.h"
#include "thread/awaits.h"

namespace varve::bdev {
namespace {

class threads_test : public thread::in_every_world {};

// Threads that end when the scope's owner says so.
struct crew {
    crew(bdev_system& s, unsigned count) : system(s) {
        for (unsigned i = 0; i < count; ++i) {
            members.push_back(*s.system.rt->create_thread("worker" + std::to_string(i)));
        }
    }
    // f(index) -> task<> on each of them, at the same time; comes back when all are done.
    template <class Function>
    task<> all(Function f) {
        gate running;
        for (unsigned i = 0; i < members.size(); ++i) {
            running.spawn(call_on(*members[i], [f, i] { return f(i); }), thread::unexpected);
        }
        co_await running.close();
    }
    task<> dismiss() {
        // Channels close in their own time after the last reference.
        co_await sleep(2 * milliseconds);
        for (auto* t : members) system.system.rt->destroy_thread(*t);
    }
    bdev_system& system;
    std::vector<thread::thread*> members;
};

constexpr unsigned workers = 4;

// A reset recalls what waits at the gate; whoever wants it done asks again.
template <class Request>
task<> insist(Request ask) {
    for (;;) {
        result<> outcome = co_await as_result(ask());
        if (outcome || outcome.error().code() != errc::cancelled) co_return (co_await std::move(outcome));
    }
}

// Each thread has a region of its own, writes and reads it with everything there is, and checks every byte.
task<> exercise(descriptor& d, unsigned index, unsigned rounds) {
    channel_ref c = d.channel();
    const uint64_t base = index * 64;
    for (unsigned round = 0; round < rounds; ++round) {
        auto out = pattern(512 * 24 + 1, index * 1000 + round);
        std::span<std::byte> aligned(out.data(), 512 * 24), unaligned(out.data() + 1, 512 * 24);
        co_await insist([&] { return write(*c, base + 1, aligned); });
        std::vector<std::byte> in(aligned.size());
        co_await insist([&] { return read(*c, base + 1, in); });
        EXPECT_EQ(std::memcmp(in.data(), aligned.data(), in.size()), 0);
        co_await insist([&] { return write(*c, base + 32, unaligned); });
        co_await insist([&] { return copy(*c, base + 32, base + 4, 24); });
        co_await insist([&] { return compare(*c, base + 4, unaligned); });
        co_await insist([&] { return compare_and_write(*c, base + 4, unaligned, aligned); });
        co_await insist([&] { return compare(*c, base + 4, aligned); });
        co_await insist([&] { return write_zeroes(*c, base + 4, 24); });
        co_await insist([&] { return read(*c, base + 4, in); });
        EXPECT_EQ(std::ranges::count(in, std::byte{0}), std::ssize(in));
        if (round % 4 == 0) c = d.channel();  // the same, or a new one
    }
}

task<> uses_one_device(bdev_system& s) {
    crew threads(s, workers);
    ram_device* d = co_await s.add(
        {.num_blocks = workers * 64, .alignment = 8, .optimal_io_boundary = 16, .split_on_boundary = true});
    descriptor opened = co_await s.open(*d);
    co_await threads.all([&](unsigned i) { return exercise(opened, i, 20); });
    device_state& state = device_state::of_device(*d);
    channel_stats sum = co_await state.stats();
    EXPECT_EQ(sum[op::write].ops, workers * 20u * 2);
    EXPECT_EQ(sum[op::compare_and_write].ops, workers * 20u);
    co_await threads.dismiss();
}
TEST_IN_WORLDS(threads_test, share_a_device) {
    bdev_system s(GetParam(), 2);
    s.run(uses_one_device(s));
}

task<> disturb(bdev_system& s, ram_device& d, bool& stop) {
    device_state& state = device_state::of_device(d);
    for (unsigned n = 0; !stop; ++n) {
        switch (n % 7) {
            case 6:
                co_await s.devices.drain(d);
                break;
            case 0: {
                registry::frozen held = co_await s.devices.freeze(d);
                co_await yield();
                break;
            }
            case 1:
                co_await s.devices.reset(d);
                break;
            case 2:
                co_await state.set_limits(n % 12 < 6 ? rate_limits{.rw_ios_per_sec = 1'000'000} : rate_limits{});
                break;
            case 3:
                co_await state.set_histogram(n % 12 < 6 ? std::optional<histogram_options>(histogram_options{})
                                                        : std::nullopt);
                break;
            case 4:
                co_await s.devices.resize(d, workers * 64 - n % 2);  // the last block is nobody's
                break;
            default:
                co_await state.stats();
                co_await state.histogram();
        }
        co_await yield();
    }
}

task<> survives(bdev_system& s) {
    crew threads(s, workers);
    ram_device* d = co_await s.add(
        {.num_blocks = workers * 64, .alignment = 8, .optimal_io_boundary = 16, .split_on_boundary = true});
    descriptor opened = co_await s.open(*d);
    bool stop = false;
    gate tasks;
    tasks.spawn(disturb(s, *d, stop), thread::unexpected);
    co_await threads.all([&](unsigned i) { return exercise(opened, i, 20); });
    stop = true;
    co_await tasks.close();
    EXPECT_GT(d->resets, 0u);
    co_await threads.dismiss();
}
TEST_IN_WORLDS(threads_test, go_on_through_freezes_resets_limits_and_resizes) {
    bdev_system s(GetParam(), 2);
    s.run(survives(s));
}

// A counter in block 0 that everybody increments: none of the increments may be lost.
task<> increment(descriptor& d, unsigned times) {
    channel_ref c = d.channel();
    std::vector<std::byte> before(512), after(512);
    for (unsigned done = 0; done < times;) {
        co_await read(*c, 0, before);
        after = before;
        uint64_t value = 0;
        std::memcpy(&value, before.data(), 8);
        ++value;
        std::memcpy(after.data(), &value, 8);
        result<> outcome = co_await as_result(compare_and_write(*c, 0, before, after));
        if (outcome) {
            ++done;
        } else {
            EXPECT_EQ(outcome.error().code(), errc::bad_sequence) << outcome.error().message();
        }
    }
}
task<> counts(bdev_system& s) {
    crew threads(s, workers);
    ram_device* d = co_await s.add({.num_blocks = 64});
    descriptor opened = co_await s.open(*d);
    co_await threads.all([&](unsigned) { return increment(opened, 50); });
    uint64_t value = 0;
    std::memcpy(&value, d->blocks.data(), 8);
    EXPECT_EQ(value, workers * 50u);
    EXPECT_TRUE(device_state::of_device(*d).locks.empty());
    co_await threads.dismiss();
}
TEST_IN_WORLDS(threads_test, compare_and_write_loses_nothing) {
    bdev_system s(GetParam(), 2);
    s.run(counts(s));
}

// Keeps requests under way until one fails because the device has gone.
task<> load_until_gone(descriptor& d, unsigned index, std::atomic<unsigned>& served) {
    channel_ref c = d.channel();
    std::vector<std::byte> memory(4096);
    for (;;) {
        std::array<pending, 4> batch{pending(op::write, index * 8, 8), pending(op::write, index * 8, 8),
                                     pending(op::read, index * 8, 8), pending(op::write_zeroes, index * 8, 8)};
        for (pending& p : batch) p.data(memory).go(*c);
        bool gone = false;
        for (pending& p : batch) {
            co_await p.over.wait();
            if (p.status == status::ok) ++served;
            EXPECT_TRUE(p.status == status::ok || p.status == status::no_device) << text_of(p.status);
            gone |= p.status == status::no_device;
        }
        if (gone) co_return;
    }
}
task<> removed_under_load(bdev_system& s) {
    crew threads(s, workers);
    ram_device* d = co_await s.add({.num_blocks = 64});
    bool destructed = false;
    d->destructed = &destructed;
    event told;
    descriptor opened = co_await s.devices.open("ram", open_mode::read_write, [&](device_event) { told.set(); });
    std::array<std::atomic<unsigned>, workers> served{};
    gate tasks;
    tasks.spawn(threads.all([&](unsigned i) { return load_until_gone(opened, i, served[i]); }), thread::unexpected);
    // However slow the machine is: all are at it when the device goes.
    while (std::ranges::any_of(served, [](const auto& n) { return n == 0; })) co_await sleep(1 * milliseconds);
    gate removal;
    removal.spawn(s.devices.remove("ram"), thread::unexpected);
    co_await told.wait();
    co_await tasks.close();
    EXPECT_FALSE(destructed);
    opened.close();
    co_await removal.close();
    EXPECT_TRUE(destructed);
    co_await threads.dismiss();
}
TEST_IN_WORLDS(threads_test, drain_when_the_device_goes) {
    bdev_system s(GetParam(), 2);
    s.run(removed_under_load(s));
}

// Channels that come and go leave what they counted.
task<> come_and_go(descriptor& d, unsigned times) {
    std::vector<std::byte> memory(512);
    for (unsigned i = 0; i < times; ++i) {
        channel_ref c = d.channel();
        co_await read(*c, 0, memory);
        c = {};
        if (i % 3 == 0) co_await yield();
        if (i % 7 == 0) co_await sleep(10 * microseconds);
    }
}
task<> counts_of_closed_channels(bdev_system& s) {
    crew threads(s, workers);
    ram_device* d = co_await s.add({.num_blocks = 64});
    device_state& state = device_state::of_device(*d);
    co_await state.set_histogram(histogram_options{});
    descriptor opened = co_await s.open(*d);
    co_await threads.all([&](unsigned) { return come_and_go(opened, 50); });
    while (state.writers.channels() != 0) co_await sleep(1 * milliseconds);
    EXPECT_EQ((co_await state.stats())[op::read].ops, workers * 50u);
    EXPECT_EQ((co_await state.histogram())->total(), workers * 50u);
    EXPECT_EQ(state.past.stats[op::read].ops, workers * 50u);
    co_await state.reset_stats(stats_reset::all);
    EXPECT_EQ((co_await state.stats())[op::read].ops, 0u);
    co_await threads.dismiss();
}
TEST_IN_WORLDS(threads_test, leave_their_statistics) {
    bdev_system s(GetParam(), 2);
    s.run(counts_of_closed_channels(s));
}

// Until it is refused; each time through a channel of its own.
task<> write_while_it_can(descriptor& d, unsigned index, std::atomic<unsigned>& written) {
    auto block = pattern(512, index);
    for (;;) {
        channel_ref c = d.channel();
        if (!co_await as_result(write(*c, index, block))) break;
        ++written;
        EXPECT_TRUE(d->supports(op::read));
    }
    EXPECT_FALSE(d->supports(op::write));
}

task<> becomes_read_only(bdev_system& s) {
    crew threads(s, workers);
    ram_device* d = co_await s.add({.num_blocks = 64});
    descriptor opened = co_await s.open(*d);
    std::atomic<unsigned> written = 0;
    gate changing;
    auto change = [](bdev_system& of, ram_device& target, const std::atomic<unsigned>& count) -> task<> {
        while (count < 100) co_await yield();
        co_await of.devices.make_read_only(target);
    };
    changing.spawn(change(s, *d, written), thread::unexpected);
    co_await threads.all([&](unsigned i) { return write_while_it_can(opened, i, written); });
    co_await changing.close();
    co_await threads.dismiss();
}
TEST_IN_WORLDS(threads_test, are_stopped_when_it_becomes_read_only) {
    bdev_system s(GetParam(), 2);
    s.run(becomes_read_only(s));
}

task<> read_once(descriptor& d, channel_ref& with) {
    with = d.channel();
    std::vector<std::byte> memory(512);
    co_await read(*with, 0, memory);
}
// What a channel counted is on its way to the app thread when the device goes.
task<> removed_with_counts_under_way(bdev_system& s) {
    crew threads(s, 1);
    ram_device* d = co_await s.add({.num_blocks = 64});
    descriptor opened = co_await s.open(*d);
    channel_ref held;
    co_await threads.all([&](unsigned) { return read_once(opened, held); });
    // This thread does nothing else until the channel has gone, so that what it counted is in the mailbox.
    threads.members[0]->post([&held] { held = {}; });
    const auto& channels = device_state::of_device(*d).channels(true);
    while (channels.channels() != 0) std::this_thread::yield();
    opened.close();
    co_await s.devices.remove("ram");
    co_await threads.dismiss();
}
// Not in simulation, where nothing else runs while a thread waits like this.
TEST_P(threads_test, are_heard_before_the_device_goes) {
    bdev_system s(GetParam(), 2);
    s.run(removed_with_counts_under_way(s));
}

task<> read_for(descriptor& d, time_ns how_long, uint64_t& done) {
    channel_ref c = d.channel();
    std::vector<std::byte> memory(512);
    time_ns end = thread::here().now() + how_long;
    std::array<pending, 8> batch{pending(op::read, 0, 1), pending(op::read, 1, 1), pending(op::read, 2, 1),
                                 pending(op::read, 3, 1), pending(op::read, 4, 1), pending(op::read, 5, 1),
                                 pending(op::read, 6, 1), pending(op::read, 7, 1)};
    while (thread::here().now() < end) {
        for (pending& p : batch) {
            p.over.reset();
            p.data(memory).go(*c);
        }
        for (pending& p : batch) co_await p.over.wait();
        done += batch.size();
    }
}
task<> limits_the_sum(bdev_system& s, bool time_is_ours) {
    crew threads(s, workers);
    ram_device* d = co_await s.add({.num_blocks = 64});
    device_state& state = device_state::of_device(*d);
    co_await state.set_limits({.rw_ios_per_sec = 20'000});
    descriptor opened = co_await s.open(*d);
    std::array<uint64_t, workers> done{};
    time_ns begin = thread::here().now();
    co_await threads.all([&](unsigned i) { return read_for(opened, 200 * milliseconds, done[i]); });
    co_await yield();
    time_ns took = thread::here().now() - begin;
    uint64_t sum = 0;
    for (uint64_t n : done) {
        EXPECT_GT(n, 0u);
        sum += n;
    }
    // Never more than the rate, a saved burst and one share a channel. At least half of it, too, where nobody else
    // takes the processor.
    double allowed = 20'000.0 * static_cast<double>(took) / 1e9;
    EXPECT_LE(static_cast<double>(sum), allowed + 20.0 * 10 + workers * 9);
    if (time_is_ours) EXPECT_GE(static_cast<double>(sum), allowed / 2);
    co_await threads.dismiss();
}
TEST_IN_WORLDS(threads_test, share_a_rate_limit) {
    bdev_system s(GetParam(), 2);
    s.run(limits_the_sum(s, GetParam() == thread::world_kind::sim));
}

INSTANTIATE_TEST_SUITE_P(worlds, threads_test, thread::every_world(), thread::world_name);

}  // namespace
}  // namespace varve::bdev
