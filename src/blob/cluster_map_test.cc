#include "blob/cluster_map.h"

#include <gtest/gtest.h>

#include "env/sim/rng.h"

namespace varve::blob {
namespace {

// Against asking of every cluster whether it is hidden: chains of snapshots of any sizes, few clusters in each.
TEST(cluster_map, finds_what_a_parent_hides_without_looking_everywhere) {
    env::sim::rng random(3);
    for (unsigned n = 0; n < 300; ++n) {
        constexpr uint64_t largest = 3000;
        std::vector<std::unique_ptr<layout>> chain;  // the lowest first
        std::vector<layout_slot> slots(4);
        for (unsigned depth = 0; depth < 1 + n % 4; ++depth) {
            chain.push_back(*layout::make(random.below(largest)));
            layout& l = *chain.back();
            if (depth > 0) l.below = &slots[depth - 1];
            for (unsigned i = 0; i < 20 && l.size > 0; ++i) l.put(random.below(l.size), 7);
            slots[depth].store(&l);
        }
        // Not looked into.
        if (n % 3 == 0) chain[0]->external = reinterpret_cast<external_parent*>(&random);
        const layout& parent = *chain.back();
        std::vector<uint64_t> expected, found;
        for (uint64_t i = 0; i < largest + 10; ++i) {
            if (hides(parent, i)) expected.push_back(i);
        }
        for (uint64_t i = 0; (i = next_hidden(parent, i)) < largest + 10; ++i) found.push_back(i);
        EXPECT_EQ(found, expected) << n;
    }
}

}  // namespace
}  // namespace varve::blob
