#include "blob/extent_table.h"

#include <gtest/gtest.h>

#include "env/sim/rng.h"
#include "thread/test_world.h"

namespace varve::blob {
namespace {

// Whatever is done to it, it says what a plain list would.
TEST(extent_table, is_a_list_of_pages) {
    thread::for_each_seed(
        [] {
            env::sim::rng draw(thread::test_seed());
            extent_table t;
            std::vector<uint32_t> list;
            for (int step = 0; step < 300; ++step) {
                const auto page = static_cast<uint32_t>(draw.one_in(3) ? 0 : 1 + draw.below(1000));
                switch (draw.below(12)) {
                    case 0: {
                        const uint64_t size = draw.below(40);
                        t.resize(size);
                        list.resize(size);
                        break;
                    }
                    case 1: {
                        const uint64_t count = draw.below(4);
                        t.append(page, count);
                        list.insert(list.end(), count, page);
                        break;
                    }
                    case 2:
                        if (!draw.one_in(5)) break;
                        t.forget_pages();
                        std::ranges::fill(list, 0u);
                        break;
                    default:
                        if (list.empty()) break;
                        t.set(step % list.size(), page);
                        list[static_cast<std::size_t>(step) % list.size()] = page;
                }
                ASSERT_EQ(t.size(), list.size());
                std::vector<uint32_t> pages;
                std::vector<format::extent_page_run> runs;
                for (uint64_t i = 0; i < list.size(); ++i) {
                    ASSERT_EQ(t[i], list[i]);
                    if (list[i] != 0) pages.push_back(list[i]);
                    format::append(runs, list[i]);
                    uint64_t next = i;
                    while (next < list.size() && list[next] == 0) ++next;
                    ASSERT_EQ(t.next(i), next);
                }
                ASSERT_EQ(std::vector<uint32_t>(t.begin(), t.end()), pages);
                ASSERT_EQ(t.pages(), pages.size());
                ASSERT_EQ(t.runs(), runs);
            }
        },
        30);
}

}  // namespace
}  // namespace varve::blob
