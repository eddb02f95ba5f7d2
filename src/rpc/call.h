// A method with its parameters, as saved configuration holds it.
#pragma once

#include <string>

#include "json/value.h"

namespace varve::rpc {

struct call {
    std::string method;
    json::value params;  // null: none
};

// {"method": "bdev_null_create", "params": {...}}
json::value to_json(const call& c);

}  // namespace varve::rpc
