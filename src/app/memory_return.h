// Gives memory back to the operating system when configuring is over: JSON-RPC makes and removes thousands of objects
// in bursts, and the heap and the frame pools keep the room of the greatest of them. A second without a call, and what
// is free goes back. Costs nothing while idle. App thread.
#pragma once

#include "thread/gate.h"
#include "thread/runtime.h"

namespace varve::app {

class memory_return {
  public:
    explicit memory_return(thread::runtime& threads) noexcept;
    // A call has come: a second of quiet from now on.
    void put_off() noexcept;
    // Afterwards nothing of this runs any more. Once.
    task<> end();

  private:
    task<> give_back();

    thread::runtime& _threads;
    struct due : work {
        memory_return* of = nullptr;
    } _due;
    thread::timer _quiet;
    gate _running;
};

}  // namespace varve::app
