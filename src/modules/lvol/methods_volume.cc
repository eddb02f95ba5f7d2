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
    co_return co_await late(
        co_await as_result(s->create(std::move(name), {.bytes = bytes, .thin = p.thin_provision, .clear = p.clear})));
}

task<> remove(volumes& all, name_params p) {
    volume* v = co_await all.find(p.name);
    co_await late(co_await as_result(v->owner().remove(*v)), errc::rpc_internal);
}

struct snapshot_params {
    std::string lvol_name, snapshot_name;
    std::optional<json::value> xattrs;
    static constexpr auto fields =
        std::tuple{rpc::required(&snapshot_params::lvol_name, "lvol_name", "UUID or alias of the lvol"),
                   rpc::required(&snapshot_params::snapshot_name, "snapshot_name", "Name of the new snapshot"),
                   rpc::optional(&snapshot_params::xattrs, "xattrs",
                                 "Attributes of the new snapshot: an object of names and texts")};
};

result<std::vector<blob::format::xattr>> xattrs_in(const std::optional<json::value>& given) {
    std::vector<blob::format::xattr> out;
    if (!given || given->is_null()) return out;
    const json::object* members = given->members();
    if (members == nullptr) return fail(error(errc::rpc_invalid_params, "Invalid parameters: xattrs is no object"));
    for (const json::member& m : *members) {
        const std::string* text = m.data.string();
        if (text == nullptr || is_kept_by_us(m.name)) {
            return fail(error(errc::rpc_invalid_params,
                              fmt::format("Invalid parameters: xattrs.{}: {}", m.name,
                                          text == nullptr ? "not a text" : "kept by the system itself")));
        }
        out.push_back({m.name, *text + '\0'});
    }
    return out;
}

task<std::string> snapshot(volumes& all, snapshot_params p) {
    volume* v = co_await all.find_served(p.lvol_name);
    auto xattrs = co_await xattrs_in(p.xattrs);
    reserved_name name = co_await late(v->owner().reserve(p.snapshot_name));
    co_return co_await late(co_await as_result(v->owner().snapshot(std::move(name), *v, std::move(xattrs))));
}

struct clone_params {
    std::string snapshot_name, clone_name;
    static constexpr auto fields =
        std::tuple{rpc::required(&clone_params::snapshot_name, "snapshot_name", "UUID or alias of the snapshot"),
                   rpc::required(&clone_params::clone_name, "clone_name", "Name of the new lvol")};
};

task<std::string> clone(volumes& all, clone_params p) {
    volume* v = co_await all.find_served(p.snapshot_name);
    reserved_name name = co_await late(v->owner().reserve(p.clone_name));
    co_return co_await late(co_await as_result(v->owner().clone(std::move(name), *v)));
}

struct clone_bdev_params {
    std::string bdev, lvs_name, clone_name;
    static constexpr auto fields = std::tuple{
        rpc::required(&clone_bdev_params::bdev, "bdev", "Name or UUID of the bdev to clone, which nobody is to write"),
        rpc::required(&clone_bdev_params::lvs_name, "lvs_name", "Name of the lvstore for the clone"),
        rpc::required(&clone_bdev_params::clone_name, "clone_name", "Name of the new lvol")};
};

// These texts are SPDK's own, without an errno's.
error no_such(std::string_view what, std::string_view name) {
    return {errc::rpc_invalid_params, fmt::format("{} does not exist: {}", what, name)};
}

task<std::string> clone_bdev(volumes& all, clone_bdev_params p) {
    volume_store* s = all.find_store(std::string_view(p.lvs_name));
    if (s == nullptr) co_await fail(no_such("lvs", p.lvs_name));
    bdev::device* parent = all.devices().find(p.bdev);
    if (parent == nullptr) co_await fail(no_such("bdev", p.bdev));
    if (const volume* v = volume::of(parent); v != nullptr && &v->owner() == s) {
        co_await fail(
            error(errc::rpc_invalid_params, "bdev is an lvol in same lvs as clone; use bdev_lvol_clone instead"));
    }
    reserved_name name = co_await late(s->reserve(p.clone_name));
    co_return co_await late(co_await as_result(s->clone_of_bdev(std::move(name), *parent)));
}

struct rename_params {
    std::string old_name, new_name;
    static constexpr auto fields =
        std::tuple{rpc::required(&rename_params::old_name, "old_name", "UUID or alias of the lvol"),
                   rpc::required(&rename_params::new_name, "new_name", "What it is to be named in its lvstore")};
};

task<> rename(volumes& all, rename_params p) {
    volume* v = co_await all.find(p.old_name);
    reserved_name name = co_await late(v->owner().reserve(p.new_name));
    co_await late(co_await as_result(v->owner().rename(*v, std::move(name))));
}

struct resize_params {
    std::string name;
    std::optional<uint64_t> size_in_mib, size;
    static constexpr auto fields = std::tuple{
        rpc::required(&resize_params::name, "name", "UUID or alias of the lvol"),
        rpc::optional(&resize_params::size_in_mib, "size_in_mib", "New size in MiB, rounded up to clusters; required"),
        rpc::optional(&resize_params::size, "size", "New size in bytes, as clients of the past give it")};
};

task<> resize(volumes& all, resize_params p) {
    const uint64_t bytes = co_await bytes_of(p.size_in_mib, p.size);
    volume* v = co_await all.find_served(p.name);
    co_await late(co_await as_result(v->owner().resize(*v, bytes)));
}

// Methods of one volume and nothing else.
template <task<> (volume_store::*What)(volume&)>
task<> on_volume(volumes& all, name_params p) {
    volume* v = co_await all.find_served(p.name);
    co_await late(co_await as_result((v->owner().*What)(*v)));
}

struct parent_params {
    std::string lvol_name, parent_name;
    static constexpr auto fields =
        std::tuple{rpc::required(&parent_params::lvol_name, "lvol_name", "UUID or alias of the lvol"),
                   rpc::required(&parent_params::parent_name, "parent_name", "UUID, alias or name of its new parent")};
};

task<> set_parent(volumes& all, parent_params p) {
    volume* v = co_await all.find_served(p.lvol_name);
    volume* parent = co_await all.find_served(p.parent_name);
    co_await late(co_await as_result(v->owner().set_parent(*v, *parent)));
}

task<> set_parent_bdev(volumes& all, parent_params p) {
    volume* v = co_await all.find_served(p.lvol_name);
    bdev::device* parent = all.devices().find(p.parent_name);
    if (parent == nullptr) {
        co_await late(result<>(fail(errc::no_device, fmt::format("bdev {} does not exist", p.parent_name))));
    }
    co_await late(co_await as_result(v->owner().set_parent_bdev(*v, *parent)));
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
    auto add = [&](const char* name, const char* description, auto what) {
        to.add(rpc::make_method(name, description, what).bind(all));
    };
    add("bdev_lvol_create", "Make a logical volume, and a bdev of it", create);
    add("bdev_lvol_snapshot", "Keep the present contents of an lvol as a read-only one that it is a clone of",
        snapshot);
    add("bdev_lvol_clone", "Make an lvol that shows a snapshot where nothing was written", clone);
    add("bdev_lvol_clone_bdev", "Make an lvol that shows another bdev where nothing was written", clone_bdev);
    add("bdev_lvol_rename", "Rename an lvol; its bdev keeps its name and gets another alias", rename);
    add("bdev_lvol_resize", "Make an lvol larger or smaller", resize);
    add("bdev_lvol_set_read_only", "Let nobody write an lvol any more; clones can be made of it",
        on_volume<&volume_store::set_read_only>);
    add("bdev_lvol_delete", "Delete an lvol; a snapshot's contents go to its clone, if it has one", remove);
    add("bdev_lvol_inflate", "Give an lvol all its clusters, with what it shows, so that it has no parent",
        on_volume<&volume_store::inflate>);
    add("bdev_lvol_decouple_parent", "Give an lvol the clusters its parent shows through it, and its parent's parent",
        on_volume<&volume_store::decouple>);
    add("bdev_lvol_set_parent", "Let an lvol show a snapshot where nothing was written", set_parent);
    add("bdev_lvol_set_parent_bdev", "Let an lvol show another bdev where nothing was written", set_parent_bdev);
    add("bdev_lvol_get_lvols", "Describe lvols, also those that have no bdev", list);
}

}  // namespace varve::modules::lvol
