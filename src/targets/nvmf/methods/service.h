// The NVMe-oF target as a part of the system: the nvmf_* methods, its saved configuration, start and stop.
#pragma once

#include <functional>
#include <memory>

#include "rpc/subsystem.h"
#include "targets/nvmf/target.h"

namespace varve::targets::nvmf {

class service final : public rpc::subsystem {
  public:
    service(thread::runtime& system, bdev::registry& devices, const logger& log);
    ~service() override;

    std::string_view name() const noexcept override { return "nvmf"; }
    std::vector<std::string> depends_on() const override { return {"bdev", "sock"}; }
    void add_methods(rpc::registry& methods) override;
    task<> start() override;
    std::optional<std::vector<rpc::call>> config() const override;
    task<> stop() override;

    nvmf::target& target() noexcept { return _target; }

  private:
    nvmf::target _target;
    bool _started = false;
};

// One file each: X_methods.cc.
void add_target_methods(rpc::registry& methods, target& t);
void add_transport_methods(rpc::registry& methods, target& t);
void add_subsystem_methods(rpc::registry& methods, target& t);
void add_namespace_methods(rpc::registry& methods, target& t);
void add_listener_methods(rpc::registry& methods, target& t);
void add_report_methods(rpc::registry& methods, target& t);

// What they save, in the order in which it loads.
void add_target_config(std::vector<rpc::call>& to, const target& t);
void add_transport_config(std::vector<rpc::call>& to, const target& t);
void add_referral_config(std::vector<rpc::call>& to, const target& t);  // target_methods.cc
void add_subsystem_config(std::vector<rpc::call>& to, const target& t);
void add_namespace_config(std::vector<rpc::call>& to, const target& t);
void add_listener_config(std::vector<rpc::call>& to, const target& t);

}  // namespace varve::targets::nvmf
