// write: a value to JSON text (UTF-8). Doubles are written so that they read back the same; what JSON cannot say
// (infinity, not a number) is written as null, and a byte that is not UTF-8 as U+FFFD.
#pragma once

#include <string>

#include "json/value.h"

namespace varve::json {

// indent 0: one line without spaces; else that many spaces a level.
std::string write(const value& v, unsigned indent = 0);

// For messages: at most about `limit` bytes, the rest replaced by "...".
std::string excerpt(const value& v, std::size_t limit = 60);

}  // namespace varve::json
