// The module of logical volumes: bdev_lvol_*.
#pragma once

#include <memory>

#include "bdev/module.h"
#include "jobs/registry.h"
#include "util/log.h"

namespace varve::modules {

std::unique_ptr<bdev::module> make_lvol(logger& out, jobs::registry& long_ones);

}  // namespace varve::modules
