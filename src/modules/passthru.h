// A bdev that hands every request to another one: the smallest layer, to measure layers and to learn from.
#pragma once

#include <memory>

#include "bdev/module.h"

namespace varve::modules {

std::unique_ptr<bdev::module> make_passthru();

}  // namespace varve::modules
