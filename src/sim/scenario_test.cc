// The whole stack, from seeds.
#include "sim/scenario.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "thread/test_world.h"

namespace varve::sim {
namespace {

// VARVE_SEED and VARVE_SEEDS choose here, too; a whole system a seed takes a while, so fewer are run by default.
void expect_well(const scenario& how) {
    outcome o = run(how);
    EXPECT_TRUE(o.problems.empty()) << "seed " << how.seed << ": " << o.problems.front();
    EXPECT_GT(o.operations, 0u);
}

TEST(scenario_sim, calm) {
    thread::for_each_seed(
        [] {
            expect_well({.seed = thread::test_seed(),
                         .lose_connections = false,
                         .part_network = false,
                         .cut_power = false,
                         .change_namespaces = false});
        },
        thread::fewer_if_sanitized(200));
}

TEST(scenario_sim, namespaces_change_under_load) {
    thread::for_each_seed(
        [] {
            expect_well(
                {.seed = thread::test_seed(), .lose_connections = false, .part_network = false, .cut_power = false});
        },
        thread::fewer_if_sanitized(200));
}

TEST(scenario_sim, connections_are_lost) {
    thread::for_each_seed([] { expect_well({.seed = thread::test_seed(), .cut_power = false}); },
                          thread::fewer_if_sanitized(60));
}

TEST(scenario_sim, everything_at_once) {
    thread::for_each_seed([] { expect_well({.seed = thread::test_seed()}); }, thread::fewer_if_sanitized(150));
}

TEST(scenario_sim, the_same_seed_leaves_the_same_trace) {
    thread::for_each_seed(
        [] {
            outcome once = run({.seed = thread::test_seed()});
            std::string elsewhere(10'000 + thread::test_seed() % 7 * 4096, 'x');
            EXPECT_EQ(once.trace_hash, run({.seed = thread::test_seed()}).trace_hash);
            EXPECT_GT(elsewhere.size(), 0u);
        },
        thread::fewer_if_sanitized(20));
}

TEST(scenario_sim, a_disk_that_lies_about_flushes_is_found_out) {
    unsigned found = 0;
    for (uint64_t seed = 0; seed < 100 && found == 0; ++seed) {
        found += !run({.seed = seed, .cache_lies = true}).problems.empty();
    }
    EXPECT_GT(found, 0u);
}

}  // namespace
}  // namespace varve::sim
