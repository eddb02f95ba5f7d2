// What `varve sim` does: runs scenarios from seeds, checks each, and says which failed.
#pragma once

#include <cstdint>
#include <cstdio>

namespace varve::sim {

struct options {
    uint64_t seed = 1;   // the first
    uint64_t seeds = 1;  // how many
    bool twice = false;  // runs each a second time, which must leave the same trace
};

// The exit status: 0 when all is well. Stops at the first seed that fails.
int run(const options& how, std::FILE* report);

}  // namespace varve::sim
