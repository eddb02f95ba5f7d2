#include "rpc/registry.h"

#include "rpc/call.h"
#include "util/assert.h"

namespace varve::rpc {

void registry::add(method m) {
    auto owned = std::make_unique<method>(std::move(m));
    bool fresh = _by_name.emplace(owned->name, owned.get()).second;
    VARVE_ASSERT(fresh && !_aliases.contains(owned->name));
    _methods.push_back(std::move(owned));
}

void registry::add_alias(std::string old_name, std::string_view name) {
    auto found = _by_name.find(name);
    VARVE_ASSERT(found != _by_name.end() && !_by_name.contains(old_name));
    bool fresh = _aliases.emplace(std::move(old_name), found->second).second;
    VARVE_ASSERT(fresh);
}

const method* registry::find(std::string_view name) const noexcept {
    if (auto found = _by_name.find(name); found != _by_name.end()) return found->second;
    if (auto found = _aliases.find(name); found != _aliases.end()) return found->second;
    return nullptr;
}

task<json::value> registry::call(std::string_view name, json::value params, states now) const {
    const method* m = find(name);
    if (m == nullptr) return detail::refuse(error(errc::rpc_method_not_found));
    if (!allowed_in(m->allowed, now)) {
        const char* why =
            now == states::startup
                ? "Method may only be called after framework is initialized using framework_start_init RPC."
                : "Method may only be called before framework is initialized. Use --wait-for-rpc command line "
                  "parameter "
                  "and then issue this RPC before the framework_start_init RPC.";
        return detail::refuse(error(errc::rpc_invalid_state, why));
    }
    return m->handler(std::move(params));
}

result<> detail::expect_no_params(const json::value& params) {
    if (params.is_null()) return {};
    const json::object* o = params.members();
    if (o != nullptr && o->empty()) return {};
    return fail(errc::rpc_invalid_params, "this method takes no parameters");
}

json::value to_json(const call& c) {
    json::object out{{"method", c.method}};
    if (!c.params.is_null()) out.add("params", c.params);
    return out;
}

}  // namespace varve::rpc
