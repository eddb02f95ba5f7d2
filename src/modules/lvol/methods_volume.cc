// Methods about one volume.
#include <fmt/format.h>

#include "modules/lvol/methods.h"
#include "modules/lvol/report.h"
#include "modules/lvol/volumes.h"

namespace varve::blob::format {

constexpr auto names_of(clear_method) {
    return std::to_array<rpc::named<clear_method>>({{"default", clear_method::unspecified},
                                                    {"none", clear_method::none},
                                                    {"unmap", clear_method::unmap},
                                                    {"write_zeroes", clear_method::write_zeroes}});
}

}  // namespace varve::blob::format

namespace varve::modules::lvol {

namespace {

constexpr uint64_t mib = 1024 * 1024;

struct create_params {
    std::string lvol_name;
    std::optional<uint64_t> size_in_mib, size;
    bool thin_provision = false;
    std::optional<std::string> uuid, lvs_name;
    blob::format::clear_method clear = blob::format::clear_method::unspecified;
    static constexpr auto fields = std::tuple{
        rpc::required(&create_params::lvol_name, "lvol_name", "Name of the new lvol, at most 255 bytes"),
        rpc::optional(&create_params::size_in_mib, "size_in_mib",
                      "Size in MiB, rounded up to whole clusters; required"),
        rpc::optional(&create_params::size, "size", "Size in bytes, as clients of the past give it"),
        rpc::optional(&create_params::thin_provision, "thin_provision", "Take clusters when they are first written"),
        rpc::optional(&create_params::uuid, "uuid", "UUID of the lvstore"),
        rpc::optional(&create_params::lvs_name, "lvs_name", "Name of the lvstore; give this or the UUID"),
        rpc::optional(&create_params::clear, "clear_method", "How clusters are cleared that it gives back")};
};

// Clients of SPDK up to 23.05 may give bytes.
result<uint64_t> bytes_of(const std::optional<uint64_t>& in_mib, const std::optional<uint64_t>& in_bytes) {
    if (in_mib.has_value() == in_bytes.has_value()) {
        return fail(error(errc::rpc_invalid_params, in_mib ? "Invalid parameters: give size_in_mib or size, not both"
                                                           : "Invalid parameters: size_in_mib is required"));
    }
    uint64_t bytes = in_bytes.value_or(0);
    if (in_mib && !checked_multiply(*in_mib, mib, bytes)) {
        return fail(errc::invalid, fmt::format("size_in_mib {} is too large", *in_mib));
    }
    return bytes;
}

task<std::string> create(volumes& all, create_params p) {
    const uint64_t bytes = co_await bytes_of(p.size_in_mib, p.size);
    volume_store* s = co_await all.store(p.uuid, p.lvs_name);
    reserved_name name = co_await s->reserve(p.lvol_name);
    volume* made = co_await late(
        co_await as_result(s->create(std::move(name), {.bytes = bytes, .thin = p.thin_provision, .clear = p.clear})));
    co_return made->bdev_name();
}

struct name_params {
    std::string name;
    static constexpr auto fields =
        std::tuple{rpc::required(&name_params::name, "name", "UUID or alias (lvs_name/lvol_name) of the lvol")};
};

task<> remove(volumes& all, name_params p) {
    volume* v = co_await all.find(p.name);
    co_await late(co_await as_result(v->owner().remove(*v)), errc::rpc_internal);
}

struct list_params {
    std::optional<std::string> lvs_uuid, lvs_name;
    static constexpr auto fields =
        std::tuple{rpc::optional(&list_params::lvs_uuid, "lvs_uuid", "UUID of an lvstore: only what is in it"),
                   rpc::optional(&list_params::lvs_name, "lvs_name", "Name of an lvstore: only what is in it")};
};

result<json::value> list(volumes& all, list_params p) {
    std::vector<volume_store*> stores = all.stores();
    if (p.lvs_uuid || p.lvs_name) {
        auto s = all.store(p.lvs_uuid, p.lvs_name);
        if (!s) return fail(std::move(s).error());
        stores = {*s};
    }
    json::array out;
    for (const volume_store* s : stores) {
        for (const volume* v : s->list()) out.push_back(describe(*v));
    }
    return out;
}

}  // namespace

void add_volume_methods(rpc::registry& to, volumes& all) {
    to.add(rpc::make_method("bdev_lvol_create", "Make a logical volume, and a bdev of it", create).bind(all));
    to.add(rpc::make_method("bdev_lvol_delete", "Delete a logical volume", remove).bind(all));
    to.add(rpc::make_method("bdev_lvol_get_lvols", "Describe logical volumes, also those that have no bdev", list)
               .bind(all));
}

}  // namespace varve::modules::lvol
