// JSON-RPC 2.0: what a request may look like, and the text of a reply. Strict where SPDK is: a member that is unknown
// or given twice, a version other than "2.0", or an id that is neither string, number nor null is an invalid request.
#pragma once

#include <string>

#include "json/value.h"
#include "util/result.h"

namespace varve::server {

struct request {
    std::string method;
    json::value params;  // null: none
    json::value id;      // null: a notification, whose result nobody waits for (errors are told all the same)
};

// errc::rpc_invalid_request
result<request> read_request(json::value document);

// Without the line end that follows a reply on the wire.
std::string result_reply(const json::value& id, const json::value& result);
std::string error_reply(const json::value& id, const error& e);

}  // namespace varve::server
