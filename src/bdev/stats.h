// What a channel counts: per operation, and errors by status.
#pragma once

#include <array>
#include <cstdint>

#include "bdev/io.h"

namespace varve::bdev {

constexpr unsigned op_count = static_cast<unsigned>(op::count);

// Latency is from the outermost submit to completion, in nanoseconds, with the resolution of a reactor turn.
struct op_stats {
    // In an order in which the compiler does not make vectors of pairs, which cost more than they save.
    uint64_t ops = 0;
    time_ns latency_min = INT64_MAX;
    uint64_t blocks = 0;
    time_ns latency_max = 0, latency_sum = 0;

    void count(uint64_t of_blocks, time_ns latency) noexcept {
        ops += 1;
        blocks += of_blocks;
        latency_sum += latency;
        if (latency < latency_min) latency_min = latency;
        if (latency > latency_max) latency_max = latency;
    }
};

struct channel_stats {
    std::array<op_stats, op_count> ops;
    std::array<uint64_t, status_count> errors{};  // by status; NVMe's own count as `failed`

    const op_stats& operator[](op o) const noexcept { return ops[static_cast<unsigned>(o)]; }
    void add(const channel_stats& other) noexcept;
};

// What a latency histogram is to hold.
struct histogram_options {
    op only = op::count;  // count: every operation
    unsigned granularity = 7;
    time_ns min = 1 * microseconds, max = 120 * seconds;
};

enum class stats_reset : uint8_t { none, maxmin, error, all };
void reset(channel_stats& s, stats_reset what) noexcept;

}  // namespace varve::bdev
