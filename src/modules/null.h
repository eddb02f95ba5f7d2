// A bdev that completes every request and keeps nothing: for measuring the layers above it. Reads leave memory as it
// is.
#pragma once

#include <memory>

#include "bdev/module.h"

namespace varve::modules {

std::unique_ptr<bdev::module> make_null();

}  // namespace varve::modules
