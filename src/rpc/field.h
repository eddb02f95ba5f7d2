// A parameter, said once: from it come decoding, checking, schema, CLI option, reference page and saved configuration.
//
//   struct create_params {
//       std::string name;
//       uint64_t num_blocks = 0;
//       uint32_t block_size = 512;
//       static constexpr auto fields = std::tuple{
//           rpc::required(&create_params::name, "name", "Name of the new bdev"),
//           rpc::required(&create_params::num_blocks, "num_blocks", "Size in blocks", rpc::positive),
//           rpc::optional(&create_params::block_size, "block_size", "Bytes per block", rpc::one_of<512u, 4096u>)};
//   };
//
// Methods that share parameters derive from a struct of them, and add theirs with rpc::extend(base::fields, ...).
//
// The default of an optional parameter is the member's own. A std::optional member has none and is left out of encode()
// while empty. decode<P> gives errc::rpc_invalid_params and a message that starts "Invalid parameters: " and says which
// parameter, what was expected and what came.
#pragma once

#include "rpc/codec.h"
#include "util/assert.h"

namespace varve::rpc {

namespace detail {
template <class T>
struct inside_optional {
    static const T* of(const T& v) noexcept { return &v; }
};
template <class T>
struct inside_optional<std::optional<T>> {
    static const T* of(const std::optional<T>& v) noexcept { return v ? &*v : nullptr; }
};
}  // namespace detail

template <class P, class T, class... Constraints>
struct field {
    T P::* member;
    const char* name;
    const char* description;
    bool is_required;
    std::tuple<Constraints...> constraints;

    template <std::derived_from<P> Whole>
    static result<> decode(const void* self, const json::value& from, void* object, const path& at) {
        const field& f = *static_cast<const field*>(self);
        T& to = static_cast<Whole*>(object)->*f.member;
        VARVE_TRY(codec<T>::decode(from, to, at));
        result<> outcome;
        std::apply([&](const auto&... c) { static_cast<void>(((outcome = check(c, to, from, at)) && ...)); },
                   f.constraints);
        return outcome;
    }
    template <class Whole>
    detail::entry erased() const noexcept {
        const char* old_name = nullptr;
        std::apply([&](const auto&... c) { ((old_name = old_name_of(c, old_name)), ...); }, constraints);
        return {name, old_name, is_required, &field::decode<Whole>, this};
    }
    void encode_into(json::object& out, const P& p) const {
        if (detail::inside_optional<T>::of(p.*member) != nullptr) out.add(name, codec<T>::encode(p.*member));
    }
    field_schema schema() const {
        field_schema s;
        codec<T>::describe(s);
        s.name = name;
        s.description = description;
        s.required = is_required;
        if (!is_required) s.default_value = codec<T>::encode(P{}.*member);
        std::apply([&](const auto&... c) { (c.describe(s), ...); }, constraints);
        return s;
    }

  private:
    template <class C>
    static result<> check(const C& c, const T& to, const json::value& from, const path& at) {
        const auto& v = *detail::inside_optional<T>::of(to);
        if constexpr (requires { c.admits(v); }) {
            if (!c.admits(v)) return detail::violates(at, c.text(), from);
        }
        return {};
    }
    template <class C>
    static const char* old_name_of(const C& c, const char* before) noexcept {
        if constexpr (std::same_as<C, alias>) {
            return c.name;
        } else {
            return before;
        }
    }
};

template <class P, class T, class... Constraints>
constexpr field<P, T, Constraints...> required(T P::* member, const char* name, const char* description,
                                               Constraints... constraints) {
    return {member, name, description, true, {constraints...}};
}

template <class P, class T, class... Constraints>
constexpr field<P, T, Constraints...> optional(T P::* member, const char* name, const char* description,
                                               Constraints... constraints) {
    return {member, name, description, false, {constraints...}};
}

template <class... Shared, class... Own>
constexpr auto extend(const std::tuple<Shared...>& shared, Own... own) {
    return std::tuple_cat(shared, std::tuple{own...});
}

template <described P>
result<P> decode(const json::value& params) {
    P out{};
    VARVE_TRY(codec<P>::decode(params, out, path{}));
    return out;
}

// As a method's parameter: some of P's fields, to be set on one that is there already.
//     result<> set_options(update<options> p) { _options = p.onto(_options); }
template <described P>
class update {
  public:
    static constexpr const auto& fields = P::fields;
    // What was given on top of P's own defaults.
    const P& alone() const noexcept { return _alone; }
    // What was given on top of `present`.
    P onto(P present) const {
        result<> again = codec<P>::decode(_given, present, path{});  // it was decoded before
        VARVE_ASSERT(again.has_value());
        return present;
    }

  private:
    friend struct codec<update>;
    json::value _given;
    P _alone{};
};

template <described P>
struct codec<update<P>> {
    static result<> decode(const json::value& v, update<P>& to, const path& at) {
        to._given = v;
        return codec<P>::decode(v, to._alone, at);
    }
    static std::vector<field_schema> describe_fields() { return codec<P>::describe_fields(); }
};

template <class T>
json::value encode(const T& v) {
    return codec<T>::encode(v);
}

template <described P>
std::vector<field_schema> describe() {
    return codec<P>::describe_fields();
}

}  // namespace varve::rpc
