// The subsystem "bdev": the registry of devices, the modules that make them, and the methods of both.
#pragma once

#include <memory>
#include <vector>

#include "bdev/module.h"
#include "bdev/registry.h"
#include "rpc/subsystem.h"

namespace varve::bdev {

struct options {
    uint32_t bdev_io_pool_size = 65535, bdev_io_cache_size = 256;
    bool bdev_auto_examine = true;
    uint32_t iobuf_small_cache_size = 128, iobuf_large_cache_size = 16;
    static constexpr auto fields =
        std::tuple{rpc::optional(&options::bdev_io_pool_size, "bdev_io_pool_size", "Kept: requests need no pool"),
                   rpc::optional(&options::bdev_io_cache_size, "bdev_io_cache_size", "Kept: requests need no pool"),
                   rpc::optional(&options::bdev_auto_examine, "bdev_auto_examine",
                                 "Let modules look at every new bdev; otherwise only at those bdev_examine names"),
                   rpc::optional(&options::iobuf_small_cache_size, "iobuf_small_cache_size", "Kept, without effect"),
                   rpc::optional(&options::iobuf_large_cache_size, "iobuf_large_cache_size", "Kept, without effect")};
};

class service final : public rpc::subsystem {
  public:
    explicit service(thread::runtime& threads) : _devices(threads) {}

    // Before the subsystem is given to an instance.
    void add(std::unique_ptr<module> m) { _modules.push_back(std::move(m)); }
    registry& devices() noexcept { return _devices; }

    std::string_view name() const noexcept override { return "bdev"; }
    std::vector<std::string> depends_on() const override { return {"accel", "sock", "iobuf"}; }
    void add_methods(rpc::registry& methods) override;
    std::optional<std::vector<rpc::call>> config() const override;
    task<> stop() override;

  private:
    static result<> set_options(service& s, rpc::update<options> p);

    registry _devices;
    std::vector<std::unique_ptr<module>> _modules;
    options _options;
};

// What the files of this folder add.
void add_report_methods(rpc::registry& methods, registry& devices);
void add_statistics_methods(rpc::registry& methods, registry& devices);
void add_limit_methods(rpc::registry& methods, registry& devices);

// Limits and histograms of a device that was configured at run time.
void append_config(const device& d, std::vector<rpc::call>& calls);
json::object limits_of(const device& d);

// errc::no_device, as every method says it.
result<device*> find(registry& devices, std::string_view name);
// How SPDK's interface names an operation: the keys of supported_io_types, "opc".
std::optional<op> op_named(std::string_view name) noexcept;

}  // namespace varve::bdev
