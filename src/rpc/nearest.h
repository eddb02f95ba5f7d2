// The name somebody may have meant: for messages about unknown parameters and methods.
#pragma once

#include <span>
#include <string_view>

namespace varve::rpc {

// The known name with the fewest insertions, deletions and substitutions from `given`, when at most a third of it
// differs; else empty.
std::string_view nearest(std::string_view given, std::span<const std::string_view> known);

}  // namespace varve::rpc
