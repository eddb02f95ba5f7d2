// What clients read of volumes and stores; keys, their order and types are SPDK's.
#pragma once

#include "json/value.h"

namespace varve::modules::lvol {

class volume;
class volume_store;

json::value describe_for_bdev(const volume& v);  // driver_specific.lvol in bdev_get_bdevs
json::value describe(const volume& v);           // bdev_lvol_get_lvols
json::value describe(const volume_store& s);     // bdev_lvol_get_lvstores

}  // namespace varve::modules::lvol
