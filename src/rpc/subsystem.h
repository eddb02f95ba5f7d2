// A part of the system that has methods, saved configuration and a life: what SPDK calls a subsystem ("bdev", "nvmf").
// The list of them, in the order in which their dependencies allow them to start, stands in src/app/modules.cc; the
// server starts them, saves and loads their configuration and stops them in the opposite order. App thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "rpc/call.h"
#include "rpc/registry.h"

namespace varve::rpc {

class subsystem {
  public:
    virtual ~subsystem() = default;

    virtual std::string_view name() const noexcept = 0;
    // The subsystems that must have started before; for framework_get_subsystems.
    virtual std::vector<std::string> depends_on() const { return {}; }

    // Called once, before anything else. What the methods refer to lives as long as this object.
    virtual void add_methods(registry&) {}
    // Between start-up and run time: the methods allowed at start-up have been called, the others not yet.
    virtual task<> start() { co_return; }
    // The calls that bring a fresh system to the present state, in order; nullopt when it has none to save (null in the
    // saved file, as SPDK writes it).
    virtual std::optional<std::vector<call>> config() const { return std::vector<call>{}; }
    // Ends everything it runs: afterwards it holds no thread, channel, descriptor or socket. Once, also after a start
    // that failed.
    virtual task<> stop() { co_return; }
};

}  // namespace varve::rpc
