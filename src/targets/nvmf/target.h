// One NVMe-oF target: its subsystems, transports and poll groups. App thread only, but for what is marked.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "bdev/registry.h"
#include "targets/nvmf/subsystem.h"
#include "targets/nvmf/transport.h"
#include "thread/gate.h"
#include "thread/runtime.h"
#include "thread/task.h"
#include "util/log.h"

namespace varve::targets::nvmf {

class poll_group;

// Show only listeners of the transport, at the address, the port, by which the host came.
constexpr uint32_t filter_transport = 1, filter_address = 2, filter_service = 4;

// What may be set before the start only.
struct target_settings {
    uint32_t max_subsystems = 1024;
    uint32_t discovery_filter = 0;                        // bits above: which listeners a discovery log shows; 0: all
    std::array<uint16_t, 3> command_retry_delays{};       // CRDT of Identify, in 100 ms
    bool one_controller_per_listener = false;             // for each host identifier
    thread::cpu_set poll_group_cpus;                      // empty: those of all reactors
    uint32_t dhchap_digests = 0x7, dhchap_groups = 0x3f;  // bits of names; kept for saved configuration
};

struct referral {
    std::string subnqn;
    listener_entry at;
};

class target {
  public:
    target(thread::runtime& system, bdev::registry& devices, const logger& log, std::string name = "nvmf_tgt");
    ~target();

    // Makes a poll group for every reactor, and the discovery subsystem.
    task<> start();
    // Ends everything: listeners, controllers, subsystems, poll groups.
    task<> stop();

    thread::runtime& system() const noexcept { return _system; }
    const logger& log() const noexcept { return _log; }  // any thread
    bdev::registry& devices() const noexcept { return _devices; }
    const std::string& name() const noexcept { return _name; }

    transport* find_transport(std::string_view trtype) noexcept;
    task<> create_transport(transport_options options);

    subsystem* find_subsystem(std::string_view nqn) noexcept;
    task<subsystem*> create_subsystem(subsystem_options options);
    task<> delete_subsystem(std::string nqn);
    const std::vector<std::unique_ptr<subsystem>>& subsystems() const noexcept { return _subsystems; }

    // Where the next connection goes: round robin. App thread.
    poll_group& next_group() noexcept;
    const std::vector<std::unique_ptr<poll_group>>& groups() const noexcept { return _groups; }

    void discovery_changed();
    uint16_t next_port_id() noexcept { return _next_port_id++; }

    gate calls;                         // deletions under way, which stop() waits for
    gate tasks;                         // what devices cause: namespaces removed and resized
    uint64_t discovery_generation = 0;  // GENCTR of the discovery log page
    target_settings settings;
    std::vector<referral> referrals;  // other discovery services
    std::vector<std::unique_ptr<transport>> transports;

  private:
    thread::runtime& _system;
    bdev::registry& _devices;
    const logger& _log;
    std::string _name;
    std::vector<std::unique_ptr<subsystem>> _subsystems;  // the discovery subsystem first
    std::vector<std::unique_ptr<poll_group>> _groups;
    std::size_t _next = 0;
    uint16_t _next_port_id = 0;
};

}  // namespace varve::targets::nvmf
