// What a system consists of: the one list of subsystems, bdev modules and targets, in the order in which they start.
#pragma once

#include "bdev/registry.h"
#include "server/instance.h"

namespace varve::app {

// The registry of its bdevs, for commands that use them from inside.
bdev::registry& add_modules(server::instance& to);

}  // namespace varve::app
