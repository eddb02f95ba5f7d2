// codec<T>: how values of a type are decoded, encoded and described. Provided for bool, integers, floating point,
// std::string, uuid, json::value, std::optional<T>, std::vector<T>, enums with names and structs with fields.
//
// An enum's names stand beside it, found by argument-dependent lookup; the first name of a value is the one written:
//     enum class mode { failover, multipath };
//     constexpr auto names_of(mode) {
//         return std::to_array<rpc::named<mode>>({{"failover", mode::failover}, {"multipath", mode::multipath}});
//     }
#pragma once

#include <array>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <vector>

#include "json/value.h"
#include "rpc/constraint.h"
#include "rpc/schema.h"
#include "util/result.h"
#include "util/uuid.h"

namespace varve::rpc {

template <class E>
struct named {
    const char* name;
    E value;
};

template <class P>
concept described = requires { std::tuple_size<std::remove_cvref_t<decltype(P::fields)>>::value; };

template <class E>
concept named_enum = std::is_enum_v<E> && requires(E e) { names_of(e).size(); };

// Where in the parameters a value stands, for messages: "listen_address.trsvcid", "base_bdevs[2]".
struct path {
    const path* above = nullptr;
    std::string_view name;
    std::size_t index = 0;  // used when the name is empty
    std::string to_string() const;
};

template <class T>
struct codec;  // decode(value, T&, path) -> result<>, encode(T) -> value, describe(field_schema&)

namespace detail {

std::unexpected<error> expected(const path& at, std::string_view what, const json::value& got);
result<> decode_bool(const json::value& from, bool& to, const path& at);
result<> decode_signed(const json::value& from, int64_t& to, int64_t low, int64_t high, const path& at);
result<> decode_unsigned(const json::value& from, uint64_t& to, uint64_t high, const path& at);
result<> decode_number(const json::value& from, double& to, const path& at);
result<> decode_string(const json::value& from, std::string& to, const path& at);
result<> decode_uuid(const json::value& from, uuid& to, const path& at);
// The index of the name, matched exactly.
result<> decode_name(const json::value& from, std::size_t& index, const std::vector<std::string>& names,
                     const path& at);
std::unexpected<error> violates(const path& at, std::string_view what, const json::value& got);

// One member of a struct, its type forgotten.
struct entry {
    const char* name;
    const char* old_name;  // or null
    bool required;
    result<> (*decode)(const void* field, const json::value& from, void* object, const path& at);
    const void* field;
};
constexpr std::size_t max_fields = 96;
result<> decode_object(const json::value& from, void* object, const entry* entries, std::size_t count, const path& at);

}  // namespace detail

template <>
struct codec<bool> {
    static result<> decode(const json::value& v, bool& to, const path& at) { return detail::decode_bool(v, to, at); }
    static json::value encode(bool v) { return v; }
    static void describe(field_schema& s) { s.type = "boolean"; }
};

template <std::integral T>
    requires(!std::same_as<T, bool>)
struct codec<T> {
    static result<> decode(const json::value& v, T& to, const path& at) {
        if constexpr (std::signed_integral<T>) {
            int64_t wide = 0;
            VARVE_TRY(detail::decode_signed(v, wide, std::numeric_limits<T>::min(), std::numeric_limits<T>::max(), at));
            to = static_cast<T>(wide);
        } else {
            uint64_t wide = 0;
            VARVE_TRY(detail::decode_unsigned(v, wide, std::numeric_limits<T>::max(), at));
            to = static_cast<T>(wide);
        }
        return {};
    }
    static json::value encode(T v) { return v; }
    static void describe(field_schema& s) {
        s.type = (std::signed_integral<T> ? "int" : "uint") + detail::number_text(sizeof(T) * 8);
    }
};

template <>
struct codec<double> {
    static result<> decode(const json::value& v, double& to, const path& at) {
        return detail::decode_number(v, to, at);
    }
    static json::value encode(double v) { return v; }
    static void describe(field_schema& s) { s.type = "number"; }
};

template <>
struct codec<std::string> {
    static result<> decode(const json::value& v, std::string& to, const path& at) {
        return detail::decode_string(v, to, at);
    }
    static json::value encode(const std::string& v) { return v; }
    static void describe(field_schema& s) { s.type = "string"; }
};

template <>
struct codec<uuid> {
    static result<> decode(const json::value& v, uuid& to, const path& at) { return detail::decode_uuid(v, to, at); }
    static json::value encode(const uuid& v) { return v.to_string(); }
    static void describe(field_schema& s) { s.type = "uuid"; }
};

// Whatever comes; the method looks itself.
template <>
struct codec<json::value> {
    static result<> decode(const json::value& v, json::value& to, const path&) {
        to = v;
        return {};
    }
    static json::value encode(json::value v) { return v; }
    static void describe(field_schema& s) { s.type = "any"; }
};

template <class T>
struct codec<std::optional<T>> {
    static result<> decode(const json::value& v, std::optional<T>& to, const path& at) {
        return codec<T>::decode(v, to.emplace(), at);
    }
    static json::value encode(const std::optional<T>& v) { return v ? codec<T>::encode(*v) : json::value(); }
    static void describe(field_schema& s) { codec<T>::describe(s); }
};

template <class T>
struct codec<std::vector<T>> {
    static result<> decode(const json::value& v, std::vector<T>& to, const path& at) {
        const json::array* items = v.items();
        if (items == nullptr) return detail::expected(at, "an array", v);
        to.clear();
        to.reserve(items->size());
        for (const json::value& item : *items) {
            path here{&at, {}, to.size()};
            T element{};
            VARVE_TRY(codec<T>::decode(item, element, here));
            to.push_back(std::move(element));
        }
        return {};
    }
    static json::value encode(const std::vector<T>& v) {
        json::array out;
        out.reserve(v.size());
        for (const T& item : v) out.push_back(codec<T>::encode(item));
        return out;
    }
    static void describe(field_schema& s) {
        codec<T>::describe(s);
        s.items = std::exchange(s.type, "array");
    }
};

template <named_enum E>
struct codec<E> {
    static constexpr auto names = names_of(E{});
    static std::vector<std::string> all_names() {
        std::vector<std::string> out;
        for (const auto& n : names) out.emplace_back(n.name);
        return out;
    }
    static result<> decode(const json::value& v, E& to, const path& at) {
        std::size_t index = 0;
        VARVE_TRY(detail::decode_name(v, index, all_names(), at));
        to = names[index].value;
        return {};
    }
    static json::value encode(E v) {
        for (const auto& n : names) {
            if (n.value == v) return n.name;
        }
        return nullptr;
    }
    static void describe(field_schema& s) {
        s.type = "enum";
        s.choices = all_names();
    }
};

template <described P>
struct codec<P> {
    static result<> decode(const json::value& v, P& to, const path& at) {
        return std::apply(
            [&](const auto&... f) -> result<> {
                static_assert(sizeof...(f) > 0 && sizeof...(f) <= detail::max_fields);
                const detail::entry entries[] = {f.template erased<P>()...};
                return detail::decode_object(v, &to, entries, sizeof...(f), at);
            },
            P::fields);
    }
    static json::value encode(const P& p) {
        json::object out;
        std::apply([&](const auto&... f) { (f.encode_into(out, p), ...); }, P::fields);
        return out;
    }
    static std::vector<field_schema> describe_fields() {
        return std::apply([](const auto&... f) { return std::vector<field_schema>{f.schema()...}; }, P::fields);
    }
    static void describe(field_schema& s) {
        s.type = "object";
        s.fields = describe_fields();
    }
};

}  // namespace varve::rpc
