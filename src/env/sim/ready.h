// Something a loop is to deliver in its next poll: a completion, bytes, a connection. Unlinks itself when destroyed.
#pragma once

#include "util/list.h"

namespace varve::env::sim {

class ready : public list_node<> {
  public:
    // May destroy itself.
    virtual void deliver() noexcept = 0;

  protected:
    ~ready() = default;
};

}  // namespace varve::env::sim
