// What is known about a parameter at run time: from it come help texts, CLI options and the reference page.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "json/value.h"

namespace varve::rpc {

struct field_schema {
    std::string name;
    std::string type;   // "string" "boolean" "uint32" "int64" "number" "uuid" "enum" "array" "object" "any"
    std::string items;  // of an array: the type of its elements
    std::string description;
    bool required = false;
    json::value default_value;           // null when there is none
    std::vector<std::string> limits;     // "positive", "at most 255 bytes"
    std::vector<std::string> choices;    // of an enum, or of one_of
    std::vector<std::string> old_names;  // accepted as well
    std::vector<field_schema> fields;    // of an object, or of an array's elements
};

}  // namespace varve::rpc
