#include "bdev/methods/service.h"

#include <fmt/format.h>

namespace varve::bdev {

result<device*> find(registry& devices, std::string_view name) {
    device* d = devices.find(name);
    if (d == nullptr) return fail(errc::no_device, fmt::format("bdev {} does not exist", name));
    return d;
}

result<> service::set_options(service& s, rpc::update<options> p) {
    options wanted = p.onto(s._options);
    // SPDK's own conditions: what it refuses in a configuration is refused here, too.
    if (wanted.bdev_io_pool_size < wanted.bdev_io_cache_size) {
        return fail(error(errc::rpc_invalid_params, fmt::format("Pool size {} too small for cache size {}",
                                                                wanted.bdev_io_pool_size, wanted.bdev_io_cache_size)));
    }
    s._options = wanted;
    s._devices.set_auto_examine(wanted.bdev_auto_examine);
    return {};
}

namespace {

struct examine_params {
    std::string name;
    static constexpr auto fields = std::tuple{rpc::required(&examine_params::name, "name", "Name of the bdev")};
};
task<> examine(registry& devices, examine_params p) { return devices.examine(std::move(p.name)); }
task<> wait_for_examine(registry& devices) { return devices.wait_for_examine(); }

}  // namespace

void service::add_methods(rpc::registry& methods) {
    methods.add(rpc::make_method("bdev_set_options", "Set options of the bdev layer", set_options, rpc::states::startup)
                    .bind(*this));
    methods.add(rpc::make_method("bdev_examine", "Let modules look at a bdev, when they do not by themselves", examine)
                    .bind(_devices));
    methods.add(rpc::make_method("bdev_wait_for_examine", "Answer when no module is looking at a bdev any more",
                                 wait_for_examine)
                    .bind(_devices));
    add_report_methods(methods, _devices);
    add_statistics_methods(methods, _devices);
    add_limit_methods(methods, _devices);
    for (auto& m : _modules) m->attach(methods, _devices);
}

task<> service::stop() {
    for (auto& m : _modules) co_await m->stop();
    co_await _devices.remove_all();
}

std::optional<std::vector<rpc::call>> service::config() const {
    std::vector<rpc::call> calls{{"bdev_set_options", rpc::encode(_options)}};
    for (const std::string& name : _devices.to_examine()) {
        calls.push_back({"bdev_examine", rpc::encode(examine_params{name})});
    }
    for (const auto& m : _modules) {
        for (rpc::call& c : m->config()) calls.push_back(std::move(c));
    }
    for (const device* d : _devices.devices()) {
        if (auto made_by = d->recreate()) calls.push_back(std::move(*made_by));
    }
    for (const device* d : _devices.devices()) append_config(*d, calls);
    calls.push_back({"bdev_wait_for_examine", {}});
    return calls;
}

}  // namespace varve::bdev
