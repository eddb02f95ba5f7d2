// The methods, by what they are about; each file adds its own.
#pragma once

#include <optional>
#include <string>

#include "rpc/method.h"
#include "rpc/registry.h"

namespace varve::modules::lvol {

class copies;
class volumes;

void add_store_methods(rpc::registry& to, volumes& all);
void add_volume_methods(rpc::registry& to, volumes& all);
void add_detail_methods(rpc::registry& to, volumes& all);
void add_check_methods(rpc::registry& to, volumes& all);
void add_copy_methods(rpc::registry& to, copies& of);

// SPDK's methods answer at once with the errno when they refuse a request, but what fails later reaches the client
// with a code of JSON-RPC's, -32602 for most; the text is the errno's in both cases. Clients know both.
template <class T>
result<T> late(result<T> outcome, errc code = errc::rpc_invalid_params) {
    if (outcome) return outcome;
    return std::unexpected(error(code, outcome.error().message()));
}

// One store, by one of both.
struct store_choice {
    std::optional<std::string> uuid, lvs_name;
    static constexpr auto fields =
        std::tuple{rpc::optional(&store_choice::uuid, "uuid", "UUID of the lvstore"),
                   rpc::optional(&store_choice::lvs_name, "lvs_name", "Name of the lvstore; give this or the UUID")};
};

// One volume.
struct name_params {
    std::string name;
    static constexpr auto fields =
        std::tuple{rpc::required(&name_params::name, "name", "UUID or alias (lvs_name/lvol_name) of the lvol")};
};

}  // namespace varve::modules::lvol
