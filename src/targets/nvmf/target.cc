#include "targets/nvmf/target.h"

#include <fmt/core.h>

#include <algorithm>

#include "nvme/fabrics.h"
#include "targets/nvmf/controller.h"
#include "targets/nvmf/poll_group.h"
#include "thread/awaits.h"

namespace varve::targets::nvmf {

target::target(thread::runtime& system, bdev::registry& devices, const logger& log, std::string name)
    : _system(system), _devices(devices), _log(log), _name(std::move(name)) {}

target::~target() { VARVE_ASSERT(_groups.empty()); }

task<> target::start() {
    // One for each reactor, unless nvmf_set_config chose among them.
    for (unsigned cpu : (settings.poll_group_cpus.empty() ? _system.cpus() : settings.poll_group_cpus).list()) {
        thread::cpu_set only;
        only.add(cpu);
        std::string name = fmt::format("{}_poll_group_{:03}", _name, _groups.size());
        thread::thread* thread = co_await _system.create_thread(name, only);
        // Made on its own thread, as what it holds belongs there.
        auto group = co_await call_on(
            *thread, [&]() -> task<std::unique_ptr<poll_group>> { return poll_group::make(*this, *thread, name); });
        _groups.push_back(std::move(group));
    }
    subsystem_options discovery{.nqn = std::string(nvme::discovery_nqn), .discovery = true, .allow_any_host = true};
    discovery.max_namespaces = 0;
    co_await create_subsystem(std::move(discovery));
}

task<> target::stop() {
    co_await calls.close();
    while (!_subsystems.empty()) {
        co_await _subsystems.back()->stop();
        _subsystems.pop_back();
    }
    co_await tasks.close();
    for (auto& group : _groups) {
        thread::thread& thread = group->thread();
        co_await call_on(thread, [&] { return poll_group::end(std::move(group)); });
        _system.destroy_thread(thread);
    }
    _groups.clear();
    transports.clear();  // after the connections, which refer to them
}

transport* target::find_transport(std::string_view trtype) noexcept {
    for (auto& t : transports)
        if (std::ranges::equal(t->options().trtype, trtype, {}, ::toupper, ::toupper)) return t.get();
    return nullptr;
}

task<> target::create_transport(transport_options options) {
    std::string given = options.trtype;
    std::ranges::transform(options.trtype, options.trtype.begin(), ::toupper);
    if (options.trtype != "TCP")
        co_await fail(error(errc::rpc_invalid_params, fmt::format("Invalid transport type '{}'", given)));
    if (find_transport(options.trtype) != nullptr)
        co_await fail(error(errc::rpc_internal, fmt::format("Transport type '{}' already exists", options.trtype)));
    transports.push_back(make_tcp_transport(*this, std::move(options)));
}

subsystem* target::find_subsystem(std::string_view nqn) noexcept {
    for (auto& s : _subsystems)
        if (s->options().nqn == nqn) return s.get();
    return nullptr;
}

task<subsystem*> target::create_subsystem(subsystem_options options) {
    if (calls.closed()) co_return fail(errc::busy, "the target is stopping");
    if (find_subsystem(options.nqn) != nullptr)
        co_return fail(error(errc::rpc_internal, fmt::format("Unable to create subsystem {}: it exists", options.nqn)));
    if (_subsystems.size() >= settings.max_subsystems)
        co_return fail(
            error(errc::rpc_internal, fmt::format("Unable to create subsystem {}: the target has max_subsystems ({})",
                                                  options.nqn, settings.max_subsystems)));
    _subsystems.push_back(std::make_unique<subsystem>(*this, std::move(options)));
    discovery_changed();
    co_return _subsystems.back().get();
}

task<> target::delete_subsystem(std::string nqn) {
    auto inside = calls.enter();
    if (!inside) co_await fail(errc::busy, "the target is stopping");
    subsystem* going = find_subsystem(nqn);
    if (going == nullptr) co_await fail(errc::rpc_invalid_params, fmt::format("nqn: there is no subsystem {}", nqn));
    if (going->stopping) co_await fail(errc::busy, fmt::format("{} is being deleted", nqn));
    co_await going->stop();
    std::erase_if(_subsystems, [going](auto& s) { return s.get() == going; });
    discovery_changed();
}

poll_group& target::next_group() noexcept { return *_groups[_next++ % _groups.size()]; }

// Hosts connected to the discovery subsystem and asking for events hear that its log page is another now.
void target::discovery_changed() {
    ++discovery_generation;
    subsystem* discovery = find_subsystem(nvme::discovery_nqn);
    if (discovery == nullptr) return;
    for (auto& c : discovery->controllers) c->home->post([c] { notify_discovery_changed(*c); });
}

}  // namespace varve::targets::nvmf
