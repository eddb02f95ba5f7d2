#include "targets/nvmf/subsystem.h"

#include <fmt/core.h>

#include <algorithm>
#include <bit>

#include "bdev/device.h"
#include "bdev/registry.h"
#include "targets/nvmf/controller.h"
#include "targets/nvmf/poll_group.h"
#include "targets/nvmf/target.h"
#include "thread/awaits.h"

namespace varve::targets::nvmf {

subsystem::subsystem(target& of, subsystem_options options) : _target(of), _options(std::move(options)) {}

subsystem::~subsystem() { VARVE_ASSERT(controllers.empty()); }

exported_namespace* subsystem::find_namespace(uint32_t nsid) noexcept {
    return nsid != 0 && nsid <= namespaces.size() ? namespaces[nsid - 1].get() : nullptr;
}

ana_state subsystem::ana_state_of(const exported_namespace& ns, const env::address& at) noexcept {
    listener_entry* entry = find_listener(at);
    uint32_t group = ns.options.anagrpid;
    if (!_options.ana_reporting || entry == nullptr || group == 0 || group > entry->ana.size())
        return ana_state::optimized;
    return entry->ana[group - 1];
}

result<uint32_t> subsystem::choose_nsid(uint32_t wanted) const {
    auto taken = [&](uint32_t nsid) { return nsid <= namespaces.size() && namespaces[nsid - 1] != nullptr; };
    if (wanted == nvme::nsid_all) return fail(errc::rpc_invalid_params, "nsid: 4294967295 means all namespaces");
    if (wanted == 0) {
        do ++wanted;
        while (wanted <= _options.max_namespaces && taken(wanted));
        if (wanted > _options.max_namespaces)
            return fail(errc::rpc_invalid_params,
                        fmt::format("nsid: all {} namespaces of {} are in use", _options.max_namespaces, _options.nqn));
    }
    if (wanted > _options.max_namespaces)
        return fail(errc::rpc_invalid_params, fmt::format("nsid: {} is more than max_namespaces ({}) of {}", wanted,
                                                          _options.max_namespaces, _options.nqn));
    if (taken(wanted))
        return fail(errc::rpc_invalid_params, fmt::format("nsid: {} is in use in {}", wanted, _options.nqn));
    return wanted;
}

result<> subsystem::check_ana_group(uint32_t group) const {
    if (group != 0 && group <= _options.max_namespaces) return {};
    return fail(errc::rpc_invalid_params, fmt::format("anagrpid: must be between 1 and max_namespaces ({}), not {}",
                                                      _options.max_namespaces, group));
}

namespace {

// Why a device cannot be a namespace.
result<> check_device(const bdev::device& d) {
    const bdev::properties& p = d.props();
    auto refuse = [&](std::string_view why) {
        return fail(errc::rpc_invalid_params, fmt::format("bdev_name: {}: {}", d.name(), why));
    };
    if (p.metadata_size != 0) return refuse("bdevs with metadata are not offered yet");
    if (!std::has_single_bit(p.block_size) || p.block_size < 512)
        return refuse(fmt::format("blocks of {} bytes: hosts need a power of two from 512 on", p.block_size));
    return {};
}

}  // namespace

task<uint32_t> subsystem::add_namespace(namespace_options wanted) {
    auto changing = co_await _changing.lock();
    uint32_t nsid = co_await choose_nsid(wanted.nsid);
    wanted.nsid = nsid;
    if (wanted.anagrpid == 0) wanted.anagrpid = nsid;
    co_await check_ana_group(wanted.anagrpid);
    auto ns = std::make_unique<exported_namespace>();
    uint64_t serial = ns->serial = _next_serial++;
    auto device =
        _target.devices().open(wanted.bdev_name, bdev::open_mode::read_write,
                               [this, nsid, serial](bdev::device_event e) { device_changed(nsid, serial, e); });
    if (!device)
        co_return fail(errc::rpc_invalid_params,
                       fmt::format("bdev_name: {}: {}", wanted.bdev_name, device.error().message()));
    co_await check_device(device->target());
    if (auto claimed = device->claim(bdev::claim_type::exclusive_write, "NVMe-oF Target"); !claimed)
        co_return fail(errc::rpc_invalid_params,
                       fmt::format("bdev_name: {}: {}", wanted.bdev_name, claimed.error().message()));
    // Hosts ask once whether there is a cache to flush, and what they heard must stay true.
    if (device->target().props().write_cache && std::ranges::any_of(controllers, &controller::told_no_write_cache))
        co_return fail(errc::rpc_invalid_params,
                       fmt::format("bdev_name: {} has a volatile write cache, and hosts are connected that were told "
                                   "there is none; add it first, or while no host is connected",
                                   wanted.bdev_name));
    const uuid& id = device->target().props().uuid;
    if (wanted.id.is_nil()) wanted.id = id;
    if (wanted.nguid == decltype(wanted.nguid){}) wanted.nguid = id.bytes;
    ns->options = std::move(wanted);
    ns->device = std::move(*device);
    if (namespaces.size() < nsid) namespaces.resize(nsid);
    namespaces[nsid - 1] = std::move(ns);
    co_await publish(nsid);
    namespaces_changed(*find_namespace(nsid));
    co_return nsid;
}

// Every poll group that serves this subsystem takes the present facts of the namespace.
task<> subsystem::publish(uint32_t nsid) {
    exported_namespace* ns = find_namespace(nsid);
    const bdev::device& device = ns->device.target();
    view_facts facts{.num_blocks = device.num_blocks(),
                     .block_shift = static_cast<uint8_t>(std::countr_zero(device.block_size())),
                     .restricted = ns->options.no_auto_visible,
                     .ana_group = ns->options.anagrpid};
    if (device.props().leaves_memory) {
        transport* carrier = _target.find_transport("TCP");
        facts.blank_size = carrier != nullptr ? carrier->options().max_io_size : transport_options().max_io_size;
    }
    for (auto& group : _target.groups()) {
        co_await call_on(group->thread(), [&]() -> task<> { return group->take_view(*this, nsid, ns->device, facts); });
    }
}

task<> subsystem::remove_namespace(uint32_t nsid) {
    auto changing = co_await _changing.lock();
    if (find_namespace(nsid) == nullptr)
        co_await fail(errc::rpc_invalid_params, fmt::format("nsid: {} has no namespace {}", _options.nqn, nsid));
    co_await remove_locked(nsid);
}

task<> subsystem::remove_locked(uint32_t nsid) {
    for (auto& group : _target.groups())
        co_await call_on(group->thread(), [&] { return group->close_view(*this, nsid); });
    auto gone = std::move(namespaces[nsid - 1]);
    while (!namespaces.empty() && !namespaces.back()) namespaces.pop_back();
    // Who saw it does not by that see another with its number.
    for (auto& c : controllers) c->take_visible(visible_to(c->hostnqn));
    namespaces_changed(*gone);
}

// From the bdev layer, on the app thread: the work is done in a task of the target's.
void subsystem::device_changed(uint32_t nsid, uint64_t serial, bdev::device_event e) {
    _target.tasks.spawn(follow_device(nsid, serial, e), [&log = _target.log(), nqn = _options.nqn, nsid](error why) {
        log.error(fmt::format("namespace {} of {}: {}", nsid, nqn, why.message()));
    });
}

task<> subsystem::follow_device(uint32_t nsid, uint64_t serial, bdev::device_event e) {
    auto inside = users.enter();
    if (!inside) co_return;  // stopping: every namespace goes
    auto changing = co_await _changing.lock();
    exported_namespace* ns = find_namespace(nsid);
    if (ns == nullptr || ns->serial != serial) co_return;  // removed meanwhile
    if (e == bdev::device_event::removed) co_return co_await remove_locked(nsid);
    co_await publish(nsid);
    namespaces_changed(*ns);
}

void subsystem::namespaces_changed(const exported_namespace& ns) {
    for (auto& c : controllers)
        if (!ns.options.no_auto_visible || ns.hosts.contains(c->hostnqn))
            c->home->post([c, nsid = ns.options.nsid] { notify_namespace_changed(*c, nsid); });
}

result<> subsystem::show(uint32_t nsid, const std::string& hostnqn, bool visible) {
    exported_namespace* ns = find_namespace(nsid);
    if (ns == nullptr)
        return fail(errc::rpc_invalid_params, fmt::format("nsid: {} has no namespace {}", _options.nqn, nsid));
    if (!ns->options.no_auto_visible)
        return fail(errc::rpc_invalid_params,
                    fmt::format("nsid: every host sees namespace {}, as it is not no_auto_visible", nsid));
    bool changed = visible ? ns->hosts.insert(hostnqn).second : ns->hosts.erase(hostnqn) != 0;
    if (!changed) return {};
    for (auto& c : controllers) {
        if (c->hostnqn != hostnqn) continue;
        c->take_visible(visible_to(hostnqn));
        c->home->post([c, nsid] { notify_namespace_changed(*c, nsid); });
    }
    return {};
}

// --- asymmetric namespace access (Base 8.1)

task<> subsystem::set_ana_group(uint32_t nsid, uint32_t group) {
    auto changing = co_await _changing.lock();
    exported_namespace* ns = find_namespace(nsid);
    if (ns == nullptr)
        co_await fail(errc::rpc_invalid_params, fmt::format("nsid: {} has no namespace {}", _options.nqn, nsid));
    co_await check_ana_group(group);
    if (ns->options.anagrpid == group) co_return;
    ns->options.anagrpid = group;
    co_await publish(nsid);
    ana_changed();
}

task<> subsystem::set_ana_state(env::address at, std::optional<uint32_t> group, ana_state state) {
    if (!_options.ana_reporting)
        co_await fail(errc::invalid, fmt::format("{} was made without ana_reporting", _options.nqn));
    listener_entry* entry = find_listener(at);
    if (entry == nullptr)
        co_await fail(errc::invalid, fmt::format("{} does not listen at {}", _options.nqn, at.to_string()));
    if (group) {
        co_await check_ana_group(*group);
        entry->ana[*group - 1] = state;
    } else {
        std::ranges::fill(entry->ana, state);
    }
    for (auto& c : controllers)
        if (c->listener == at) tell_path_states(*c);
    ana_changed();
    // Once each poll group has been here, no command is judged by the states of before.
    for (auto& each : _target.groups()) co_await call_on(each->thread(), []() -> task<> { co_return; });
}

void subsystem::tell_path_states(controller& c) noexcept {
    listener_entry* entry = find_listener(c.listener);
    if (!c.path_states || entry == nullptr) return;
    for (std::size_t i = 0; i < entry->ana.size(); ++i)
        c.path_states[i].store(static_cast<uint8_t>(entry->ana[i]), std::memory_order_relaxed);
}

void subsystem::ana_changed() {
    ++ana_changes;
    if (!_options.ana_reporting) return;
    for (auto& c : controllers) c->home->post([c] { notify_ana_changed(*c); });
}

// --- hosts and listeners

bool subsystem::host_allowed(const std::string& nqn) const noexcept {
    return _options.discovery || _options.allow_any_host || hosts.contains(nqn);
}

void subsystem::allow_any_host(bool allowed) {
    _options.allow_any_host = allowed;
    _target.discovery_changed();
}

result<> subsystem::add_host(std::string nqn) {
    if (!hosts.insert(std::move(nqn)).second) return fail(errc::exists, "the host is allowed already");
    _target.discovery_changed();
    return {};
}

task<> subsystem::remove_host(std::string nqn) {
    if (hosts.erase(nqn) == 0)
        co_await fail(errc::not_found, fmt::format("{} is not an allowed host of {}", nqn, _options.nqn));
    _target.discovery_changed();
    if (_options.allow_any_host) co_return;
    co_await disconnect_if([&](const controller& c) { return c.hostnqn == nqn; });
}

listener_entry* subsystem::find_listener(const env::address& at) noexcept {
    for (auto& entry : listeners)
        if (entry.at == at) return &entry;
    return nullptr;
}

listener_entry* subsystem::listener_reached_at(const env::address& local) noexcept {
    if (listener_entry* exact = find_listener(local)) return exact;
    for (auto& entry : listeners) {
        bool every_address = entry.at.host == "0.0.0.0" || entry.at.host == "::";
        if (every_address && entry.at.port == local.port) return &entry;
    }
    return nullptr;
}

task<> subsystem::add_listener(listener_entry entry) {
    if (find_listener(entry.at) != nullptr)
        co_await fail(errc::exists, fmt::format("{} listens at {} already", _options.nqn, entry.at.to_string()));
    transport* carrier = _target.find_transport("TCP");
    if (carrier == nullptr)
        co_await fail(errc::rpc_invalid_params, "there is no TCP transport: nvmf_create_transport makes one");
    co_await carrier->listen(entry.at);
    entry.id = _target.next_port_id();
    entry.ana.resize(_options.max_namespaces, ana_state::optimized);
    listeners.push_back(std::move(entry));
    _target.discovery_changed();
}

task<> subsystem::remove_listener(const env::address& at) {
    env::address gone = at;
    if (find_listener(gone) == nullptr)
        co_await fail(errc::not_found, fmt::format("{} does not listen at {}", _options.nqn, gone.to_string()));
    std::erase_if(listeners, [&](auto& entry) { return entry.at == gone; });
    if (transport* carrier = _target.find_transport("TCP")) carrier->stop_listening(gone);
    _target.discovery_changed();
    co_await disconnect_if([&](const controller& c) { return c.listener == gone; });
}

// Asks the connections of the controllers chosen to end, and waits until those controllers are gone.
task<> subsystem::disconnect_if(std::move_only_function<bool(const controller&)> chosen) {
    std::vector<std::weak_ptr<controller>> going;
    for (auto& c : controllers) {
        if (!chosen(*c)) continue;
        going.push_back(c);
        for (auto& entry : c->queues) disconnect_later(c, entry);
    }
    auto gone = [&] {
        return std::ranges::all_of(going, [&](auto& weak) {
            auto c = weak.lock();
            return !c || std::ranges::find(controllers, c) == controllers.end();
        });
    };
    while (!gone()) co_await sleep(1 * milliseconds);
}

// The queue pair lives until it has deregistered here, on the app thread, and then returned to its own thread, where
// this arrives before it does.
void subsystem::disconnect_later(std::shared_ptr<controller> keep, const controller::queue_entry& entry) {
    entry.on->post([keep = std::move(keep), queue = entry.queue] { queue->disconnect(); });
}

std::set<uint32_t> subsystem::visible_to(const std::string& hostnqn) const {
    std::set<uint32_t> visible;
    for (auto& ns : namespaces)
        if (ns && ns->hosts.contains(hostnqn)) visible.insert(ns->options.nsid);
    return visible;
}

task<> subsystem::stop() {
    stopping = true;
    co_await users.close();
    while (!listeners.empty()) co_await remove_listener(listeners.front().at);
    co_await disconnect_if([](const controller&) { return true; });
    for (uint32_t nsid = static_cast<uint32_t>(namespaces.size()); nsid > 0; --nsid)
        if (find_namespace(nsid) != nullptr) co_await remove_namespace(nsid);
    for (auto& group : _target.groups())
        co_await call_on(group->thread(), [&]() -> task<> { return group->drop_table(*this); });
}

}  // namespace varve::targets::nvmf
