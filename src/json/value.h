// value: one JSON value. Objects keep their members in the order they were added or read.
//
//   json::value reply = json::object{{"name", "Malloc0"}, {"num_blocks", 2048}};
//   if (const json::value* name = reply.find("name")) ... name->string() ...
#pragma once

#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace varve::json {

class value;
struct member;

using array = std::vector<value>;

class object {
  public:
    object() noexcept;
    object(std::initializer_list<member> members);
    object(const object&);
    object(object&&) noexcept;
    object& operator=(const object&);
    object& operator=(object&&) noexcept;
    ~object();

    // The first member of that name, or null.
    const value* find(std::string_view name) const noexcept;
    value* find(std::string_view name) noexcept;
    // Adds at the end, without looking for the name.
    value& add(std::string name, value v);
    // Replaces the first member of that name, or adds one.
    value& set(std::string_view name, value v);

    bool empty() const noexcept;
    std::size_t size() const noexcept;
    const member* begin() const noexcept;
    const member* end() const noexcept;
    member* begin() noexcept;
    member* end() noexcept;
    bool operator==(const object&) const;  // the same members in the same order

  private:
    std::vector<member> _members;
};

class value {
  public:
    enum class kind : uint8_t { null, boolean, negative, unsigned_integer, real, string, array, object };

    value() noexcept = default;
    value(std::nullptr_t) noexcept {}                     // NOLINT: meant to be implicit
    value(std::same_as<bool> auto v) noexcept : _v(v) {}  // NOLINT
    value(std::unsigned_integral auto v) noexcept
        requires(!std::same_as<decltype(v), bool>)
        : _v(uint64_t{v}) {}                     // NOLINT
    value(std::signed_integral auto v) noexcept  // NOLINT
        : _v(v < 0 ? storage(int64_t{v}) : storage(static_cast<uint64_t>(v))) {}
    value(std::floating_point auto v) noexcept : _v(static_cast<double>(v)) {}  // NOLINT
    value(std::string v) noexcept : _v(std::move(v)) {}                         // NOLINT
    value(std::string_view v) : _v(std::string(v)) {}                           // NOLINT
    value(const char* v) : _v(std::string(v)) {}                                // NOLINT
    value(array v) noexcept : _v(std::move(v)) {}                               // NOLINT
    value(object v) noexcept : _v(std::move(v)) {}                              // NOLINT

    kind type() const noexcept { return static_cast<kind>(_v.index()); }
    bool is_null() const noexcept { return type() == kind::null; }

    // What it holds, or null / nullopt when it is something else.
    std::optional<bool> boolean() const noexcept;
    // Also of a real number that is whole and fits ("1e3", "5.0").
    std::optional<int64_t> integer() const noexcept;
    std::optional<uint64_t> unsigned_integer() const noexcept;
    std::optional<double> number() const noexcept;  // of every kind of number
    const std::string* string() const noexcept { return std::get_if<std::string>(&_v); }
    const array* items() const noexcept { return std::get_if<array>(&_v); }
    array* items() noexcept { return std::get_if<array>(&_v); }
    const object* members() const noexcept { return std::get_if<object>(&_v); }
    object* members() noexcept { return std::get_if<object>(&_v); }

    // The member of an object; null when there is none, or this is not an object.
    const value* find(std::string_view name) const noexcept;
    // The same for reading along a path: what is not there reads as a null value.
    const value& operator[](std::string_view name) const noexcept;
    const value& operator[](std::size_t index) const noexcept;

    bool operator==(const value&) const;

  private:
    using storage = std::variant<std::monostate, bool, int64_t, uint64_t, double, std::string, array, object>;
    storage _v;
};

struct member {
    std::string name;
    value data;
    bool operator==(const member&) const;
};

}  // namespace varve::json
