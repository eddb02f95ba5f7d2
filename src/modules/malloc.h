// A bdev in this process's memory. Its contents end with the process.
#pragma once

#include <memory>

#include "bdev/module.h"

namespace varve::modules {

std::unique_ptr<bdev::module> make_malloc();

}  // namespace varve::modules
