// An NVM subsystem: namespaces, the hosts that may connect, where it listens, and its controllers. App thread only.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "bdev/descriptor.h"
#include "env/socket.h"
#include "targets/nvmf/controller.h"
#include "thread/gate.h"
#include "thread/sync.h"
#include "thread/task.h"
#include "util/result.h"
#include "util/uuid.h"

namespace varve::targets::nvmf {

class target;

enum class ana_state : uint8_t { optimized = 1, non_optimized = 2, inaccessible = 3, persistent_loss = 4, change = 15 };

struct subsystem_options {
    std::string nqn;
    std::string serial_number = "00000000000000000000";  // up to 20 printable characters
    std::string model_number = "SPDK bdev Controller";   // up to 40
    bool discovery = false;
    bool allow_any_host = false;
    bool ana_reporting = false;
    uint32_t max_namespaces = 32;
    uint16_t min_cntlid = 1, max_cntlid = 0xffef;
    uint32_t dmrsl = 2097152;  // blocks of one range of Dataset Management that are told to be within reason
    uint8_t wzsl = 12;         // of Write Zeroes, likewise: 4 KiB << wzsl
    std::string admin_label;   // kept for saved configuration
};

// The ANA log page counts groups, of which there are as many, in 16 bits.
constexpr uint32_t max_namespaces_limit = 65535;

struct namespace_options {
    uint32_t nsid = 0;  // 0: the lowest free one
    std::string bdev_name;
    std::array<uint8_t, 16> nguid{};
    std::array<uint8_t, 8> eui64{};
    uuid id{};              // nil: the bdev's
    uint32_t anagrpid = 0;  // 0: the nsid
    bool no_auto_visible = false;
    std::string ptpl_file;  // kept for saved configuration: there are no reservations yet
};

// One exported namespace.
struct exported_namespace {
    namespace_options options;
    uint64_t serial = 0;  // tells it from others that had its nsid
    bdev::descriptor device;
    std::set<std::string> hosts;  // with no_auto_visible: the hosts that see it
};

struct listener_entry {
    env::address at;
    uint16_t id = 0;  // port id in the discovery log
    bool secure_channel = false;
    std::vector<ana_state> ana;  // by group, from 1
};

class subsystem {
  public:
    subsystem(target& of, subsystem_options options);
    ~subsystem();

    const subsystem_options& options() const noexcept { return _options; }
    target& owner() const noexcept { return _target; }

    // Each returns once every poll group acts on it. Errors say what was wrong with what.
    task<uint32_t> add_namespace(namespace_options wanted);
    task<> remove_namespace(uint32_t nsid);
    exported_namespace* find_namespace(uint32_t nsid) noexcept;

    // The group must be one of max_namespaces.
    task<> set_ana_group(uint32_t nsid, uint32_t group);
    // Of one group, or of all, on the paths through a listener. errc::invalid without ANA reporting, listener or group.
    task<> set_ana_state(env::address at, std::optional<uint32_t> group, ana_state state);
    void tell_path_states(controller& c) noexcept;  // those of its listener, as they are now

    // Who sees a namespace that is not visible to all.
    result<> show(uint32_t nsid, const std::string& hostnqn, bool visible);

    void allow_any_host(bool allowed);
    result<> add_host(std::string nqn);
    task<> remove_host(std::string nqn);  // its controllers are disconnected
    // The restricted namespaces that this host sees.
    std::set<uint32_t> visible_to(const std::string& hostnqn) const;
    bool host_allowed(const std::string& nqn) const noexcept;

    task<> add_listener(listener_entry entry);
    task<> remove_listener(const env::address& at);  // controllers connected through it are disconnected
    listener_entry* find_listener(const env::address& at) noexcept;
    // The one a connection to this local address came by: it, or one for every address.
    listener_entry* listener_reached_at(const env::address& local) noexcept;

    // Everything inside ends, once those who entered `users` have left: controllers disconnected, namespaces closed.
    // Once.
    task<> stop();

    std::vector<std::unique_ptr<exported_namespace>> namespaces;  // by nsid - 1, null where there is none
    std::set<std::string> hosts;
    std::vector<listener_entry> listeners;
    std::vector<std::shared_ptr<controller>> controllers;
    mutable uint16_t next_controller_id = 1;
    uint64_t ana_changes = 0;
    bool stopping = false;  // no further controllers
    gate users;             // calls that work on this subsystem, which must not go meanwhile

    ana_state ana_state_of(const exported_namespace& ns, const env::address& at) noexcept;

  private:
    result<uint32_t> choose_nsid(uint32_t wanted) const;
    result<> check_ana_group(uint32_t group) const;
    task<> publish(uint32_t nsid);
    task<> remove_locked(uint32_t nsid);
    void device_changed(uint32_t nsid, uint64_t serial, bdev::device_event e);
    task<> follow_device(uint32_t nsid, uint64_t serial, bdev::device_event e);
    void namespaces_changed(const exported_namespace& ns);  // to those who see it
    void ana_changed();
    task<> disconnect_if(std::move_only_function<bool(const controller&)> chosen);
    static void disconnect_later(std::shared_ptr<controller> keep, const controller::queue_entry& entry);

    target& _target;
    subsystem_options _options;
    uint64_t _next_serial = 1;
    mutex _changing;  // one change of namespaces at a time
};

}  // namespace varve::targets::nvmf
