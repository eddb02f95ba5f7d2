// The methods this program has, without a running system: for help, options and the reference page.
#pragma once

#include <memory>

#include "rpc/registry.h"

namespace varve::app {

class known_methods {
  public:
    known_methods();
    ~known_methods();
    known_methods(const known_methods&) = delete;

    // Null when this machine does not even let us make a system.
    const rpc::registry* get() const noexcept;

  private:
    struct parts;
    std::unique_ptr<parts> _parts;
};

}  // namespace varve::app
