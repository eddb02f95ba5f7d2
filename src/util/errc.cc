#include "util/errc.h"

#include <cstring>

namespace varve {

std::string_view text_of(errc code) noexcept {
    switch (code) {
        case errc::rpc_parse_error:
            return "Parse error";
        case errc::rpc_invalid_request:
            return "Invalid Request";
        case errc::rpc_method_not_found:
            return "Method not found";
        case errc::rpc_invalid_params:
            return "Invalid parameters";
        case errc::rpc_internal:
            return "Internal error";
        case errc::rpc_invalid_state:
            return "Method may only be called in another state";
        case errc::bad_sequence:  // strerror speaks of characters; people read this in the log, no client looks for it
            return "Unexpected contents";
        default:
            break;
    }
    int number = static_cast<int>(code);
    const char* text = ::strerrordesc_np(number < 0 ? -number : number);
    return text != nullptr ? text : "Unknown error";
}

}  // namespace varve
