// What one host sees of a subsystem: a dynamic controller made by its Connect of an admin queue.
// State belongs to the admin queue's thread, but for what is marked (app).
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "env/socket.h"
#include "nvme/fabrics.h"
#include "nvme/log_page.h"
#include "targets/nvmf/qpair.h"
#include "thread/sync.h"
#include "thread/thread.h"
#include "util/uuid.h"

namespace varve::targets::nvmf {

class subsystem;

class controller {
  public:
    // --- fixed from the beginning, any thread
    uint16_t id = 0;  // CNTLID
    std::string hostnqn;
    std::array<uint8_t, 16> hostid{};
    nvmf::subsystem* of = nullptr;
    thread::thread* home = nullptr;  // the admin queue's thread
    bool discovery = false;
    uint16_t max_io_queues = 127;  // of the transport
    uint32_t max_io_size = 131072;
    uint32_t in_capsule_data_size = 4096;
    uint16_t max_queue_entries = 128;
    uint32_t keep_alive_ms_step = 10000;   // KAS of Identify; keep-alive intervals are multiples of it ...
    uint32_t keep_alive_ms_min = 10000;    // ... and not below this
    time_ns abort_patience = 1 * seconds;  // with commands whose data the host has still to send
    env::address listener;                 // where it came in
    // The ANA state of each group on that path, by group - 1; null without ANA reporting. The app thread changes them.
    std::unique_ptr<std::atomic<uint8_t>[]> path_states;

    // --- (app): its queue pairs, the admin queue first
    struct queue_entry {
        qpair* queue;
        uint16_t qid;
        thread::thread* on;
        env::address peer;
        bool ending = false;  // its connection has ended, or its host has said so; it goes when its commands have ended
    };
    std::vector<queue_entry> queues;
    bool ready = false;                // enabled by the host: I/O queues may connect
    bool told_no_write_cache = false;  // in an answer to Identify

    // --- the admin queue's thread
    qpair* admin = nullptr;
    nvme::controller_configuration cc{};
    uint32_t csts = 0;
    mutex configuring;  // one change of CC is carried out after the other
    // Features, pending events, changed namespaces, keep-alive, error log: see admin_*.cc
    struct admin_state;
    std::unique_ptr<admin_state> state;

    // Enabled and not shut down: its keep-alive timer counts (Base 3.9).
    bool running() const noexcept {
        return (csts & (nvme::csts::ready | nvme::csts::shutdown_mask)) == nvme::csts::ready;
    }

    // Whether this host sees a restricted namespace. Any thread: the set is replaced as a whole by the app thread.
    bool sees(uint32_t nsid) const noexcept {
        auto visible = _visible.load();
        return visible->contains(nsid);
    }
    void take_visible(std::set<uint32_t> nsids) {
        _visible = std::make_shared<const std::set<uint32_t>>(std::move(nsids));
    }

    ~controller();

  private:
    std::atomic<std::shared_ptr<const std::set<uint32_t>>> _visible{std::make_shared<const std::set<uint32_t>>()};
};

constexpr uint32_t controller_version = nvme::version_number(2, 0, 0);

// Events for the host, on the controller's thread; kept until it asks for one (Base 5.2).
void notify_namespace_changed(controller& c, uint32_t nsid);
void notify_ana_changed(controller& c);
void notify_discovery_changed(controller& c);

// What the fabrics Connect of a queue pair asks for, taken out of the command and its data; checked on the app thread.
struct connect_request {
    qpair* queue;
    thread::thread* on;
    uint16_t qid;
    uint32_t entries;
    uint16_t controller_id;
    uint32_t keep_alive_ms;
    std::string subnqn, hostnqn;
    std::array<uint8_t, 16> hostid;
    env::address listener, peer;
    const char* transport;
};

}  // namespace varve::targets::nvmf
