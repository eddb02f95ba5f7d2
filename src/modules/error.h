// A bdev that hands requests to another one and fails, keeps or corrupts those it is told to: for testing what is
// above.
#pragma once

#include <memory>

#include "bdev/module.h"

namespace varve::modules {

std::unique_ptr<bdev::module> make_error();

}  // namespace varve::modules
