// What other OS threads send: a stack pushed by compare-and-swap and taken whole, so that producers never wait for each
// other for long and the consumer pays one relaxed load when there is nothing.
//
// A mailbox outlives what reads it (the runtime keeps mailboxes and reuses them): a poster still looks at `home` after
// its work, once pushed, may have run and ended the thread it was sent to.
//
// Nothing is lost between a poster and a reactor going to sleep, also while the thread moves:
//   poster: push (1), read home (2), read home's `sleeping` (3)      mover: write home (4)
//   sleeper: write `sleeping` (5), look at every inbox it reads (6)
// All are sequentially consistent. If (2) saw the old home, it came before (4), so the new home's (6), which comes
// after the adoption and so after (4), sees (1). If (2) saw the new home, either (3) sees (5) or (6) sees (1).
#pragma once

#include <atomic>

#include "util/work.h"

namespace varve::thread {

class reactor;

struct alignas(64) mailbox {
    std::atomic<work*> newest{nullptr};
    std::atomic<reactor*> home{nullptr};  // who is to be woken

    bool waiting() const noexcept { return newest.load(std::memory_order_relaxed) != nullptr; }
    // For a reader that has just announced that it will sleep: (6).
    bool waiting_before_sleep() const noexcept { return newest.load(std::memory_order_seq_cst) != nullptr; }

    // True when the box was empty: only then must the reader be woken; whoever made it non-empty does it otherwise.
    bool push(work& w) noexcept {
        work* before = newest.load(std::memory_order_relaxed);
        do {
            w.next = before;
        } while (!newest.compare_exchange_weak(before, &w, std::memory_order_seq_cst, std::memory_order_relaxed));
        return before == nullptr;
    }

    // Everything, oldest first, linked through next.
    work* take() noexcept {
        work* at = newest.exchange(nullptr, std::memory_order_acquire);
        work* oldest = nullptr;
        while (at != nullptr) {
            work* older = at->next;
            at->next = oldest;
            oldest = at;
            at = older;
        }
        return oldest;
    }
};

}  // namespace varve::thread
