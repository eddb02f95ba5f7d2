// Requests that do not go straight through: split, bounced, emulated, held, limited, aborted. Over real reactors.
#include "bdev/channel.h"

#include <gtest/gtest.h>

#include "bdev/core/device_state.h"
#include "bdev/test_device.h"
#include "thread/awaits.h"

namespace varve::bdev {
namespace {

class channel_test : public thread::in_every_world {};

#define BDEV_TEST_IN(worlds, name) \
    task<> name(bdev_system& s);   \
    worlds(channel_test, name) {   \
        bdev_system s(GetParam()); \
        s.run(name(s));            \
    }                              \
    task<> name(bdev_system& s)
#define BDEV_TEST(name) BDEV_TEST_IN(TEST_IN_WORLDS, name)
// Nothing here depends on the order of events, and a thousand times would take long.
#define LONG_BDEV_TEST(name) BDEV_TEST_IN(TEST_P, name)

BDEV_TEST(writes_and_reads) {
    ram_device* d = co_await s.add({.num_blocks = 64});
    descriptor opened = co_await s.open(*d);
    channel_ref c = opened.channel();
    auto out = pattern(4096, 1);
    co_await write(*c, 8, out);
    std::vector<std::byte> in(4096);
    co_await read(*c, 8, in);
    EXPECT_EQ(in, out);
    EXPECT_EQ(c->stats(op::write).ops, 1u);
    EXPECT_EQ(c->stats(op::read).blocks, 8u);
    EXPECT_EQ(c->in_flight(), 0u);
}

task<status> answer_to(channel& c, op what, uint64_t lba, uint32_t blocks, std::span<std::byte> memory = {}) {
    pending r(what, lba, blocks);
    r.data(memory);
    r.go(c);
    co_await r.over.wait();
    co_return r.status;
}

BDEV_TEST(refuses_what_cannot_be) {
    ram_device* d = co_await s.add({.num_blocks = 64});
    descriptor opened = co_await s.open(*d);
    channel_ref c = opened.channel();
    std::vector<std::byte> memory(512 * 65);
    EXPECT_EQ(co_await answer_to(*c, op::read, 0, 0, memory), status::invalid);
    EXPECT_EQ(co_await answer_to(*c, op::read, 64, 1, memory), status::out_of_range);
    EXPECT_EQ(co_await answer_to(*c, op::read, 0, 65, memory), status::out_of_range);
    EXPECT_EQ(co_await answer_to(*c, op::write, UINT64_MAX, 1, memory), status::out_of_range);
    EXPECT_EQ(co_await answer_to(*c, op::write, UINT64_MAX - 3, 8, memory), status::out_of_range);
    EXPECT_EQ(co_await answer_to(*c, op::nvme_admin, 0, 0), status::unsupported);
    EXPECT_EQ(co_await answer_to(*c, op::flush, 0, 0), status::ok);
    EXPECT_EQ(co_await answer_to(*c, op::write, 63, 1, memory), status::ok);
}

BDEV_TEST(a_read_only_descriptor_reads) {
    ram_device* d = co_await s.add({.num_blocks = 64});
    descriptor opened = co_await s.open(*d, open_mode::read_only);
    channel_ref c = opened.channel();
    std::vector<std::byte> memory(512);
    EXPECT_EQ(co_await answer_to(*c, op::read, 0, 1, memory), status::ok);
    for (op o : {op::write, op::unmap, op::write_zeroes, op::copy, op::compare_and_write}) {
        EXPECT_EQ(co_await answer_to(*c, o, 0, 1, memory), status::read_only) << name_of(o);
    }
    EXPECT_EQ(co_await answer_to(*c, op::compare, 0, 1, memory), status::ok);
}

BDEV_TEST(a_read_only_device_reads) {
    ram_device* d = co_await s.add({.num_blocks = 64, .read_only = true});
    descriptor opened = co_await s.open(*d);
    channel_ref c = opened.channel();
    std::vector<std::byte> memory(512);
    EXPECT_EQ(co_await answer_to(*c, op::write, 0, 1, memory), status::read_only);
    EXPECT_EQ(co_await answer_to(*c, op::write_zeroes, 0, 1), status::read_only);
}

// Writes pieces of memory of odd sizes through every combination of limits and reads them back in one piece.
LONG_BDEV_TEST(splits) {
    unsigned n = 0;
    for (uint32_t boundary : {0u, 8u, 32u}) {
        for (uint32_t most : {0u, 3u, 16u}) {
            for (uint32_t segments : {0u, 1u, 2u, 4u}) {
                ram_device* d = co_await s.add({.name = "ram" + std::to_string(n++),
                                                .num_blocks = 1024,
                                                .optimal_io_boundary = boundary,
                                                .split_on_boundary = boundary != 0,
                                                .max_blocks = most,
                                                .max_segments = segments});
                descriptor opened = co_await s.open(*d);
                channel_ref c = opened.channel();
                auto out = pattern(512 * 301, n);
                std::vector<iovec> pieces;
                for (std::size_t at = 0, i = 0; at < out.size(); ++i) {
                    std::size_t size = std::min<std::size_t>(out.size() - at, 1 + i * 397 % 5000);
                    pieces.push_back({out.data() + at, size});
                    at += size;
                }
                pending w(op::write, 5, 301);
                w.iov = pieces.data();
                w.iov_count = static_cast<uint32_t>(pieces.size());
                w.go(*c);
                co_await w.over.wait();
                EXPECT_EQ(w.status, status::ok);
                EXPECT_EQ(std::memcmp(d->blocks.data() + 5 * 512, out.data(), out.size()), 0);
                std::vector<std::byte> in(out.size());
                co_await read(*c, 5, in);
                EXPECT_TRUE(in == out) << boundary << " " << most << " " << segments;
                EXPECT_EQ(c->stats(op::write).ops, 1u);
                EXPECT_EQ(c->stats(op::write).blocks, 301u);
            }
        }
    }
}

BDEV_TEST(splits_more_requests_than_there_are_parts) {
    ram_device* d = co_await s.add({.num_blocks = 4096, .max_blocks = 1});
    descriptor opened = co_await s.open(*d);
    channel_ref c = opened.channel();
    auto out = pattern(512 * 32, 1);
    std::vector<std::unique_ptr<pending>> all;
    for (unsigned i = 0; i < 100; ++i) {
        all.push_back(std::make_unique<pending>(op::write, i * 32, 32));
        all.back()->data(out).go(*c);
    }
    for (auto& r : all) {
        co_await r->over.wait();
        EXPECT_EQ(r->status, status::ok);
    }
    for (unsigned i = 0; i < 100; ++i)
        EXPECT_EQ(std::memcmp(d->blocks.data() + i * 32 * 512, out.data(), out.size()), 0);
}

BDEV_TEST(a_split_request_fails_once_and_whole) {
    ram_device* d = co_await s.add({.num_blocks = 4096, .max_blocks = 1}, {.answer = status::media_error});
    descriptor opened = co_await s.open(*d);
    channel_ref c = opened.channel();
    auto out = pattern(512 * 32, 1);
    EXPECT_EQ(co_await answer_to(*c, op::write, 0, 32, out), status::media_error);
    EXPECT_EQ(c->in_flight(), 0u);
}

BDEV_TEST(less_memory_than_blocks_is_invalid) {
    ram_device* d = co_await s.add({.num_blocks = 4096, .max_blocks = 4});
    descriptor opened = co_await s.open(*d);
    channel_ref c = opened.channel();
    auto out = pattern(512 * 6, 1);
    EXPECT_EQ(co_await answer_to(*c, op::write, 0, 32, out), status::invalid);
}

LONG_BDEV_TEST(bounces_memory_that_is_not_aligned) {
    ram_device* d = co_await s.add({.num_blocks = 4096, .alignment = 512, .max_blocks = 100});
    descriptor opened = co_await s.open(*d);
    channel_ref c = opened.channel();
    for (std::size_t shift : {1u, 7u, 256u, 511u}) {
        auto out = pattern(512 * 700 + shift, static_cast<unsigned>(shift));
        std::span<std::byte> unaligned(out.data() + shift, 512 * 700);
        co_await write(*c, 3, unaligned);
        EXPECT_EQ(std::memcmp(d->blocks.data() + 3 * 512, unaligned.data(), unaligned.size()), 0);
        std::vector<std::byte> in(512 * 700 + shift);
        co_await read(*c, 3, {in.data() + shift, 512 * 700});
        EXPECT_EQ(std::memcmp(in.data() + shift, unaligned.data(), unaligned.size()), 0);
    }
}

BDEV_TEST(bounces_more_requests_than_there_are_buffers) {
    ram_device* d = co_await s.add({.num_blocks = 4096, .alignment = 512});
    descriptor opened = co_await s.open(*d);
    channel_ref c = opened.channel();
    auto out = pattern(4097, 1);
    std::vector<std::unique_ptr<pending>> all;
    for (unsigned i = 0; i < 100; ++i) {
        all.push_back(std::make_unique<pending>(op::write, i * 8, 8));
        all.back()->data({out.data() + 1, 4096}).go(*c);
    }
    for (auto& r : all) {
        co_await r->over.wait();
        EXPECT_EQ(r->status, status::ok);
    }
    EXPECT_EQ(std::memcmp(d->blocks.data() + 99 * 4096, out.data() + 1, 4096), 0);
    const auto& pool = thread::buffer_pool::of(*thread::thread::current());
    EXPECT_EQ(pool.buffers_in_use(), 0u);
    EXPECT_EQ(pool.stats(thread::buffer_pool::class_of(4096)).grown, 1u) << "kept for the next";
    EXPECT_EQ(pool.stats(thread::buffer_pool::class_of(8192)).grown, 0u) << "no more than they need";
}

LONG_BDEV_TEST(emulates_zeroes_compare_and_copy) {
    for (uint32_t most : {0u, 7u}) {
        ram_device* d = co_await s.add({.name = "ram" + std::to_string(most), .num_blocks = 4096, .max_blocks = most});
        descriptor opened = co_await s.open(*d);
        channel_ref c = opened.channel();
        auto out = pattern(512 * 4096, 1);
        co_await write(*c, 0, out);
        for (op o : {op::unmap, op::write_zeroes}) {
            std::memcpy(d->blocks.data(), out.data(), out.size());
            EXPECT_EQ(co_await answer_to(*c, o, 100, 1000), status::ok);
            auto expected = out;
            std::memset(expected.data() + 100 * 512, 0, 1000 * 512);
            EXPECT_TRUE(d->blocks == expected);
        }
        std::memcpy(d->blocks.data(), out.data(), out.size());
        auto same = std::vector<std::byte>(out.begin() + 512, out.begin() + 512 * 1001);
        EXPECT_EQ(co_await answer_to(*c, op::compare, 1, 1000, same), status::ok);
        same.back() ^= std::byte{1};
        EXPECT_EQ(co_await answer_to(*c, op::compare, 1, 1000, same), status::compare_failed);

        // Forwards, backwards, overlapping both ways.
        for (auto [from, to] : {std::pair{0u, 2000u}, {2000u, 0u}, {100u, 150u}, {150u, 100u}}) {
            std::memcpy(d->blocks.data(), out.data(), out.size());
            co_await copy(*c, from, to, 1000);
            auto expected = out;
            std::memmove(expected.data() + to * 512, expected.data() + from * 512, 1000 * 512);
            EXPECT_TRUE(d->blocks == expected) << from << " " << to;
        }
    }
}

BDEV_TEST(compares_and_writes) {
    ram_device* d = co_await s.add({.num_blocks = 64});
    descriptor opened = co_await s.open(*d);
    channel_ref c = opened.channel();
    auto before = pattern(1024, 1), after = pattern(1024, 2);
    co_await write(*c, 4, before);
    co_await compare_and_write(*c, 4, before, after);
    EXPECT_EQ(std::memcmp(d->blocks.data() + 4 * 512, after.data(), 1024), 0);
    result<> again = co_await as_result(compare_and_write(*c, 4, before, after));
    EXPECT_EQ(again.error().code(), errc::bad_sequence) << again.error().message();
    EXPECT_EQ(c->stats(op::compare_and_write).ops, 2u);
}

// While a compare-and-write that the device cannot do is under way, writes to its blocks wait and others do not.
BDEV_TEST(a_compare_and_write_is_alone_in_its_range) {
    ram_device* d = co_await s.add({.num_blocks = 64}, {.keep = true});
    descriptor opened = co_await s.open(*d);
    channel_ref c = opened.channel();
    std::vector<std::byte> zeroes(1024), memory(512);
    pending before(op::write, 4, 1);
    before.data(memory).go(*c);
    pending both(op::compare_and_write, 4, 1);
    both.data(zeroes).go(*c);
    for (int i = 0; i < 5; ++i) co_await yield();
    EXPECT_EQ(d->opened.load()->kept(), 1u);  // it waits for the write that was there before
    pending later(op::write_zeroes, 3, 4), elsewhere(op::write, 5, 1), reader(op::read, 4, 1);
    later.go(*c);
    elsewhere.data(memory).go(*c);
    reader.data(memory).go(*c);
    for (int i = 0; i < 5; ++i) co_await yield();
    EXPECT_EQ(d->opened.load()->kept(), 3u);
    d->opened.load()->let_go();
    co_await elsewhere.over.wait();
    co_await reader.over.wait();
    for (int i = 0; i < 5; ++i) co_await yield();
    EXPECT_TRUE(before.done);
    EXPECT_FALSE(later.done);
    EXPECT_FALSE(both.done);
    EXPECT_EQ(d->opened.load()->kept(), 4u);  // its read
    d->behaviour.keep = false;
    d->opened.load()->let_go();
    co_await later.over.wait();
    EXPECT_TRUE(both.done);
    EXPECT_EQ(both.status, status::ok);
    EXPECT_EQ(later.status, status::ok);
}

BDEV_TEST(a_freeze_waits_and_holds) {
    ram_device* d = co_await s.add({.num_blocks = 64}, {.keep = true});
    descriptor opened = co_await s.open(*d);
    channel_ref c = opened.channel();
    std::vector<std::byte> memory(512);
    pending first(op::write, 0, 1), second(op::write, 1, 1);
    first.data(memory).go(*c);
    bool quiet = false;
    gate tasks;
    event may_thaw;
    auto freezer = [](bdev_system& sys, device& dev, bool& is_quiet, event& go_on) -> task<> {
        registry::frozen held = co_await sys.devices.freeze(dev);
        is_quiet = true;
        co_await go_on.wait();
    };
    tasks.spawn(freezer(s, *d, quiet, may_thaw), thread::unexpected);
    for (int i = 0; i < 5; ++i) co_await yield();
    EXPECT_FALSE(quiet);
    d->behaviour.keep = false;
    d->opened.load()->let_go();
    co_await first.over.wait();
    for (int i = 0; i < 5; ++i) co_await yield();
    EXPECT_TRUE(quiet);
    second.data(memory).go(*c);
    for (int i = 0; i < 5; ++i) co_await yield();
    EXPECT_FALSE(second.done);
    may_thaw.set();
    co_await second.over.wait();
    EXPECT_EQ(second.status, status::ok);
    co_await tasks.close();
}

BDEV_TEST(a_reset_recalls_what_it_can) {
    ram_device* d = co_await s.add({.num_blocks = 64}, {.keep = true, .recall = true});
    descriptor opened = co_await s.open(*d);
    channel_ref c = opened.channel();
    std::vector<std::byte> memory(512);
    pending before(op::write, 0, 1);
    before.data(memory).go(*c);
    pending reset_request(op::reset);
    reset_request.go(*c);
    co_await before.over.wait();
    EXPECT_EQ(before.status, status::aborted);
    d->behaviour.keep = false;
    co_await reset_request.over.wait();
    EXPECT_EQ(reset_request.status, status::ok);
    EXPECT_EQ(d->resets, 1u);
    co_await write(*c, 0, memory);
}

BDEV_TEST(requests_submitted_during_a_reset_wait_for_its_end) {
    ram_device* d = co_await s.add({.num_blocks = 64}, {.keep = true});
    descriptor opened = co_await s.open(*d);
    channel_ref c = opened.channel();
    std::vector<std::byte> memory(512);
    pending before(op::write, 0, 1), reset_request(op::reset), after(op::write, 1, 1);
    before.data(memory).go(*c);
    reset_request.go(*c);
    for (int i = 0; i < 5; ++i) co_await yield();
    after.data(memory).go(*c);
    for (int i = 0; i < 5; ++i) co_await yield();
    EXPECT_FALSE(reset_request.done);
    EXPECT_FALSE(after.done);
    d->behaviour.keep = false;
    d->opened.load()->let_go();
    co_await after.over.wait();
    EXPECT_EQ(before.status, status::ok);
    EXPECT_EQ(after.status, status::ok);
    EXPECT_TRUE(reset_request.done);
}

BDEV_TEST(aborts_where_it_can) {
    ram_device* d = co_await s.add({.num_blocks = 64}, {.keep = true});
    descriptor opened = co_await s.open(*d);
    channel_ref c = opened.channel();
    std::vector<std::byte> memory(512);
    pending kept(op::write, 0, 1);
    kept.data(memory).go(*c);
    EXPECT_FALSE(c->abort(kept));
    d->behaviour.recall = true;
    EXPECT_TRUE(c->abort(kept));
    EXPECT_FALSE(kept.done);
    co_await kept.over.wait();
    EXPECT_EQ(kept.status, status::aborted);

    registry::frozen held = co_await s.devices.freeze(*d);
    pending waits(op::write, 0, 1);
    waits.data(memory).go(*c);
    EXPECT_TRUE(c->abort(waits));
    co_await waits.over.wait();
    EXPECT_EQ(waits.status, status::aborted);
}

BDEV_TEST(grows_and_shrinks) {
    ram_device* d = co_await s.add({.num_blocks = 64});
    unsigned resized = 0;
    descriptor opened = co_await s.devices.open("ram", open_mode::read_write, [&](device_event e) {
        EXPECT_EQ(e, device_event::resized);
        ++resized;
    });
    channel_ref c = opened.channel();
    std::vector<std::byte> memory(512);
    EXPECT_EQ(co_await answer_to(*c, op::read, 64, 1, memory), status::out_of_range);
    d->blocks.resize(128 * 512);
    co_await s.devices.resize(*d, 128);
    EXPECT_EQ(resized, 1u);
    EXPECT_EQ(co_await answer_to(*c, op::read, 127, 1, memory), status::ok);
    co_await s.devices.resize(*d, 32);
    EXPECT_EQ(resized, 2u);
    EXPECT_EQ(co_await answer_to(*c, op::read, 32, 1, memory), status::out_of_range);
    EXPECT_EQ(co_await answer_to(*c, op::read, 31, 1, memory), status::ok);
    EXPECT_EQ(d->num_blocks(), 32u);
}

// What was let in before the end moved is done before it moves: nobody finds a block gone that was there.
BDEV_TEST(a_shrink_waits_for_what_is_under_way) {
    ram_device* d = co_await s.add({.num_blocks = 64}, {.keep = true});
    descriptor opened = co_await s.open(*d);
    channel_ref c = opened.channel();
    std::vector<std::byte> memory(512);
    pending under_way(op::write, 60, 1), behind(op::write, 60, 1);
    under_way.data(memory).go(*c);
    for (int i = 0; i < 5; ++i) co_await yield();  // the channel has joined
    EXPECT_EQ(d->opened.load()->kept(), 1u);
    gate tasks;
    tasks.spawn(s.devices.resize(*d, 32), thread::unexpected);
    for (int i = 0; i < 20; ++i) co_await yield();
    EXPECT_EQ(d->num_blocks(), 64u);
    behind.data(memory).go(*c);
    EXPECT_FALSE(under_way.done);
    d->behaviour.keep = false;
    d->opened.load()->let_go();
    co_await tasks.close();
    EXPECT_EQ(under_way.status, status::ok);
    co_await behind.over.wait();
    EXPECT_EQ(behind.status, status::out_of_range);
    EXPECT_EQ(d->num_blocks(), 32u);
}

// A channel that is opened while something holds for the device holds to it, too.
BDEV_TEST(who_joins_late_is_told_what_holds) {
    ram_device* d = co_await s.add({.num_blocks = 64});
    device_state& state = device_state::of_device(*d);
    descriptor opened = co_await s.open(*d);
    std::vector<std::byte> memory(512), two_blocks(1024);
    {
        registry::frozen quiet = co_await s.devices.freeze(*d);
        channel_ref c = opened.channel();
        pending r(op::read, 0, 1);
        r.data(memory).go(*c);
        for (int i = 0; i < 20; ++i) co_await yield();
        EXPECT_FALSE(r.done) << "frozen";
        quiet = {};
        co_await r.over.wait();
        EXPECT_EQ(r.status, status::ok);
    }
    while (state.writers.channels() != 0) co_await yield();
    {
        uint64_t lock = co_await state.lock({8, 15});
        channel_ref c = opened.channel();
        pending inside(op::write, 15, 2), beside(op::write, 16, 1);
        inside.data(two_blocks).go(*c);
        beside.data(memory).go(*c);
        co_await beside.over.wait();
        for (int i = 0; i < 20; ++i) co_await yield();
        EXPECT_FALSE(inside.done) << "its range is locked";
        state.unlock(lock);
        co_await inside.over.wait();
        EXPECT_EQ(inside.status, status::ok);
    }
    while (state.writers.channels() != 0) co_await yield();
    co_await state.set_histogram(histogram_options{});
    co_await state.set_limits({.rw_ios_per_sec = 1000});
    {
        channel_ref c = opened.channel();
        std::vector<std::unique_ptr<pending>> many;
        time_ns begin = thread::here().now();
        for (int i = 0; i < 60; ++i) {
            many.push_back(std::make_unique<pending>(op::read, 0, 1));
            many.back()->data(memory).go(*c);
        }
        for (auto& r : many) co_await r->over.wait();
        EXPECT_GE(thread::here().now() - begin, 20 * milliseconds) << "limited";
        EXPECT_EQ((co_await state.histogram())->total(), 60u);
    }
}

BDEV_TEST(who_joins_during_a_reset_waits_for_its_end) {
    ram_device* d = co_await s.add({.num_blocks = 64});
    event over;
    d->reset_ends = &over;
    descriptor opened = co_await s.open(*d);
    gate tasks;
    tasks.spawn(device_state::of_device(*d).reset(), thread::unexpected);
    while (d->resets == 0) co_await yield();
    channel_ref c = opened.channel();
    std::vector<std::byte> memory(512);
    pending r(op::write, 0, 1);
    r.data(memory).go(*c);
    for (int i = 0; i < 20; ++i) co_await yield();
    EXPECT_FALSE(r.done);
    over.set();
    co_await r.over.wait();
    EXPECT_EQ(r.status, status::ok);
    co_await tasks.close();
}

BDEV_TEST(who_joins_during_a_removal_is_refused) {
    ram_device* d = co_await s.add({.num_blocks = 64});
    event told;
    descriptor opened = co_await s.devices.open("ram", open_mode::read_write, [&](device_event) { told.set(); });
    gate tasks;
    tasks.spawn(s.devices.remove("ram"), thread::unexpected);
    co_await told.wait();
    {
        channel_ref c = opened.channel();
        std::vector<std::byte> memory(512);
        pending r(op::write, 0, 1);
        r.data(memory).go(*c);
        co_await r.over.wait();
        EXPECT_EQ(r.status, status::no_device);
    }
    EXPECT_EQ(d->blocks[0], std::byte{0});
    opened.close();
    co_await tasks.close();
}

// It asks for its lock while the device is quiet, and starts again when the gate opens: whoever asked for quiet gets
// it.
BDEV_TEST(an_emulated_compare_and_write_stays_out_of_a_frozen_device) {
    ram_device* d = co_await s.add({.num_blocks = 64});
    descriptor opened = co_await s.open(*d);
    channel_ref c = opened.channel();
    for (int i = 0; i < 5; ++i) co_await yield();
    device_state& state = device_state::of_device(*d);
    uint64_t lock = co_await state.lock({0, 7});
    std::vector<std::byte> memory(1024, std::byte{0});
    std::ranges::fill(std::span(memory).subspan(512), std::byte{7});
    pending r(op::compare_and_write, 0, 1);
    r.data(memory).go(*c);
    for (int i = 0; i < 20; ++i) co_await yield();
    EXPECT_FALSE(r.done) << "its range is locked";
    {
        registry::frozen quiet = co_await s.devices.freeze(*d);
        state.unlock(lock);
        for (int i = 0; i < 20; ++i) co_await yield();
        EXPECT_FALSE(r.done) << "frozen";
        EXPECT_EQ(d->blocks[0], std::byte{0});
    }
    co_await r.over.wait();
    EXPECT_EQ(r.status, status::ok);
    EXPECT_EQ(d->blocks[0], std::byte{7});
}

BDEV_TEST(fails_what_waits_when_the_device_goes) {
    ram_device* d = co_await s.add({.num_blocks = 64}, {.keep = true});
    bool destructed = false;
    d->destructed = &destructed;
    channel_ref c;
    descriptor opened;
    event told;
    opened = co_await s.devices.open("ram", open_mode::read_write, [&](device_event) { told.set(); });
    c = opened.channel();
    std::vector<std::byte> memory(512);
    pending under_way(op::write, 0, 1), waits(op::write, 0, 1), late(op::write, 0, 1);
    under_way.data(memory).go(*c);
    gate tasks;
    {
        auto freezing = [](registry& r, device& dev) -> task<> { co_await r.freeze(dev); };
        tasks.spawn(freezing(s.devices, *d), thread::unexpected);
    }
    for (int i = 0; i < 5; ++i) co_await yield();
    waits.data(memory).go(*c);
    tasks.spawn(s.devices.remove("ram"), thread::unexpected);
    co_await waits.over.wait();
    EXPECT_EQ(waits.status, status::no_device);
    co_await told.wait();
    EXPECT_EQ(s.devices.find("ram"), nullptr);
    late.data(memory).go(*c);
    co_await late.over.wait();
    EXPECT_EQ(late.status, status::no_device);
    EXPECT_FALSE(under_way.done);
    d->opened.load()->let_go();
    d->behaviour.keep = false;
    co_await under_way.over.wait();
    EXPECT_EQ(under_way.status, status::ok);
    EXPECT_FALSE(destructed);
    c = {};
    for (int i = 0; i < 5; ++i) co_await yield();
    EXPECT_FALSE(destructed);
    opened.close();
    co_await tasks.close();
    EXPECT_TRUE(destructed);
    EXPECT_TRUE(s.devices.devices().empty());
}

INSTANTIATE_TEST_SUITE_P(worlds, channel_test, thread::every_world(), thread::world_name);

}  // namespace
}  // namespace varve::bdev
