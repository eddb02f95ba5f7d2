#include "targets/nvmf/methods/service.h"

#include "targets/nvmf/poll_group.h"

namespace varve::targets::nvmf {

service::service(thread::runtime& system, bdev::registry& devices, const logger& log) : _target(system, devices, log) {}

service::~service() = default;

void service::add_methods(rpc::registry& methods) {
    add_target_methods(methods, _target);
    add_transport_methods(methods, _target);
    add_subsystem_methods(methods, _target);
    add_namespace_methods(methods, _target);
    add_listener_methods(methods, _target);
    add_report_methods(methods, _target);
}

task<> service::start() {
    _started = true;
    co_await _target.start();
}

task<> service::stop() {
    if (std::exchange(_started, false)) co_await _target.stop();
}

std::optional<std::vector<rpc::call>> service::config() const {
    std::vector<rpc::call> calls;
    add_target_config(calls, _target);
    add_transport_config(calls, _target);
    add_referral_config(calls, _target);
    add_subsystem_config(calls, _target);
    add_namespace_config(calls, _target);
    add_listener_config(calls, _target);
    return calls;
}

}  // namespace varve::targets::nvmf
