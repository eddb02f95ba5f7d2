#include "modules/lvol/names.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include "util/units.h"

namespace varve::modules::lvol {

using blob::format::xattr;
using blob::format::xattr_map;

namespace {

constexpr std::size_t kept_of_long_names = 54;

// With no character of UTF-8 cut in two.
std::string_view beginning(std::string_view name) noexcept {
    std::size_t end = kept_of_long_names;
    while (end > 0 && (static_cast<unsigned char>(name[end]) & 0xc0) == 0x80) --end;
    return name.substr(0, end);
}

std::string_view up_to_zero(std::string_view text) noexcept { return text.substr(0, text.find('\0')); }

}  // namespace

result<> check_name(std::string_view what, std::string_view name) {
    if (name.empty()) return fail(errc::invalid, fmt::format("{} must not be empty", what));
    if (name.size() > name_bytes_max) {
        return fail(errc::invalid,
                    fmt::format("{}: {} bytes are too many; at most {}", what, name.size(), name_bytes_max));
    }
    if (name.find('\0') != std::string_view::npos) {
        return fail(errc::invalid, fmt::format("{} must not have zero bytes", what));
    }
    return {};
}

std::vector<xattr> name_xattrs(const std::string& name, const uuid& id, bool padded) {
    std::vector<xattr> out;
    std::string told = name;
    if (name.size() > spdk_name_bytes_max) {
        told = fmt::format("{}~{}", beginning(name), id.to_string().substr(0, 8));
        out.push_back({std::string(long_name_xattr), told + '\0' + name});
    }
    told.resize(padded ? spdk_name_bytes_max + 1 : told.size() + 1);
    out.insert(out.begin(), {"name", told});
    return out;
}

xattr uuid_xattr(const uuid& id) { return {"uuid", id.to_string() + '\0'}; }

xattr creation_xattr_at(int64_t wall_clock_ns) {
    const auto seconds = static_cast<std::time_t>(wall_clock_ns / 1'000'000'000);
    return {creation_xattr, fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(seconds)) + '\0'};
}

std::string external_id_of(const bdev::device& d) { return d.props().uuid.to_string() + '\0'; }

std::string name_in(const xattr_map& xattrs) {
    const std::string* value = xattrs.find("name");
    if (value == nullptr) return {};
    std::string_view told = up_to_zero(*value);
    const std::string* kept = xattrs.find(long_name_xattr);
    if (kept != nullptr && up_to_zero(*kept) == told && kept->size() > told.size() + 1) {
        std::string_view whole = std::string_view(*kept).substr(told.size() + 1);
        if (check_name("name", whole)) return std::string(whole);
    }
    return std::string(told.substr(0, name_bytes_max));
}

std::string creation_time_in(const xattr_map& xattrs) {
    const std::string* value = xattrs.find(creation_xattr);
    return value == nullptr ? std::string() : std::string(up_to_zero(*value));
}

uuid uuid_in(const xattr_map& xattrs) noexcept {
    const std::string* value = xattrs.find("uuid");
    if (value == nullptr || value->size() != 37 || value->back() != '\0') return {};
    return uuid::parse(std::string_view(*value).substr(0, 36)).value_or(uuid());
}

bool is_kept_by_us(std::string_view xattr) noexcept {
    return xattr.empty() || xattr.contains('\0') || xattr == "name" || xattr == "uuid" || xattr == checksum_xattr ||
           xattr == long_name_xattr || xattr == creation_xattr;
}

}  // namespace varve::modules::lvol
