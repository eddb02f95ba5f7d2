// Base64 of RFC 4648, with padding.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace varve {

std::string base64(std::span<const std::byte> bytes);

}  // namespace varve
