// The unit of deferred execution: 16 bytes inside whatever has something to run later. Nothing is allocated to queue
// it.
#pragma once

namespace varve {

struct work {
    work* next = nullptr;
    void (*run)(work&) noexcept = nullptr;  // may destroy the object; the queue has let go of it before
};

}  // namespace varve
