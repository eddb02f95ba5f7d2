// The parameters of a method as command-line options: "--block_size 512" becomes {"block_size": 512}.
//
// Booleans may stand alone (--flag). Arrays and objects are JSON values; an array of simple values may also be given
// value by value (--names a --names b). Names may be written with - instead of _.
#pragma once

#include <optional>

#include "app/commands.h"
#include "json/value.h"
#include "rpc/method.h"

namespace varve::app {

struct rpc_options {
    std::string socket = "/var/tmp/spdk.sock";
    unsigned timeout_s = 60;
};

// `call` is the method's name and what followed it. Nullopt: there is nothing to send, and `status` is the exit status
// (--help, a mistake, told). -s and -t of `varve rpc` may stand here too.
std::optional<json::object> parse_rpc_arguments(const arguments& call, const rpc::method& m, rpc_options& how,
                                                int& status);
// For a method this program does not know: every --name VALUE is taken, as JSON where it is JSON, else as a string.
std::optional<json::object> parse_raw_arguments(const arguments& call, rpc_options& how, int& status);

// What a word means for a parameter of this type: a number, true, a JSON value, a string. What does not fit is left a
// string, for the server to judge.
json::value value_of(std::string_view word, const rpc::field_schema& parameter);

}  // namespace varve::app
