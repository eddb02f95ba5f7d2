#include "server/envelope.h"

#include "json/write.h"

namespace varve::server {

namespace {

std::unexpected<error> invalid() { return fail(error(errc::rpc_invalid_request, "Invalid request")); }

bool may_be_id(const json::value& v) noexcept { return v.is_null() || v.string() != nullptr || v.number().has_value(); }

}  // namespace

result<request> read_request(json::value document) {
    json::object* members = document.members();
    if (members == nullptr) return invalid();
    request out;
    bool version = false, method = false, params = false, id = false;
    for (json::member& m : *members) {
        bool* seen = m.name == "method"    ? &method
                     : m.name == "params"  ? &params
                     : m.name == "id"      ? &id
                     : m.name == "jsonrpc" ? &version
                                           : nullptr;
        if (seen == nullptr || *seen) return invalid();
        *seen = true;
        if (seen == &version) {
            if (m.data != json::value("2.0")) return invalid();
        } else if (seen == &method) {
            const std::string* name = m.data.string();
            if (name == nullptr) return invalid();
            out.method = *name;
        } else if (seen == &params) {
            if (!m.data.is_null() && m.data.items() == nullptr && m.data.members() == nullptr) return invalid();
            out.params = std::move(m.data);
        } else {
            if (!may_be_id(m.data)) return invalid();
            out.id = std::move(m.data);
        }
    }
    if (!method) return invalid();
    return out;
}

std::string result_reply(const json::value& id, const json::value& result) {
    return R"({"jsonrpc":"2.0","id":)" + json::write(id) + R"(,"result":)" + json::write(result) + "}";
}

std::string error_reply(const json::value& id, const error& e) {
    json::value body = json::object{{"code", rpc_code(e.code())}, {"message", e.message()}};
    return R"({"jsonrpc":"2.0","id":)" + json::write(id) + R"(,"error":)" + json::write(body) + "}";
}

}  // namespace varve::server
