// One exchange with a JSON-RPC server over a Unix socket, blocking. For programs, not for the library.
#pragma once

#include <string>
#include <string_view>

#include "json/value.h"
#include "util/result.h"

namespace varve::app {

// Sends a document and waits for the one that answers it. errc::refused, not_found, ... when nobody listens there,
// errc::timed_out, errc::reset when the server closes.
result<json::value> exchange(const std::string& socket_path, std::string_view document, unsigned timeout_s);

}  // namespace varve::app
