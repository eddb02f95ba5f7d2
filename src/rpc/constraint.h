// Constraints on parameters. A constraint is a type with
//     bool admits(const T&) const       whether the value may pass
//     std::string text() const          what is expected, after "must be": "at least 1"
// and may fill in the schema (`void describe(field_schema&) const`).
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <utility>

#include "rpc/schema.h"
#include "util/units.h"

namespace varve::rpc {

namespace detail {
std::string one_of_text(const std::vector<std::string>& choices);
std::string number_text(int64_t v);
std::string number_text(uint64_t v);
inline std::string number_text(std::signed_integral auto v) { return number_text(int64_t{v}); }
inline std::string number_text(std::unsigned_integral auto v) { return number_text(uint64_t{v}); }
}  // namespace detail

struct positive_constraint {
    template <class T>
    constexpr bool admits(const T& v) const noexcept {
        return v > 0;
    }
    std::string text() const { return "greater than 0"; }
    void describe(field_schema& s) const { s.limits.push_back(text()); }
};
inline constexpr positive_constraint positive;

struct power_of_two_constraint {
    constexpr bool admits(uint64_t v) const noexcept { return is_power_of_two(v); }
    std::string text() const { return "a power of two"; }
    void describe(field_schema& s) const { s.limits.push_back(text()); }
};
inline constexpr power_of_two_constraint power_of_two;

struct not_empty_constraint {
    template <class T>
    constexpr bool admits(const T& v) const noexcept {
        return !v.empty();
    }
    std::string text() const { return "not empty"; }
    void describe(field_schema& s) const { s.limits.push_back(text()); }
};
inline constexpr not_empty_constraint not_empty;

template <auto Low>
struct minimum_constraint {
    template <class T>
    constexpr bool admits(const T& v) const noexcept {
        return std::cmp_greater_equal(v, Low);
    }
    std::string text() const { return "at least " + detail::number_text(Low); }
    void describe(field_schema& s) const { s.limits.push_back(text()); }
};
template <auto Low>
inline constexpr minimum_constraint<Low> at_least;

template <auto Low, auto High>
struct range_constraint {
    template <class T>
    constexpr bool admits(const T& v) const noexcept {
        return std::cmp_greater_equal(v, Low) && std::cmp_less_equal(v, High);
    }
    std::string text() const { return "between " + detail::number_text(Low) + " and " + detail::number_text(High); }
    void describe(field_schema& s) const { s.limits.push_back(text()); }
};
template <auto Low, auto High>
inline constexpr range_constraint<Low, High> range;

template <uint64_t N>
struct multiple_constraint {
    constexpr bool admits(uint64_t v) const noexcept { return v % N == 0; }
    std::string text() const { return "a multiple of " + detail::number_text(N); }
    void describe(field_schema& s) const { s.limits.push_back(text()); }
};
template <uint64_t N>
inline constexpr multiple_constraint<N> multiple_of;

template <std::size_t N>
struct max_length_constraint {
    template <class T>
    constexpr bool admits(const T& v) const noexcept {
        return v.size() <= N;
    }
    std::string text() const { return "at most " + detail::number_text(N) + " long"; }
    void describe(field_schema& s) const { s.limits.push_back(text()); }
};
template <std::size_t N>
inline constexpr max_length_constraint<N> max_length;

template <auto... Choices>
struct one_of_constraint {
    template <class T>
    constexpr bool admits(const T& v) const noexcept {
        return (std::cmp_equal(v, Choices) || ...);
    }
    static std::vector<std::string> choices() { return {detail::number_text(Choices)...}; }
    std::string text() const { return detail::one_of_text(choices()); }
    void describe(field_schema& s) const { s.choices = choices(); }
};
template <auto... Choices>
inline constexpr one_of_constraint<Choices...> one_of;

// Of strings that are kept as strings; a parameter that selects behaviour is better an enum with names.
template <std::size_t N>
struct choice_constraint {
    std::array<const char*, N> names;
    constexpr bool admits(std::string_view v) const noexcept {
        for (const char* name : names) {
            if (v == name) return true;
        }
        return false;
    }
    std::vector<std::string> choices() const { return {names.begin(), names.end()}; }
    std::string text() const { return detail::one_of_text(choices()); }
    void describe(field_schema& s) const { s.choices = choices(); }
};
template <class... Names>
constexpr choice_constraint<sizeof...(Names)> choice(Names... names) {
    return {{names...}};
}

// Not a limit but another name under which clients still send this parameter.
struct alias {
    const char* name;
    explicit constexpr alias(const char* n) noexcept : name(n) {}
    void describe(field_schema& s) const { s.old_names.emplace_back(name); }
};

}  // namespace varve::rpc
