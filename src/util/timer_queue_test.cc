#include "util/timer_queue.h"

#include <gtest/gtest.h>

#include <deque>
#include <set>
#include <tuple>
#include <vector>

namespace varve {
namespace {

using node = timer_queue::node;
constexpr uint64_t anything = ~uint64_t{0};

TEST(timer_queue, gives_what_is_due_in_order) {
    timer_queue q;
    EXPECT_EQ(q.next_deadline(), timer_queue::never);
    node a, b, c;
    q.add(a, 20);
    q.add(b, 10);
    q.add(c, 20);
    EXPECT_EQ(q.next_deadline(), 10);
    EXPECT_EQ(q.take_due(9, anything), nullptr);
    EXPECT_EQ(q.take_due(30, anything), &b);
    EXPECT_EQ(q.take_due(30, anything), &a) << "of one deadline, the one added first";
    EXPECT_EQ(q.take_due(30, anything), &c);
    EXPECT_TRUE(q.empty());
    EXPECT_FALSE(a.queued());
}

TEST(timer_queue, what_is_added_meanwhile_waits_for_the_next_round) {
    timer_queue q;
    node a, b;
    q.add(a, 5);
    const uint64_t limit = q.next_order();
    EXPECT_EQ(q.take_due(5, limit), &a);
    q.add(a, 5);
    q.add(b, 5);
    EXPECT_EQ(q.take_due(5, limit), nullptr);
    q.remove(a);
    q.remove(b);
}

TEST(timer_queue, agrees_with_a_sorted_set) {
    uint64_t seed = 7;
    auto next = [&seed](uint64_t below) {
        seed = seed * 6364136223846793005 + 1442695040888963407;
        return (seed >> 33) % below;
    };
    timer_queue q;
    std::deque<node> nodes(200);
    std::set<std::tuple<time_ns, uint64_t, node*>> model;
    auto entry = [](node& n) { return std::tuple(n.deadline, n.order, &n); };
    for (int step = 0; step < 100'000; ++step) {
        node& n = nodes[next(nodes.size())];
        if (n.queued()) {
            ASSERT_EQ(model.erase(entry(n)), 1u);
            q.remove(n);
        } else if (next(4) == 0) {
            time_ns now = static_cast<time_ns>(next(1000));
            node* due = q.take_due(now, anything);
            bool expected = !model.empty() && std::get<0>(*model.begin()) <= now;
            ASSERT_EQ(due != nullptr, expected);
            if (due != nullptr) {
                ASSERT_EQ(due, std::get<2>(*model.begin()));
                model.erase(model.begin());
            }
        } else {
            q.add(n, static_cast<time_ns>(next(1000)));
            model.insert(entry(n));
        }
        ASSERT_EQ(q.next_deadline(), model.empty() ? timer_queue::never : std::get<0>(*model.begin()));
    }
    while (q.take_due(timer_queue::never, anything) != nullptr) {
    }
}

}  // namespace
}  // namespace varve
