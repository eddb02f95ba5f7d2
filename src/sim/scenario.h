// One run of a server and a host from a seed: what may happen in it, and what came of it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "util/units.h"

namespace varve::sim {

struct scenario {
    uint64_t seed = 0;
    unsigned workers = 3;
    unsigned operations = 60;  // of each worker
    uint64_t sectors = 1536;   // of the disk, at first
    bool lose_connections = true;
    bool part_network = true;
    bool cut_power = true;
    bool change_namespaces = true;  // the disk grows; another namespace comes and goes
    bool cache_lies = false;        // the disk forgets what was flushed: every check of durability must notice
};

struct outcome {
    std::vector<std::string> problems;  // empty: all is well
    uint64_t trace_hash = 0;
    time_ns duration = 0;  // virtual
    uint64_t operations = 0, connections = 0, power_cuts = 0, losses = 0, partitions = 0, disk_operations = 0;
    uint64_t namespace_changes = 0;
};

outcome run(const scenario& what);

}  // namespace varve::sim
