// A bdev that completes every request and keeps nothing: for measuring the layers above it. Reads give zeroes, or
// leave memory as it is when it is the reader's own (io::leave_memory).
#pragma once

#include <memory>

#include "bdev/module.h"

namespace varve::modules {

std::unique_ptr<bdev::module> make_null();

}  // namespace varve::modules
