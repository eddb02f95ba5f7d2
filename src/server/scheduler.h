// The subsystem "scheduler": which policy moves threads between processors, and its settings.
#pragma once

#include <memory>

#include "rpc/subsystem.h"

namespace varve::thread {
class runtime;
}

namespace varve::server {

std::unique_ptr<rpc::subsystem> make_scheduler(thread::runtime& threads);

}  // namespace varve::server
