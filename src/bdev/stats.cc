#include "bdev/stats.h"

#include <algorithm>

namespace varve::bdev {

void channel_stats::add(const channel_stats& other) noexcept {
    for (unsigned i = 0; i < op_count; ++i) {
        op_stats& mine = ops[i];
        const op_stats& theirs = other.ops[i];
        mine.ops += theirs.ops;
        mine.blocks += theirs.blocks;
        mine.latency_sum += theirs.latency_sum;
        mine.latency_min = std::min(mine.latency_min, theirs.latency_min);
        mine.latency_max = std::max(mine.latency_max, theirs.latency_max);
    }
    for (unsigned i = 0; i < status_count; ++i) errors[i] += other.errors[i];
}

void reset(channel_stats& s, stats_reset what) noexcept {
    if (what == stats_reset::all) {
        s = {};
    } else if (what == stats_reset::maxmin) {
        for (op_stats& o : s.ops) {
            o.latency_min = op_stats().latency_min;
            o.latency_max = 0;
        }
    } else if (what == stats_reset::error) {
        s.errors = {};
    }
}

}  // namespace varve::bdev
