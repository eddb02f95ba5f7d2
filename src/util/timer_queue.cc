#include "util/timer_queue.h"

#include <utility>

namespace varve {

void timer_queue::add(node& n, time_ns deadline) noexcept {
    VARVE_ASSERT(!n.queued());
    n.deadline = deadline;
    n.order = _next_order++;
    n.child = n.next = n.before = nullptr;
    set_root(meld(_root, &n));
}

void timer_queue::remove(node& n) noexcept {
    VARVE_ASSERT(n.queued());
    node* orphans = meld_siblings(std::exchange(n.child, nullptr));
    if (&n == _root) {
        set_root(orphans);
    } else {
        if (n.before->child == &n) {
            n.before->child = n.next;
        } else {
            n.before->next = n.next;
        }
        if (n.next != nullptr) n.next->before = n.before;
        set_root(meld(_root, orphans));
    }
    n.next = nullptr;
    n.before = &n;
}

timer_queue::node* timer_queue::take_due(time_ns now, uint64_t order_limit) noexcept {
    if (_root == nullptr || _root->deadline > now || _root->order >= order_limit) return nullptr;
    node* due = _root;
    remove(*due);
    return due;
}

timer_queue::node* timer_queue::meld(node* a, node* b) noexcept {
    if (a == nullptr) return b;
    if (b == nullptr) return a;
    if (b->deadline < a->deadline || (b->deadline == a->deadline && b->order < a->order)) std::swap(a, b);
    b->next = a->child;
    if (b->next != nullptr) b->next->before = b;
    b->before = a;
    a->child = b;
    return a;
}

// Pairs the siblings from left to right, then joins the pairs from right to left: what makes removal logarithmic.
timer_queue::node* timer_queue::meld_siblings(node* first) noexcept {
    node* pairs = nullptr;  // linked through next, the last made first
    while (first != nullptr) {
        node* second = first->next;
        node* rest = second != nullptr ? second->next : nullptr;
        first->next = nullptr;
        if (second != nullptr) second->next = nullptr;
        node* pair = meld(first, second);
        pair->next = pairs;
        pairs = pair;
        first = rest;
    }
    node* all = nullptr;
    while (pairs != nullptr) {
        node* pair = std::exchange(pairs, pairs->next);
        pair->next = nullptr;
        all = meld(all, pair);
    }
    return all;
}

void timer_queue::set_root(node* root) noexcept {
    _root = root;
    if (root != nullptr) root->before = nullptr;
    _next = root != nullptr ? root->deadline : never;
}

}  // namespace varve
