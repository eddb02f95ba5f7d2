// One connection to a controller: its admin queue with keep-alive and asynchronous events, the namespaces it shows, and
// I/O queues, one for each thread that wants one. Belongs to the thread that connected it; open_queue() and
// close_queue() may be called on any thread of the same runtime and give a queue of that thread.
//
// There is no recovery: when the connection is lost every request completes with an error, I/O queues too, on_lost() is
// told why, and what remains is disconnect(), which must be awaited before the controller is destroyed.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "nvme/host/fabrics_connect.h"
#include "nvme/host/ns.h"
#include "nvme/host/transport.h"
#include "thread/gate.h"

namespace varve::nvme::host {

struct controller_options {
    env::address address;
    std::string subnqn;
    std::string hostnqn;  // default: made of host_id
    uuid host_id;         // default: random
    tcp_options tcp;
    uint16_t admin_queue_entries = 32;
    uint16_t io_queue_entries = 128;
    uint16_t io_queues_max = 128;
    uint32_t keep_alive_ms = 10'000;  // 0: none
    bool disable_sq_flow_control = true;
    time_ns admin_timeout = 30 * seconds;
};

class controller {
  public:
    // Connects, enables, identifies, and lists the namespaces. A controller of the discovery service is recognised by
    // its subsystem's name and has neither namespaces nor I/O queues.
    static task<std::unique_ptr<controller>> connect(controller_options options);
    // Shuts down in order if it can. I/O queues must have been closed. Once, always.
    task<> disconnect();
    ~controller();

    const identify_controller& data() const noexcept { return _data; }
    const controller_options& options() const noexcept { return _options; }
    uint16_t id() const noexcept { return _id; }
    uint32_t transfer_max() const noexcept { return _transfer_max; }  // bytes in one command
    uint16_t io_queues() const noexcept { return _io_queues; }        // that may be open at a time
    bool lost() const noexcept { return _lost; }

    std::span<const ns> namespaces() const noexcept { return _namespaces; }
    const ns* find(uint32_t nsid) const noexcept;
    // Asks for the namespaces again.
    task<> rescan();

    // ---- Called on the controller's thread ----
    // The list of namespaces, or something in it, is another than before.
    void on_namespaces_changed(std::move_only_function<void()> f) { _on_namespaces_changed = std::move(f); }
    // Every asynchronous event; those of namespaces are acted upon, too.
    void on_event(std::move_only_function<void(async_event)> f) { _on_event = std::move(f); }
    void on_lost(std::move_only_function<void(const error&)> f) { _on_lost = std::move(f); }

    // ---- I/O queues, on the calling thread ----
    task<std::unique_ptr<queue_pair>> open_queue();
    task<> close_queue(std::unique_ptr<queue_pair> queue);

    // ---- Admin commands ----
    // Any command as it is; its data goes the way its opcode says. Fails only when the connection does or the time is
    // over: the controller's own errors are in the answer.
    task<cqe> admin(sqe command, std::span<std::byte> data = {});
    // As admin(), but a status other than success is an error that starts with `what`.
    task<uint32_t> ask(sqe command, std::span<std::byte> data, std::string_view what);
    // `into.size()` bytes of a log page, a multiple of 4, in as many commands as needed.
    task<> get_log_page(log_page which, uint64_t offset, std::span<std::byte> into, uint32_t nsid = nsid_all);

  private:
    struct event_request : request {
        controller* owner = nullptr;
    };
    struct keep_alive_work : work {
        controller* owner = nullptr;
    };
    struct open_queue_entry {
        queue_pair* queue;
        thread::thread* home;
    };
    static constexpr unsigned events_max = 4;

    explicit controller(controller_options options);
    task<> start();
    task<> enable();
    task<> shut_down();
    task<> set_up_io();
    task<> ask_for_events();
    task<> scan();
    task<ns> identify_namespace_of(uint32_t nsid);
    task<uint16_t> take_qid();
    task<> attach_queue(queue_pair& queue, thread::thread& home);
    task<> detach_queue(queue_pair& queue);
    task<> release_qid(uint16_t qid);
    void start_keep_alive() noexcept;
    void on_keep_alive_due() noexcept;
    void on_event_done(event_request& r) noexcept;
    task<> handle(event_request& r);
    void lose(const error& why) noexcept;
    bool is_discovery() const noexcept { return _identity.subnqn == discovery_nqn; }

    const controller_options _options;
    thread::thread& _home;
    identity _identity;
    std::unique_ptr<transport> _transport;
    std::unique_ptr<queue_pair> _admin;
    uint16_t _id = 0;
    identify_controller _data{};
    controller_capabilities _capabilities;
    uint32_t _transfer_max = 0;
    uint16_t _io_queues = 0;
    bool _enabled = false;  // or asked to be
    bool _lost = false;
    bool _disconnecting = false;
    std::vector<ns> _namespaces;
    bool _scanning = false, _scan_again = false;
    std::vector<uint16_t> _free_qids;  // the first is the one unused for longest
    std::vector<open_queue_entry> _open_queues;

    keep_alive_work _keep_alive_work;
    thread::timer _keep_alive_timer;
    request _keep_alive;
    bool _keep_alive_out = false;
    std::vector<std::unique_ptr<event_request>> _events;
    gate _handlers;

    std::move_only_function<void()> _on_namespaces_changed;
    std::move_only_function<void(async_event)> _on_event;
    std::move_only_function<void(const error&)> _on_lost;
};

}  // namespace varve::nvme::host
