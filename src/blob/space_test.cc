#include "blob/space.h"

#include <gtest/gtest.h>

#include <set>

#include "env/sim/rng.h"

namespace varve::blob {
namespace {

constexpr uint32_t first = 5;

// Against a model that searches from the start each time.
TEST(space, gives_the_lowest_clean_cluster_or_the_lowest) {
    constexpr uint32_t clusters = 300;
    env::sim::rng random(7);
    space s(first, clusters, 1);
    std::set<uint32_t> clean, unclean, left, used;
    for (uint32_t c = first; c < clusters; ++c) unclean.insert(c);
    std::vector<cluster_range> in_hand;
    auto take = [&] {
        bool is_clean = false;
        const uint32_t c = s.take_cluster(is_clean);
        std::set<uint32_t> all = unclean;
        all.insert(left.begin(), left.end());
        const std::set<uint32_t>& from = clean.empty() ? all : clean;
        ASSERT_EQ(c, from.empty() ? 0 : *from.begin());
        if (c == 0) return;
        EXPECT_EQ(is_clean, clean.contains(c));
        EXPECT_EQ(clean.erase(c) + unclean.erase(c) + left.erase(c), 1u);
        used.insert(c);
    };
    auto free = [&](cluster_state as) {
        if (used.empty()) return;
        const auto it = std::next(used.begin(), static_cast<long>(random.below(used.size())));
        s.free_cluster(*it, as);
        (as == cluster_state::clean ? clean : as == cluster_state::left ? left : unclean).insert(*it);
        used.erase(it);
    };
    for (int i = 0; i < 20'000; ++i) {
        const auto what = random.below(8);
        if (what < 3) {
            take();
        } else if (what < 6) {
            free(static_cast<cluster_state>(what - 3));
        } else if (what == 6) {
            cluster_range r = s.take_unclean(static_cast<uint32_t>(1 + random.below(20)));
            for (uint32_t c = r.first; c < r.first + r.count; ++c) ASSERT_EQ(unclean.erase(c), 1u);
            if (r.count != 0) in_hand.push_back(r);
        } else if (!in_hand.empty()) {
            s.give_back(in_hand.back(), true);
            for (uint32_t c = 0; c < in_hand.back().count; ++c) clean.insert(in_hand.back().first + c);
            in_hand.pop_back();
        }
        ASSERT_EQ(s.clean_clusters(), clean.size());
    }
}

TEST(space, knows_where_something_may_have_been_left) {
    constexpr uint32_t clusters = 20;
    space s(first, clusters, 1);
    EXPECT_EQ(s.take_stale(100).count, 0u) << "a store that was unloaded is clear, or it is nobody's fault";
    for (uint32_t c = first; c < first + 10; ++c) s.claim_cluster(c);
    s.free_cluster(first + 2, cluster_state::clean);
    s.free_cluster(first + 4, cluster_state::left);
    for (uint32_t c : {6u, 7u, 8u}) s.free_cluster(first + c);
    cluster_range r = s.take_stale(2);
    EXPECT_EQ(r.first, first + 6);
    EXPECT_EQ(r.count, 2u);
    s.give_back(r, false);
    s.give_back(s.take_stale(100), true);
    EXPECT_EQ(s.take_stale(100).count, 0u);
    s.all_are_stale();
    r = s.take_stale(100);
    EXPECT_EQ(r.first, first + 10) << "not what is clean or to be left";
    EXPECT_EQ(r.count, clusters - first - 10);
}

// In seconds, if that, and not in many minutes: a volume of terabytes is made so.
TEST(space, gives_millions_one_by_one) {
    constexpr uint32_t clusters = 1 << 22;
    space s(first, clusters, 1);
    uint64_t taken = 0;
    for (bool clean = false; s.take_cluster(clean) != 0;) ++taken;
    EXPECT_EQ(taken, clusters - first);
    for (uint32_t c = first; c < clusters; ++c) s.free_cluster(c, static_cast<cluster_state>(c % 3));
    for (bool clean = false; s.take_cluster(clean) != 0;) --taken;
    EXPECT_EQ(taken, 0u);
}

}  // namespace
}  // namespace varve::blob
