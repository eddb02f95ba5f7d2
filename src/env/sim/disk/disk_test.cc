// What a disk promises (a flush is honest, operations complete once, in any order) and what it may do (tear, reorder,
// forget, fail), over many seeds.
#include "env/sim/disk/disk.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <set>
#include <vector>

#include "env/sim/loop.h"
#include "env/sim/universe.h"
#include "env/sim/world.h"

namespace varve::env::sim {
namespace {

constexpr uint64_t sector = 512;

// One machine with a disk and a loop, driven from the outside.
struct bench {
    explicit bench(uint64_t seed, const disk_options& how = {}, uint64_t size = 1 << 20)
        : all(seed), machine(all.add_world("m")), d(machine.add_disk("/disk", size, how)) {
        loop = std::move(*machine.make_loop());
        file = std::move(*machine.open("/disk", {}));
    }
    universe all;
    world& machine;
    disk& d;
    std::unique_ptr<env::loop> loop;
    std::unique_ptr<file> file;
};

struct request : file_op {
    request(bench& on, file_op_kind what, uint64_t at, uint64_t bytes, int fill = 0) : of(on) {
        kind = what;
        target = on.file.get();
        offset = at;
        length = bytes;
        if (what == file_op_kind::read || what == file_op_kind::write) {
            memory = std::move(*on.machine.mem().allocate(bytes));
            std::memset(memory.data(), fill, bytes);
            piece = {memory.data(), bytes};
            iov = &piece;
            iov_count = 1;
        }
        done = [](file_op& op) noexcept { ++static_cast<request&>(op).completions; };
        on.loop->submit(*this);
    }
    int64_t wait() {
        while (completions == 0) of.loop->wait(never);
        return file_op::result;
    }
    bench& of;
    env::buffer memory;
    iovec piece{};
    int completions = 0;
};

int64_t write(bench& b, uint64_t at, uint64_t bytes, int fill) {
    return request(b, file_op_kind::write, at, bytes, fill).wait();
}
int64_t flush(bench& b) { return request(b, file_op_kind::flush, 0, 0).wait(); }
std::byte byte_at(const disk& d, uint64_t at) {
    std::byte value{};
    d.peek(at, {&value, 1});
    return value;
}
// The value of a sector all of whose bytes are alike; -1 when they are not.
int value_of(const disk& d, uint64_t at) {
    std::vector<std::byte> bytes(sector);
    d.peek(at, bytes);
    bool alike = std::ranges::all_of(bytes, [&](std::byte b) { return b == bytes[0]; });
    return alike ? static_cast<int>(bytes[0]) : -1;
}

TEST(sim_disk, reads_see_what_was_written) {
    for (uint64_t seed = 0; seed < 50; ++seed) {
        bench b(seed);
        EXPECT_EQ(write(b, 4096, 8192, 0x5a), 8192);
        request r(b, file_op_kind::read, 4096 + 512, 4096);
        EXPECT_EQ(r.wait(), 4096);
        EXPECT_TRUE(std::ranges::all_of(r.memory.bytes(), [](std::byte v) { return v == std::byte{0x5a}; }));
        EXPECT_EQ(request(b, file_op_kind::unmap, 4096, 4096).wait(), 4096);
        EXPECT_EQ(value_of(b.d, 4096), 0);
        EXPECT_EQ(value_of(b.d, 8192), 0x5a);
        EXPECT_EQ(request(b, file_op_kind::read, (1 << 20) - 512, 1024).wait(), 512) << "ends with the disk";
        EXPECT_EQ(request(b, file_op_kind::write, (1 << 20) - 512, 1024).wait(), -ENOSPC);
        EXPECT_EQ(request(b, file_op_kind::write, 100, 512).wait(), -EINVAL) << "not aligned";
    }
}

TEST(sim_disk, operations_complete_once_and_in_any_order) {
    bool overtaken = false;
    for (uint64_t seed = 0; seed < 20; ++seed) {
        bench b(seed);
        std::vector<std::unique_ptr<request>> all;
        for (int i = 0; i < 16; ++i) all.push_back(std::make_unique<request>(b, file_op_kind::write, 4096 * i, 512, i));
        EXPECT_EQ(b.loop->in_flight(), 16U);
        bool later_done = false;
        while (b.loop->in_flight() > 0) {
            b.loop->wait(never);
            later_done = false;
            for (auto it = all.rbegin(); it != all.rend(); ++it) {
                overtaken |= later_done && (*it)->completions == 0;
                later_done |= (*it)->completions > 0;
            }
        }
        for (auto& r : all) EXPECT_EQ(r->completions, 1);
    }
    EXPECT_TRUE(overtaken);
}

TEST(sim_disk, flushed_data_survives_every_power_cut) {
    for (uint64_t seed = 0; seed < 500; ++seed) {
        bench b(seed);
        write(b, 0, 16 * sector, 1);
        EXPECT_EQ(flush(b), 0);
        write(b, 4 * sector, 8 * sector, 2);
        request under_way(b, file_op_kind::write, 10 * sector, 4 * sector, 3);
        b.loop->poll();
        b.d.cut_power();
        for (uint64_t n = 0; n < 16; ++n) {
            std::set<int> allowed{1};
            if (n >= 4 && n < 12) allowed.insert(2);
            if (n >= 10 && n < 14) allowed.insert(3);
            EXPECT_TRUE(allowed.contains(value_of(b.d, n * sector))) << "seed " << seed << " sector " << n;
        }
        EXPECT_EQ(under_way.wait(), -EIO);
        EXPECT_EQ(write(b, 0, sector, 9), -EIO) << "no power";
        b.d.restore_power();
        EXPECT_EQ(write(b, 0, sector, 9), 512);
    }
}

TEST(sim_disk, a_flush_that_fails_may_lose_what_was_written_before) {
    bench b(1, {.failed_flush_forgets = true});
    write(b, 0, 4 * sector, 1);
    EXPECT_EQ(flush(b), 0);
    write(b, 2 * sector, 4 * sector, 2);
    b.d.fail_operation(b.d.ops_issued());
    EXPECT_EQ(flush(b), -EIO);
    EXPECT_EQ(flush(b), 0);
    for (uint64_t n = 0; n < 6; ++n) EXPECT_EQ(value_of(b.d, n * sector), n < 4 ? 1 : 0);
    write(b, 2 * sector, sector, 3);
    EXPECT_EQ(flush(b), 0);
    b.d.cut_power(cut_outcome::lose_all);
    EXPECT_EQ(value_of(b.d, 2 * sector), 3);
}

TEST(sim_disk, a_flush_does_not_promise_what_completed_after_it_was_submitted) {
    unsigned lost = 0;
    for (uint64_t seed = 0; seed < 200; ++seed) {
        bench b(seed, {.flush_latency_max = 50 * milliseconds});
        request f(b, file_op_kind::flush, 0, 0);
        b.loop->poll();
        write(b, 0, sector, 7);
        if (f.completions != 0) continue;
        EXPECT_EQ(f.wait(), 0);
        b.d.cut_power(cut_outcome::lose_all);
        lost += value_of(b.d, 0) == 0;
    }
    EXPECT_GT(lost, 50U);
}

TEST(sim_disk, power_cuts_lose_keep_tear_and_reorder) {
    unsigned lost = 0, kept = 0, torn = 0, reordered = 0;
    for (uint64_t seed = 0; seed < 500; ++seed) {
        bench b(seed);
        write(b, 0, 8 * sector, 1);
        write(b, 64 * sector, sector, 2);
        b.d.cut_power();
        unsigned there = 0;
        for (uint64_t n = 0; n < 8; ++n) there += value_of(b.d, n * sector) == 1;
        lost += there == 0;
        kept += there == 8;
        torn += there > 0 && there < 8;
        reordered += there == 0 && value_of(b.d, 64 * sector) == 2;
    }
    EXPECT_GT(lost, 100U);
    EXPECT_GT(kept, 100U);
    EXPECT_GT(torn, 100U);
    EXPECT_GT(reordered, 50U);
}

TEST(sim_disk, cut_outcomes_can_be_told) {
    for (uint64_t seed = 0; seed < 50; ++seed) {
        for (auto how : {cut_outcome::lose_all, cut_outcome::keep_all}) {
            bench b(seed);
            write(b, 0, 64 * sector, 1);
            b.d.cut_power(how);
            for (uint64_t n = 0; n < 64; ++n) {
                EXPECT_EQ(value_of(b.d, n * sector), how == cut_outcome::keep_all ? 1 : 0);
            }
        }
        bench b(seed, {.tear_unit = 4096});
        write(b, 0, 64 * sector, 1);
        b.d.cut_power(cut_outcome::tear_all);
        unsigned there = 0;
        for (uint64_t n = 0; n < 64; ++n) {
            there += value_of(b.d, n * sector) == 1;
            EXPECT_EQ(value_of(b.d, n * sector), value_of(b.d, n / 8 * 4096)) << "units of 4 KiB stay whole";
        }
        EXPECT_LT(there, 64U);
    }
}

TEST(sim_disk, a_cut_can_be_looked_at_again_with_another_outcome) {
    using enum write_fate;
    bench b(1);
    write(b, 0, sector, 1);
    EXPECT_EQ(flush(b), 0);
    write(b, 0, sector, 2);
    write(b, sector, 64 * sector, 3);
    b.d.keep_cuts(true);
    b.d.cut_power_at(b.d.ops_issued(), cut_outcome::lose_all);
    EXPECT_LT(write(b, 100 * sector, sector, 4), 0);
    EXPECT_EQ(value_of(b.d, 0), 1);
    b.d.keep_cuts(false);
    const media before = b.d.before_cut().clone();
    EXPECT_EQ(before.unflushed().size(), 3U);
    std::set<uint64_t> hashes;
    for (write_fate first : {lost, kept}) {
        for (write_fate second : {lost, kept, torn}) {
            for (write_fate third : {lost, kept}) {
                b.d.cut_otherwise(before, std::array{first, second, third});
                EXPECT_EQ(value_of(b.d, 0), first == kept ? 2 : 1);
                unsigned there = 0;
                for (uint64_t n = 1; n <= 64; ++n) there += value_of(b.d, n * sector) == 3;
                EXPECT_EQ(there == 0, second == lost);
                EXPECT_EQ(there == 64, second == kept);
                EXPECT_EQ(value_of(b.d, 100 * sector), third == kept ? 4 : 0) << "was under way";
                EXPECT_TRUE(hashes.insert(b.d.durable_hash()).second);
                const media image = b.d.save();
                b.d.restore_power();
                write(b, 0, sector, 9);
                EXPECT_EQ(flush(b), 0);
                b.d.restore(image);
                EXPECT_EQ(value_of(b.d, 0), first == kept ? 2 : 1);
            }
        }
    }
}

TEST(sim_disk, without_a_volatile_cache_completed_is_durable) {
    for (uint64_t seed = 0; seed < 100; ++seed) {
        bench b(seed, {.volatile_cache = false});
        write(b, 0, 8 * sector, 1);
        EXPECT_FALSE(b.d.dirty());
        b.d.cut_power();
        for (uint64_t n = 0; n < 8; ++n) EXPECT_EQ(value_of(b.d, n * sector), 1);
    }
}

TEST(sim_disk, a_lying_cache_is_found_out) {
    bench b(1, {.cache_lies = true});
    write(b, 0, sector, 1);
    EXPECT_EQ(flush(b), 0);
    b.d.cut_power(cut_outcome::lose_all);
    EXPECT_EQ(value_of(b.d, 0), 0);
}

TEST(sim_disk, power_can_be_cut_at_each_operation) {
    for (uint64_t at = 0; at < 6; ++at) {
        bench b(at);
        bool told = false;
        b.d.cut_power_at(at, cut_outcome::lose_all, [&] { told = true; });
        std::vector<int64_t> results;
        for (int i = 0; i < 3; ++i) {
            results.push_back(write(b, 0, sector, i + 1));
            results.push_back(flush(b));
        }
        EXPECT_TRUE(told);
        for (uint64_t n = 0; n < results.size(); ++n) EXPECT_EQ(results[n] < 0, n >= at) << at;
        EXPECT_EQ(value_of(b.d, 0), static_cast<int>(at / 2)) << at;
    }
}

TEST(sim_disk, each_operation_can_fail_in_turn) {
    for (uint64_t failing = 0; failing < 4; ++failing) {
        bench b(failing);
        b.d.keep_history(true);
        b.d.fail_operation(failing);
        for (uint64_t n = 0; n < 4; ++n) EXPECT_EQ(write(b, n * 4096, 4096, 1) < 0, n == failing);
        EXPECT_EQ(b.d.ops_issued(), 4U);
        ASSERT_EQ(b.d.history().size(), 4U);
        EXPECT_EQ(b.d.history()[failing].result, -EIO);
    }
}

TEST(sim_disk, a_failed_write_may_be_done_in_part) {
    unsigned partly = 0;
    for (uint64_t seed = 0; seed < 100; ++seed) {
        bench b(seed);
        b.d.fail_operation(0);
        EXPECT_EQ(write(b, 0, 16 * sector, 1), -EIO);
        unsigned there = 0;
        for (uint64_t n = 0; n < 16; ++n) there += value_of(b.d, n * sector) == 1;
        partly += there > 0 && there < 16;
    }
    EXPECT_GT(partly, 50U);
}

TEST(sim_disk, scripted_faults) {
    bench b(5);
    using effect = disk_fault::effect;
    b.d.inject(
        {.what = effect::error, .kind = file_op_kind::read, .first = 8192, .end = 12288, .skip = 1, .number = ENXIO});
    EXPECT_EQ(request(b, file_op_kind::read, 8192, 512).wait(), 512) << "one is let through";
    EXPECT_EQ(request(b, file_op_kind::read, 0, 8192).wait(), 8192) << "ends before the range";
    EXPECT_EQ(request(b, file_op_kind::read, 4096, 8192).wait(), -ENXIO);
    EXPECT_EQ(request(b, file_op_kind::read, 8192, 512).wait(), 512) << "once is once";

    b.d.inject({.what = effect::stuck});
    request stuck(b, file_op_kind::write, 0, 512, 1);
    write(b, 4096, 512, 1);
    b.loop->wait(b.all.now() + 10 * seconds);
    EXPECT_EQ(stuck.completions, 0);
    EXPECT_EQ(b.d.stuck(), 1U);
    b.d.release_stuck();
    EXPECT_EQ(stuck.wait(), 512);

    time_ns before = b.all.now();
    b.d.inject({.what = effect::slow, .delay = 3 * seconds});
    write(b, 0, 512, 1);
    EXPECT_GE(b.all.now(), before + 3 * seconds);

    b.d.inject({.what = effect::read_flip});
    request flipped(b, file_op_kind::read, 65536, 512);
    flipped.wait();
    EXPECT_FALSE(std::ranges::all_of(flipped.memory.bytes(), [](std::byte v) { return v == std::byte{}; }));
    EXPECT_EQ(value_of(b.d, 65536), 0);
    b.d.inject({.what = effect::rot});
    request(b, file_op_kind::read, 65536, 512).wait();
    EXPECT_EQ(value_of(b.d, 65536), -1);
    b.d.flip_bit(0, 1);
    EXPECT_EQ(byte_at(b.d, 0), std::byte{3});
}

TEST(sim_disk, space_can_run_out) {
    bench b(5);
    b.d.limit_space(8192);
    EXPECT_EQ(write(b, 0, 8192, 1), 8192);
    EXPECT_EQ(write(b, 0, 8192, 2), 8192) << "overwriting needs none";
    EXPECT_EQ(write(b, 65536, 512, 1), -ENOSPC);
    EXPECT_EQ(request(b, file_op_kind::unmap, 0, 4096).wait(), 4096);
    EXPECT_EQ(write(b, 65536, 512, 1), 512);
}

TEST(sim_disk, zeroing_a_huge_disk_is_quick_and_resizing_forgets) {
    bench b(5, {}, 1ULL << 44);
    write(b, 1ULL << 43, 8192, 1);
    EXPECT_EQ(request(b, file_op_kind::write_zeroes, 512, (1ULL << 44) - 512).wait(),
              static_cast<int64_t>((1ULL << 44) - 512));
    EXPECT_EQ(value_of(b.d, 1ULL << 43), 0);
    write(b, 8192, 4096, 1);
    b.d.resize(8192);
    b.d.resize(1 << 20);
    EXPECT_EQ(value_of(b.d, 8192), 0);
    EXPECT_EQ(b.file->size(), 1ULL << 44);
    EXPECT_EQ(b.file->refresh().value(), 1U << 20);
}

}  // namespace
}  // namespace varve::env::sim
