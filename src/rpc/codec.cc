#include "rpc/codec.h"

#include <fmt/format.h>

#include <algorithm>
#include <bitset>

#include "json/write.h"
#include "rpc/nearest.h"
#include "util/assert.h"

namespace varve::rpc {

std::string path::to_string() const {
    std::string out;
    if (above != nullptr) out = above->to_string();
    if (name.empty()) {
        if (above != nullptr) out += fmt::format("[{}]", index);
    } else {
        if (!out.empty()) out += '.';
        out += name;
    }
    return out;
}

namespace detail {

namespace {

std::string describe_got(const json::value& got) {
    switch (got.type()) {
        case json::value::kind::string:
            return "the string " + json::excerpt(got);
        case json::value::kind::array:
            return "an array";
        case json::value::kind::object:
            return "an object";
        default:
            return json::excerpt(got);
    }
}

std::unexpected<error> complain(const path& at, std::string_view what) {
    std::string where = at.to_string();
    return fail(errc::rpc_invalid_params, where.empty() ? std::string(what) : fmt::format("{} {}", where, what));
}

}  // namespace

std::unexpected<error> expected(const path& at, std::string_view what, const json::value& got) {
    return complain(at, fmt::format("must be {}, got {}", what, describe_got(got)));
}

std::unexpected<error> violates(const path& at, std::string_view what, const json::value& got) {
    return complain(at, fmt::format("must be {}, got {}", what, json::excerpt(got)));
}

std::string one_of_text(const std::vector<std::string>& choices) {
    return choices.size() == 1 ? choices[0] : fmt::format("one of {}", fmt::join(choices, ", "));
}

std::string number_text(int64_t v) { return std::to_string(v); }
std::string number_text(uint64_t v) { return std::to_string(v); }

result<> decode_bool(const json::value& from, bool& to, const path& at) {
    auto v = from.boolean();
    if (!v) return expected(at, "true or false", from);
    to = *v;
    return {};
}

result<> decode_signed(const json::value& from, int64_t& to, int64_t low, int64_t high, const path& at) {
    auto v = from.integer();
    if (!v || *v < low || *v > high) return expected(at, fmt::format("an integer from {} to {}", low, high), from);
    to = *v;
    return {};
}

result<> decode_unsigned(const json::value& from, uint64_t& to, uint64_t high, const path& at) {
    auto v = from.unsigned_integer();
    if (!v || *v > high) return expected(at, fmt::format("an integer from 0 to {}", high), from);
    to = *v;
    return {};
}

result<> decode_number(const json::value& from, double& to, const path& at) {
    auto v = from.number();
    if (!v) return expected(at, "a number", from);
    to = *v;
    return {};
}

result<> decode_string(const json::value& from, std::string& to, const path& at) {
    const std::string* v = from.string();
    if (v == nullptr) return expected(at, "a string", from);
    if (v->find('\0') != std::string::npos) return expected(at, "a string without NUL characters", from);
    to = *v;
    return {};
}

result<> decode_uuid(const json::value& from, uuid& to, const path& at) {
    const std::string* text = from.string();
    auto v = text != nullptr ? uuid::parse(*text) : std::nullopt;
    if (!v) return expected(at, "a UUID like 6ba7b810-9dad-11d1-80b4-00c04fd430c8", from);
    to = *v;
    return {};
}

result<> decode_name(const json::value& from, std::size_t& index, const std::vector<std::string>& names,
                     const path& at) {
    const std::string* text = from.string();
    auto found = text != nullptr ? std::find(names.begin(), names.end(), *text) : names.end();
    if (found == names.end()) return expected(at, one_of_text(names), from);
    index = static_cast<std::size_t>(found - names.begin());
    return {};
}

namespace {

std::unexpected<error> unknown(const path& at, const std::string& name, const entry* entries, std::size_t count) {
    std::vector<std::string_view> known;
    for (std::size_t i = 0; i < count; ++i) known.emplace_back(entries[i].name);
    std::string_view near = nearest(name, known);
    std::string prefix = at.to_string();
    std::string message =
        fmt::format("unknown parameter {}{}{}", prefix, prefix.empty() ? "" : ".", json::excerpt(json::value(name)));
    if (near.empty()) {
        message += fmt::format(" (known: {})", fmt::join(known, ", "));
    } else {
        message += fmt::format(" (did you mean \"{}\"?)", near);
    }
    return fail(errc::rpc_invalid_params, message);
}

}  // namespace

result<> decode_object(const json::value& from, void* object, const entry* entries, std::size_t count, const path& at) {
    static const json::object nothing;
    const json::object* members = from.is_null() ? &nothing : from.members();
    if (members == nullptr)
        return expected(at, at.above == nullptr ? "given by name, in an object" : "an object", from);
    VARVE_ASSERT(count <= max_fields);
    std::bitset<max_fields> seen;
    for (const json::member& m : *members) {
        std::size_t i = 0;
        while (i < count && m.name != entries[i].name &&
               (entries[i].old_name == nullptr || m.name != entries[i].old_name)) {
            ++i;
        }
        if (i == count) return unknown(at, m.name, entries, count);
        path here{&at, m.name};
        if (seen[i]) return complain(here, "is given twice");
        seen[i] = true;
        VARVE_TRY(entries[i].decode(entries[i].field, m.data, object, here));
    }
    for (std::size_t i = 0; i < count; ++i) {
        if (entries[i].required && !seen[i]) return complain(path{&at, entries[i].name}, "is missing");
    }
    return {};
}

}  // namespace detail
}  // namespace varve::rpc
