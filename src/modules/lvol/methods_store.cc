// bdev_lvol_*_lvstore(s).
#include <fmt/format.h>

#include <algorithm>

#include "modules/lvol/methods.h"
#include "modules/lvol/report.h"
#include "modules/lvol/volumes.h"

namespace varve::modules::lvol {

using clearing = volumes::store_creation::clearing;

constexpr auto names_of(clearing) {
    return std::to_array<rpc::named<clearing>>(
        {{"unmap", clearing::unmap}, {"write_zeroes", clearing::write_zeroes}, {"none", clearing::none}});
}

namespace {

struct create_params {
    std::string bdev_name, lvs_name;
    uint32_t cluster_sz = 4 * 1024 * 1024;
    clearing clear = clearing::unmap;
    uint32_t ratio = 100;
    uint32_t md_page_size = 0;
    static constexpr auto fields = std::tuple{
        rpc::required(&create_params::bdev_name, "bdev_name", "Name of the bdev to take for it"),
        rpc::required(&create_params::lvs_name, "lvs_name", "Name of the new lvstore, at most 255 bytes"),
        rpc::optional(&create_params::cluster_sz, "cluster_sz", "Bytes of a cluster; 0: the default"),
        rpc::optional(&create_params::clear, "clear_method", "What happens to the contents of the bdev"),
        rpc::optional(&create_params::ratio, "num_md_pages_per_cluster_ratio",
                      "Metadata pages per hundred clusters: how many lvols there can be, and how far it can grow"),
        rpc::optional(&create_params::md_page_size, "md_page_size",
                      "Bytes of a metadata page, a power of two from 4096 to 65536; 0: as the bdev likes it")};
};

result<volumes::store_creation> plan(volumes& all, const create_params& p) {
    bdev::device* base = all.devices().find(p.bdev_name);
    if (base == nullptr) return fail(errc::no_device, fmt::format("bdev {} does not exist", p.bdev_name));
    if (base->props().metadata_size != 0) {
        return fail(errc::invalid, fmt::format("bdev {} is formatted with metadata", p.bdev_name));
    }
    const uint32_t cluster = p.cluster_sz != 0 ? p.cluster_sz : create_params{}.cluster_sz;
    if (cluster % base->block_size() != 0) {
        return fail(errc::invalid, fmt::format("cluster_sz {} is no multiple of the block size of bdev {}, {}", cluster,
                                               p.bdev_name, base->block_size()));
    }
    if (p.md_page_size != 0 && (!is_power_of_two(p.md_page_size) || p.md_page_size < 4096 || p.md_page_size > 65536)) {
        return fail(errc::invalid,
                    fmt::format("md_page_size {} is no power of two from 4096 to 65536", p.md_page_size));
    }
    // What SPDK finds out when it lays out the store, it tells as it does what fails later.
    const uint64_t clusters = base->num_blocks() / (cluster / base->block_size());
    if (clusters == 0) {
        return late<volumes::store_creation>(
            fail(errc::invalid, fmt::format("bdev {} has {} bytes, less than a cluster of {}", p.bdev_name,
                                            base->num_blocks() * base->block_size(), cluster)));
    }
    const uint64_t ratio = p.ratio != 0 ? p.ratio : create_params{}.ratio;
    uint64_t pages = 0;
    if (!checked_multiply(clusters, ratio, pages) || pages / 100 > UINT32_MAX) {
        return fail(errc::invalid, "num_md_pages_per_cluster_ratio makes too many metadata pages");
    }
    if (pages / 100 == 0) {
        return late<volumes::store_creation>(fail(
            errc::invalid,
            fmt::format("num_md_pages_per_cluster_ratio {} leaves no metadata page for {} clusters", ratio, clusters)));
    }
    volumes::store_creation how{.bdev_name = p.bdev_name, .name = p.lvs_name, .options = {}, .clear = p.clear};
    how.options.cluster_size = cluster;
    how.options.md_page_count = static_cast<uint32_t>(pages / 100);
    how.options.md_page_size = p.md_page_size;
    return how;
}

task<std::string> create(volumes& all, create_params p) {
    co_await check_name("lvs_name", p.lvs_name);
    auto how = co_await plan(all, p);
    auto outcome = co_await as_result(all.create_store(std::move(how)));
    const errc why = outcome ? errc::ok : outcome.error().code();
    const bool at_once = why == errc::exists || why == errc::not_permitted || why == errc::no_device;
    if (!at_once) outcome = late(std::move(outcome));
    uuid made = co_await std::move(outcome);
    co_return made.to_string();
}

task<> remove(volumes& all, store_choice p) {
    volume_store* s = co_await all.store(p.uuid, p.lvs_name);
    co_await late(co_await as_result(all.destroy_store(*s)));
}

struct rename_params {
    std::string old_name, new_name;
    static constexpr auto fields =
        std::tuple{rpc::required(&rename_params::old_name, "old_name", "Name of the lvstore"),
                   rpc::required(&rename_params::new_name, "new_name", "What it is to be named")};
};

task<> rename(volumes& all, rename_params p) {
    volume_store* s = all.find_store(std::string_view(p.old_name));
    if (s == nullptr) co_await fail(error(errc::not_found, fmt::format("Lvol store {} not found", p.old_name)));
    co_await late(co_await as_result(all.rename_store(*s, p.new_name)));
}

task<> grow(volumes& all, store_choice p) {
    volume_store* s = co_await all.store(p.uuid, p.lvs_name);
    co_await late(co_await as_result(s->grow()));
}

struct import_params {
    std::string bdev_name;
    std::optional<std::string> lvs_name;
    static constexpr auto fields =
        std::tuple{rpc::required(&import_params::bdev_name, "bdev_name", "Name of the bdev on which the lvstore lies"),
                   rpc::optional(&import_params::lvs_name, "lvs_name",
                                 "What it is to be named from now on; as it is when not given")};
};

task<std::string> import(volumes& all, import_params p) {
    co_await all.devices().wait_for_examine();  // it may be opened, or be refused with a reason, this very moment
    uuid id = co_await all.import(p.bdev_name, p.lvs_name);
    co_return id.to_string();
}

result<json::value> get(volumes& all, store_choice p) {
    json::array out;
    if (p.uuid || p.lvs_name) {
        auto s = all.store(p.uuid, p.lvs_name);
        if (!s) return fail(std::move(s).error());
        out.push_back(describe(**s));
    } else {
        for (const volume_store* s : all.stores()) out.push_back(describe(*s));
    }
    return out;
}

}  // namespace

void add_store_methods(rpc::registry& to, volumes& all) {
    to.add(rpc::make_method("bdev_lvol_create_lvstore",
                            "Make a store of logical volumes on a bdev; what was there is gone", create)
               .bind(all));
    to.add(rpc::make_method("bdev_lvol_delete_lvstore", "Delete an lvstore and all that is in it", remove).bind(all));
    to.add(
        rpc::make_method("bdev_lvol_rename_lvstore", "Rename an lvstore, and with it the aliases of its lvols", rename)
            .bind(all));
    to.add(rpc::make_method("bdev_lvol_grow_lvstore", "Let an lvstore take all of a bdev that has become larger", grow)
               .bind(all));
    to.add(rpc::make_method("bdev_lvol_import_lvstore",
                            "Open the lvstore on a bdev, when that did not happen by itself, and say why it cannot be",
                            import)
               .bind(all));
    to.add(rpc::make_method("bdev_lvol_get_lvstores", "Describe all lvstores, or one", get).bind(all));
}

}  // namespace varve::modules::lvol
