// How a simulated disk behaves, and what can be made to go wrong with it.
#pragma once

#include <cerrno>
#include <cstdint>
#include <optional>

#include "env/file.h"
#include "util/units.h"

namespace varve::env::sim {

struct disk_options {
    uint32_t logical_block_size = 512;
    uint32_t alignment = 512;    // of offset, length and memory, for files opened direct
    bool volatile_cache = true;  // false: a completed write is durable
    uint32_t tear_unit = 512;    // what a power cut leaves whole; a multiple of 512
    bool can_unmap = true;
    bool failed_flush_forgets = false;  // what was not flushed is lost then, as Linux may lose it after EIO
    bool cache_lies = false;            // flushes succeed and do nothing: to see a test of durability fail
    time_ns latency_min = 5 * microseconds, latency_max = 200 * microseconds;
    time_ns flush_latency_max = 2 * milliseconds;
    time_ns spike_max = 50 * milliseconds;  // how long a spike takes

    // By chance, once in so many operations of the kind concerned; 0: never.
    uint32_t spike_one_in = 0;
    uint32_t error_one_in = 0;      // EIO; a failed write may have been done in part
    uint32_t read_flip_one_in = 0;  // a bit is wrong in what is read
    uint32_t rot_one_in = 0;        // a bit becomes wrong on the medium, where the operation reads or wrote
};

// A scripted fault. It lets `skip` operations that match pass and then strikes `times` of them.
struct disk_fault {
    enum class effect : uint8_t {
        error,      // fails with `number`; a write may have been done in part
        stuck,      // never completes, until disk::release_stuck()
        slow,       // takes `delay` longer
        read_flip,  // a bit is wrong in what is read
        rot,        // a bit goes wrong on the medium
    };
    effect what = effect::error;
    std::optional<file_op_kind> kind;  // any
    uint64_t first = 0, end = ~0ULL;   // bytes: operations that touch [first, end); flushes always do
    uint64_t skip = 0, times = 1;
    int number = EIO;
    time_ns delay = 0;
};

// What a power cut leaves of each write that was under way or not flushed.
enum class cut_outcome : uint8_t {
    drawn,     // lost, kept or torn, each write for itself
    lose_all,  // exactly what was flushed
    keep_all,
    tear_all,  // every write torn (those of one unit: kept or lost)
};

// And of one of them, when a test says so of each.
enum class write_fate : uint8_t { lost, kept, torn };

}  // namespace varve::env::sim
