// What a discovery service knows: subsystems and how to reach them.
#pragma once

#include <vector>

#include "nvme/host/controller.h"
#include "nvme/log_page.h"

namespace varve::nvme::host {

struct discovery_log {
    uint64_t generation = 0;
    std::vector<discovery_entry> entries;
};

// From a controller of the discovery subsystem.
task<discovery_log> get_discovery_log(controller& from);
// Connects to the discovery service at options.address, asks, disconnects.
task<discovery_log> discover(controller_options options);

}  // namespace varve::nvme::host
