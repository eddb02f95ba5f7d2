// What is due when: nodes by deadline, those of one deadline in the order they were added. A pairing heap through the
// nodes themselves. Adding is constant, removing logarithmic (amortised), and nothing is allocated.
#pragma once

#include <cstdint>
#include <limits>

#include "util/assert.h"
#include "util/units.h"

namespace varve {

class timer_queue {
  public:
    struct node {
        node() noexcept = default;
        node(const node&) = delete;
        bool queued() const noexcept { return before != this; }

        node* child = nullptr;  // the first
        node* next = nullptr;   // sibling
        node* before = this;    // sibling, or parent of the first child, or null for the root; this when not queued
        time_ns deadline = 0;
        uint64_t order = 0;
    };

    static constexpr time_ns never = std::numeric_limits<time_ns>::max();

    timer_queue() noexcept = default;
    timer_queue(const timer_queue&) = delete;
    ~timer_queue() { VARVE_ASSERT(_root == nullptr); }

    bool empty() const noexcept { return _root == nullptr; }
    time_ns next_deadline() const noexcept { return _next; }
    // Nodes added from now on have this order or a higher one.
    uint64_t next_order() const noexcept { return _next_order; }

    void add(node& n, time_ns deadline) noexcept;
    void remove(node& n) noexcept;
    // The first node due at `now` that was added before `order_limit`; removed. Null when there is none.
    node* take_due(time_ns now, uint64_t order_limit) noexcept;

  private:
    static node* meld(node* a, node* b) noexcept;
    static node* meld_siblings(node* first) noexcept;
    void set_root(node* root) noexcept;

    node* _root = nullptr;
    time_ns _next = never;  // _root's, where an idle turn looks
    uint64_t _next_order = 0;
};

}  // namespace varve
