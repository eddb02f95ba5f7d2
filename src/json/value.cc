#include "json/value.h"

#include <cmath>
#include <limits>

namespace varve::json {

// Here, where a member is a complete type.
object::object() noexcept = default;
object::object(const object&) = default;
object::object(object&&) noexcept = default;
object& object::operator=(const object&) = default;
object& object::operator=(object&&) noexcept = default;
object::~object() = default;
object::object(std::initializer_list<member> members) : _members(members) {}

const value* object::find(std::string_view name) const noexcept {
    for (const member& m : _members) {
        if (m.name == name) return &m.data;
    }
    return nullptr;
}

value* object::find(std::string_view name) noexcept { return const_cast<value*>(std::as_const(*this).find(name)); }

value& object::add(std::string name, value v) {
    return _members.emplace_back(member{std::move(name), std::move(v)}).data;
}

value& object::set(std::string_view name, value v) {
    if (value* present = find(name)) return *present = std::move(v);
    return add(std::string(name), std::move(v));
}

bool object::empty() const noexcept { return _members.empty(); }
std::size_t object::size() const noexcept { return _members.size(); }
const member* object::begin() const noexcept { return _members.data(); }
const member* object::end() const noexcept { return _members.data() + _members.size(); }
member* object::begin() noexcept { return _members.data(); }
member* object::end() noexcept { return _members.data() + _members.size(); }
bool object::operator==(const object&) const = default;

std::optional<bool> value::boolean() const noexcept {
    const bool* v = std::get_if<bool>(&_v);
    return v != nullptr ? std::optional(*v) : std::nullopt;
}

std::optional<int64_t> value::integer() const noexcept {
    if (const auto* v = std::get_if<int64_t>(&_v)) return *v;
    if (const auto* v = std::get_if<uint64_t>(&_v)) {
        if (*v <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return static_cast<int64_t>(*v);
    }
    if (const auto* v = std::get_if<double>(&_v)) {
        if (*v >= -0x1p63 && *v < 0x1p63 && std::trunc(*v) == *v) return static_cast<int64_t>(*v);
    }
    return std::nullopt;
}

std::optional<uint64_t> value::unsigned_integer() const noexcept {
    if (const auto* v = std::get_if<uint64_t>(&_v)) return *v;
    if (const auto* v = std::get_if<double>(&_v)) {
        if (*v >= 0 && *v < 0x1p64 && std::trunc(*v) == *v) return static_cast<uint64_t>(*v);
    }
    return std::nullopt;
}

std::optional<double> value::number() const noexcept {
    if (const auto* v = std::get_if<double>(&_v)) return *v;
    if (const auto* v = std::get_if<uint64_t>(&_v)) return static_cast<double>(*v);
    if (const auto* v = std::get_if<int64_t>(&_v)) return static_cast<double>(*v);
    return std::nullopt;
}

const value* value::find(std::string_view name) const noexcept {
    const object* o = members();
    return o != nullptr ? o->find(name) : nullptr;
}

namespace {
const value& absent() noexcept {
    static const value null;
    return null;
}
}  // namespace

const value& value::operator[](std::string_view name) const noexcept {
    const value* found = find(name);
    return found != nullptr ? *found : absent();
}

const value& value::operator[](std::size_t index) const noexcept {
    const array* a = items();
    return a != nullptr && index < a->size() ? (*a)[index] : absent();
}

bool value::operator==(const value&) const = default;
bool member::operator==(const member&) const = default;

}  // namespace varve::json
