// A bdev that makes another one slower: reads and writes complete a given time after the base has completed them, one
// in a hundred after a longer one.
#pragma once

#include <memory>

#include "bdev/module.h"

namespace varve::modules {

std::unique_ptr<bdev::module> make_delay();

}  // namespace varve::modules
