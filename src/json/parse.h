// parse: a whole JSON document (RFC 8259) to a value. Hostile text costs time and memory in proportion to its length,
// within the limits below, and no stack.
#pragma once

#include <string_view>

#include "json/value.h"
#include "util/result.h"

namespace varve::json {

constexpr std::size_t max_depth = 128;
constexpr std::size_t max_values = 1'048'576;  // as many as SPDK takes in one request

enum class comments : bool { refused, allowed };  // configuration files may hold // and /* */, as SPDK's

// errc::rpc_parse_error with what is wrong and where ("line 3, offset 41: Missing a comma or } after an object
// member").
result<value> parse(std::string_view text, comments allow = comments::refused);

}  // namespace varve::json
