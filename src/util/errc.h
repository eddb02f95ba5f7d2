// Error codes. Values are positive errno numbers; JSON-RPC sees them negated (SPDK's clients branch on -2, -17, -19,
// ...). The JSON-RPC protocol's own codes are here too, as the negative numbers the protocol gives them.
#pragma once

#include <string_view>

namespace varve {

enum class errc : int {
    ok = 0,
    not_permitted = 1,    // EPERM
    not_found = 2,        // ENOENT
    io = 5,               // EIO
    again = 11,           // EAGAIN
    no_memory = 12,       // ENOMEM
    access = 13,          // EACCES
    busy = 16,            // EBUSY
    exists = 17,          // EEXIST
    no_device = 19,       // ENODEV
    invalid = 22,         // EINVAL
    no_space = 28,        // ENOSPC
    read_only = 30,       // EROFS
    pipe = 32,            // EPIPE
    range = 34,           // ERANGE
    bad_message = 74,     // EBADMSG
    overflow = 75,        // EOVERFLOW
    bad_sequence = 84,    // EILSEQ
    too_big = 90,         // EMSGSIZE
    unsupported = 95,     // EOPNOTSUPP
    address_in_use = 98,  // EADDRINUSE
    reset = 104,          // ECONNRESET
    not_connected = 107,  // ENOTCONN
    timed_out = 110,      // ETIMEDOUT
    refused = 111,        // ECONNREFUSED
    already = 114,        // EALREADY
    cancelled = 125,      // ECANCELED

    rpc_parse_error = -32700,
    rpc_invalid_request = -32600,
    rpc_method_not_found = -32601,
    rpc_invalid_params = -32602,
    rpc_internal = -32603,
    rpc_invalid_state = -1,  // method is not allowed in the present state (start-up or run time)
};

// The text of strerror for errno codes ("No such device"), SPDK's texts for the JSON-RPC ones ("Invalid parameters").
std::string_view text_of(errc code) noexcept;

// What a JSON-RPC reply carries for this code: negated errno, or the protocol's own code as it is.
constexpr int rpc_code(errc code) noexcept {
    int value = static_cast<int>(code);
    return value > 0 ? -value : value;
}

constexpr errc from_errno(int number) noexcept { return static_cast<errc>(number < 0 ? -number : number); }

}  // namespace varve
