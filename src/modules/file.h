// Bdevs over a file or block device of the host. bdev_aio_* and bdev_uring_* are two names of the same thing: how the
// kernel is asked is the loop's affair.
#pragma once

#include <memory>

#include "bdev/module.h"

namespace varve::modules {

std::unique_ptr<bdev::module> make_aio();
std::unique_ptr<bdev::module> make_uring();

}  // namespace varve::modules
