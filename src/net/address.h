// Addresses as people write them.
#pragma once

#include <cstdint>
#include <string_view>

#include "env/socket.h"
#include "util/result.h"

namespace varve::net {

// "host:port", "[v6]:port", "v6" or "host" with the default port, "/path" of a Unix socket. Names are not resolved
// here. What env::address::to_string writes is read back.
result<env::address> parse_address(std::string_view text, uint16_t default_port);

}  // namespace varve::net
