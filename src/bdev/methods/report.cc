// bdev_get_bdevs. Keys, their order and types are SPDK's: clients read all of it.
#include <fmt/format.h>

#include <array>
#include <utility>

#include "bdev/core/device_state.h"
#include "bdev/methods/service.h"

namespace varve::bdev {

namespace {

// Operations SPDK's interface knows; those we do not have are always false.
constexpr auto io_types = std::to_array<std::pair<const char*, op>>({{"read", op::read},
                                                                     {"write", op::write},
                                                                     {"unmap", op::unmap},
                                                                     {"flush", op::flush},
                                                                     {"reset", op::reset},
                                                                     {"nvme_admin", op::nvme_admin},
                                                                     {"nvme_io", op::nvme_io},
                                                                     {"nvme_io_md", op::count},
                                                                     {"write_zeroes", op::write_zeroes},
                                                                     {"zcopy", op::count},
                                                                     {"get_zone_info", op::count},
                                                                     {"zone_management", op::count},
                                                                     {"zone_append", op::count},
                                                                     {"compare", op::compare},
                                                                     {"compare_and_write", op::compare_and_write},
                                                                     {"abort", op::count},
                                                                     {"seek_hole", op::seek_hole},
                                                                     {"seek_data", op::seek_data},
                                                                     {"copy", op::copy},
                                                                     {"nvme_iov_md", op::count},
                                                                     {"nvme_nssr", op::count},
                                                                     {"write_uncorrectable", op::count}});

// What the module does itself; zeroes and resets every device that can be written or at all can do.
json::object supported_io_types(const device& d) {
    json::object out;
    for (const auto& [name, o] : io_types) {
        bool yes = o != op::count && d.offers(o) && d.supports(o);
        if (o == op::reset || o == op::write_zeroes) yes = d.supports(o);
        if (std::string_view(name) == "abort") yes = d.props().can_abort;
        out.add(name, yes);
    }
    return out;
}

void add_metadata(json::object& out, const properties& p) {
    if (p.metadata_size == 0) return;
    out.add("md_size", p.metadata_size);
    out.add("md_interleave", p.metadata_interleaved);
    out.add("dif_type", p.protection.type);
    if (p.protection.type == 0) return;
    out.add("dif_is_head_of_md", p.protection.at_head_of_metadata);
    out.add("enabled_dif_check_types", json::object{{"reftag", p.protection.check_reference},
                                                    {"apptag", p.protection.check_application},
                                                    {"guard", p.protection.check_guard}});
    out.add("dif_pi_format", p.protection.format);
}

json::value describe(device& d) {
    const properties& p = d.props();
    json::array aliases(p.aliases.begin(), p.aliases.end());
    json::object out{{"name", p.name},
                     {"aliases", std::move(aliases)},
                     {"product_name", p.product_name},
                     {"block_size", p.block_size},
                     {"num_blocks", p.num_blocks},
                     {"preferred_write_alignment", p.preferred_write_alignment},
                     {"preferred_write_granularity", p.preferred_write_granularity},
                     {"optimal_write_size", p.optimal_write_size},
                     {"preferred_unmap_alignment", p.preferred_unmap_alignment},
                     {"preferred_unmap_granularity", p.preferred_unmap_granularity},
                     {"uuid", p.uuid.to_string()}};
    if (p.numa_id != properties::no_numa) out.add("numa_id", p.numa_id);
    if (!p.creation_time.empty()) out.add("creation_time", p.creation_time);
    add_metadata(out, p);
    out.add("assigned_rate_limits", limits_of(d));
    claim_type claim = device_state::of_device(d).claim;
    out.add("claimed", claim != claim_type::none);
    if (claim != claim_type::none) out.add("claim_type", name_of(claim));
    out.add("zoned", false);
    out.add("supported_io_types", supported_io_types(d));
    out.add("driver_specific", d.driver_specific());
    return out;
}

struct get_bdevs_params {
    std::optional<std::string> name;
    uint64_t timeout = 0;
    static constexpr auto fields = std::tuple{
        rpc::optional(&get_bdevs_params::name, "name", "Name, alias or UUID of one bdev; all when not given"),
        rpc::optional(&get_bdevs_params::timeout, "timeout", "Milliseconds to wait for that bdev to appear",
                      rpc::range<0, 1'000'000'000>)};
};

task<json::value> get_bdevs(registry& devices, get_bdevs_params p) {
    json::array out;
    if (!p.name) {
        for (device* d : devices.devices()) {
            if (!device_state::of_device(*d).removing) out.push_back(describe(*d));
        }
    } else if (p.timeout == 0) {
        out.push_back(describe(*co_await find(devices, *p.name)));
    } else {
        descriptor opened = co_await devices.open_later(*p.name, open_mode::read_only, {},
                                                        static_cast<time_ns>(p.timeout) * milliseconds);
        out.push_back(describe(*opened));
    }
    co_return out;
}

}  // namespace

std::optional<op> op_named(std::string_view name) noexcept {
    for (const auto& [known, o] : io_types) {
        if (name == known && o != op::count) return o;
    }
    return std::nullopt;
}

void add_report_methods(rpc::registry& methods, registry& devices) {
    methods.add(rpc::make_method("bdev_get_bdevs", "Describe all bdevs, or one", get_bdevs).bind(devices));
}

}  // namespace varve::bdev
