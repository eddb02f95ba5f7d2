// Fabrics commands (Base 6): Connect, properties, Disconnect; and how controllers begin and end.
#include <fmt/core.h>

#include <algorithm>
#include <cstring>

#include "nvme/fabrics.h"
#include "targets/nvmf/admin.h"
#include "targets/nvmf/admin_commands.h"
#include "targets/nvmf/controller.h"
#include "targets/nvmf/poll_group.h"
#include "targets/nvmf/subsystem.h"
#include "targets/nvmf/target.h"
#include "thread/awaits.h"

namespace varve::targets::nvmf {

namespace {

// --- Connect (Base 6.3)

struct connect_outcome {
    nvme::status code = nvme::status::success;
    uint32_t result = 0;  // CNTLID, or which parameter was wrong
    std::shared_ptr<controller> ctrl;
    enum class place : uint8_t { free, taken, left } queue_id = place::free;  // left: by a queue that is still ending
};

connect_outcome wrong_in_command(std::size_t offset) {
    return {nvme::status::connect_invalid_parameters, nvme::invalid_connect_parameter(offset, false), nullptr};
}
connect_outcome wrong_in_data(std::size_t offset) {
    return {nvme::status::connect_invalid_parameters, nvme::invalid_connect_parameter(offset, true), nullptr};
}

bool terminated(const char (&field)[nvme::nqn_field_size]) {
    return std::memchr(field, 0, nvme::nqn_length_max + 1) != nullptr;
}

uint16_t free_controller_id(const subsystem& s) {
    // Rising, so that an identifier is not soon used again for another host.
    auto used = [&](uint16_t id) { return std::ranges::any_of(s.controllers, [id](auto& c) { return c->id == id; }); };
    uint32_t span = static_cast<uint32_t>(s.options().max_cntlid) - s.options().min_cntlid + 1;
    for (uint32_t i = 0; i < span; ++i) {
        auto id =
            static_cast<uint16_t>(s.options().min_cntlid + (s.next_controller_id + i - s.options().min_cntlid) % span);
        if (used(id)) continue;
        s.next_controller_id = static_cast<uint16_t>(id + 1);
        return id;
    }
    return 0xffff;
}

// App thread.
connect_outcome make_controller(subsystem& s, const connect_request& c, const transport_options& limits) {
    if (c.controller_id != 0xffff) return wrong_in_data(offsetof(nvme::connect_data, controller_id));
    auto same_way = [&](auto& k) { return k->hostid == c.hostid && k->listener == c.listener; };
    if (s.owner().settings.one_controller_per_listener && !s.options().discovery &&
        std::ranges::any_of(s.controllers, same_way)) {
        s.owner().log().info(fmt::format("{} has a controller of {} already, by way of {}", c.hostnqn, s.options().nqn,
                                         c.listener.to_string()));
        return {nvme::status::connect_controller_busy, 0, nullptr};
    }
    uint16_t id = free_controller_id(s);
    if (id == 0xffff) return {nvme::status::connect_controller_busy, 0, nullptr};
    auto made = std::make_shared<controller>();
    made->id = id;
    made->hostnqn = c.hostnqn;
    made->hostid = c.hostid;
    made->of = &s;
    made->home = c.on;
    made->discovery = s.options().discovery;
    made->max_io_queues = limits.max_io_qpairs_per_ctrlr;
    made->max_io_size = limits.max_io_size;
    made->max_queue_entries = limits.max_queue_depth;
    made->abort_patience = limits.abort_timeout_sec * seconds;
    made->keep_alive_ms_step = limits.kas * keep_alive_step_unit_ms;
    made->keep_alive_ms_min = limits.min_kato;
    made->in_capsule_data_size = limits.in_capsule_data_size;
    listener_entry* entry = s.listener_reached_at(c.listener);
    made->listener = entry != nullptr ? entry->at : c.listener;
    made->admin = c.queue;
    made->take_visible(s.visible_to(c.hostnqn));
    if (s.options().ana_reporting) {
        made->path_states = std::make_unique<std::atomic<uint8_t>[]>(s.options().max_namespaces);
        s.tell_path_states(*made);
    }
    made->queues.push_back({c.queue, 0, c.on, c.peer});
    s.controllers.push_back(made);
    return {nvme::status::success, id, std::move(made)};
}

// App thread.
connect_outcome join_controller(subsystem& s, const connect_request& c) {
    auto found = std::ranges::find_if(s.controllers, [&](auto& k) { return k->id == c.controller_id; });
    if (found == s.controllers.end()) return wrong_in_data(offsetof(nvme::connect_data, controller_id));
    controller& k = **found;
    if (k.hostnqn != c.hostnqn) return wrong_in_data(offsetof(nvme::connect_data, hostnqn));
    if (k.hostid != c.hostid) return wrong_in_data(offsetof(nvme::connect_data, host_id));
    if (k.discovery || c.qid > k.max_io_queues) return wrong_in_command(offsetof(nvme::connect_command, qid));
    if (!k.ready) return {nvme::status::command_sequence_error, 0, nullptr};
    if (auto had = std::ranges::find(k.queues, c.qid, &controller::queue_entry::qid); had != k.queues.end()) {
        using enum connect_outcome::place;
        return {nvme::status::invalid_queue_id, 0, nullptr, had->ending ? left : taken};
    }
    k.queues.push_back({c.queue, c.qid, c.on, c.peer});
    return {nvme::status::success, k.id, *found};
}

// App thread: may this queue pair join?
connect_outcome check_connect(target& t, const connect_request& c) {
    subsystem* s = t.find_subsystem(c.subnqn);
    if (s == nullptr || s->stopping) return wrong_in_data(offsetof(nvme::connect_data, subnqn));
    // Some initiators have no name. They may come in where names do not matter.
    bool any_host = s->options().discovery || s->options().allow_any_host;
    if (c.hostnqn.empty() && !any_host) return wrong_in_data(offsetof(nvme::connect_data, hostnqn));
    if (!s->host_allowed(c.hostnqn)) {
        t.log().info(fmt::format("{} may not connect to {}", c.hostnqn, c.subnqn));
        return {nvme::status::connect_invalid_host, 0, nullptr};
    }
    // Discovery is answered wherever anything listens; other subsystems where they do.
    if (!s->options().discovery && s->listener_reached_at(c.listener) == nullptr) {
        t.log().info(fmt::format("{} does not listen at {}", c.subnqn, c.listener.to_string()));
        return {nvme::status::connect_invalid_host, 0, nullptr};
    }
    transport* carrier = t.find_transport(c.transport);
    const transport_options& limits = carrier->options();
    uint32_t most = c.qid == 0 ? limits.max_aq_depth : limits.max_queue_depth;
    if (c.entries < 2 || c.entries > most) return wrong_in_command(offsetof(nvme::connect_command, sqsize));
    return c.qid == 0 ? make_controller(*s, c, limits) : join_controller(*s, c);
}

// App thread. A host that has lost a queue, or closed it, connects the same again: what is left of the old one may
// still wait for its device, or its end may not have come to our ears.
task<connect_outcome> admit(target& t, const connect_request& c) {
    constexpr time_ns patience_with_ending = 10 * seconds, patience = 100 * milliseconds;
    const time_ns since = thread::thread::current()->now();
    while (true) {
        connect_outcome outcome = check_connect(t, c);
        if (outcome.queue_id == connect_outcome::place::free) co_return outcome;
        bool ending = outcome.queue_id == connect_outcome::place::left;
        if (thread::thread::current()->now() - since >= (ending ? patience_with_ending : patience)) co_return outcome;
        co_await sleep(1 * milliseconds);
    }
}

// The controller hears that the queue is on its way out.
void tell_ending(qpair& q) {
    q.group.owner().system().app_thread().post([c = q.kept, queue = &q] {
        for (auto& entry : c->queues)
            if (entry.queue == queue) entry.ending = true;
    });
}

void begin_admin(qpair& q, uint32_t keep_alive_ms) {
    controller& c = *q.ctrl;
    c.state = std::make_unique<controller::admin_state>(c);
    // A discovery controller without a keep-alive of its own gets one, so that forgotten ones go.
    constexpr uint32_t discovery_keep_alive_ms = 120'000;
    controller::admin_state& s = *c.state;
    s.asked_to_stay = keep_alive_ms != 0;
    if (s.asked_to_stay) s.keep_alive_ms_connected = granted_keep_alive(c, keep_alive_ms);
    if (c.discovery && !s.asked_to_stay) s.keep_alive_ms_connected = discovery_keep_alive_ms;
    s.keep_alive_ms = s.keep_alive_ms_connected;
    s.features = default_features(c);
    start_keep_alive(c);
}

task<> connect(request& r) {
    qpair& q = *r.queue;
    auto command = nvme::view_as<nvme::connect_command>(r.command);
    auto* data = static_cast<const nvme::connect_data*>(r.data.iov_base);
    if (q.ctrl != nullptr) co_return answer(r, nvme::status::command_sequence_error);
    if (r.data_length < sizeof *data) co_return answer(r, nvme::status::data_sgl_length_invalid);
    if (command.record_format != 0) co_return answer(r, nvme::status::connect_incompatible_format);
    std::size_t wrong = !terminated(data->subnqn)    ? offsetof(nvme::connect_data, subnqn)
                        : !terminated(data->hostnqn) ? offsetof(nvme::connect_data, hostnqn)
                                                     : 0;
    if (wrong != 0)
        co_return answer(r, nvme::status::connect_invalid_parameters, nvme::invalid_connect_parameter(wrong, true));
    connect_request asked{.queue = &q,
                          .on = thread::thread::current(),
                          .qid = command.qid,
                          .entries = command.sqsize + 1u,
                          .controller_id = data->controller_id,
                          .keep_alive_ms = command.keep_alive_ms,
                          .subnqn = data->subnqn,
                          .hostnqn = data->hostnqn,
                          .hostid = {},
                          .listener = q.local(),
                          .peer = q.peer(),
                          .transport = q.transport_name()};
    std::memcpy(asked.hostid.data(), data->host_id, asked.hostid.size());
    target& t = q.group.owner();
    connect_outcome outcome = co_await call_on(t.system().app_thread(), [&] { return admit(t, asked); });
    if (outcome.code != nvme::status::success) {
        // The host may try again: what it asks for may be configured a moment later, after a restart for one.
        r.status = outcome.code;
        r.result = outcome.result;
        co_return q.complete(r);
    }
    q.ctrl = outcome.ctrl.get();
    q.kept = std::move(outcome.ctrl);
    q.id = asked.qid;
    q.sq_flow_control = (command.attributes & nvme::connect_attribute::disable_sq_flow_control) == 0;
    if (!q.sq_flow_control) q.head = 0xffff;  // in the answer: agreed (Base 6.3)
    q.namespaces = &q.group.table(*q.ctrl->of);
    q.path_states = q.ctrl->path_states.get();
    q.resize(static_cast<uint16_t>(asked.entries));
    auto& stats = q.group.stats;
    if (q.id == 0) {
        ++stats.admin_qpairs;
        ++stats.current_admin_qpairs;
        begin_admin(q, asked.keep_alive_ms);
    } else {
        ++stats.io_qpairs;
        ++stats.current_io_qpairs;
    }
    q.enabled = true;
    answer(r, nvme::status::success, outcome.result);
}

// --- properties (Base 6.5, 6.6, 3.1.3)

uint64_t capabilities(const controller& c) noexcept {
    return nvme::controller_capabilities{.queue_entries_max = static_cast<uint16_t>(c.max_queue_entries - 1),
                                         .contiguous_queues = true,
                                         .ready_timeout_500ms = 30,
                                         .doorbell_stride = 0,
                                         .command_sets = nvme::css_nvm,
                                         .page_size_min = 0,
                                         .page_size_max = 0}
        .encode();
}

void property_get(request& r) noexcept {
    controller& c = *r.queue->ctrl;
    auto command = nvme::view_as<nvme::property_get_command>(r.command);
    bool wide = (command.attributes & 7) == 1;
    uint64_t value = 0;
    switch (static_cast<nvme::property>(command.offset.get())) {
        case nvme::property::cap:
            if (!wide) return answer(r, nvme::status::invalid_field);
            return answer(r, nvme::status::success, capabilities(c));
        case nvme::property::vs:
            value = controller_version;
            break;
        case nvme::property::cc:
            value = c.cc.encode();
            break;
        case nvme::property::csts:
            value = c.csts;
            break;
        case nvme::property::crto:
        case nvme::property::nssr:
            break;
        default:
            return answer(r, nvme::status::invalid_field);
    }
    if (wide) return answer(r, nvme::status::invalid_field);
    answer(r, nvme::status::success, value);
}

// The host has reset or shut down the controller: its I/O queues end, and are gone when this returns.
task<> end_io_queues(controller& c) {
    target& t = c.of->owner();
    co_await call_on(t.system().app_thread(), [&]() -> task<> {
        c.ready = false;
        for (auto& entry : c.queues)
            if (entry.qid != 0) entry.on->post([queue = entry.queue] { queue->disconnect(); });
        while (c.queues.size() > 1) co_await sleep(1 * milliseconds);
    });
}

task<> set_configuration(request& r, uint32_t value) {
    controller& c = *r.queue->ctrl;
    auto wanted = nvme::controller_configuration::decode(value);
    auto alone = co_await c.configuring.lock();
    auto had = c.cc;
    if (wanted.enable && !had.enable) {
        bool sizes_ok = c.discovery || (wanted.sqe_size_log2 == 6 && wanted.cqe_size_log2 == 4);
        if (!sizes_ok || wanted.command_set != 0 || wanted.page_size != 0 || wanted.arbitration != 0) {
            c.csts |= nvme::csts::fatal;
            co_return answer(r, nvme::status::invalid_field);
        }
    }
    c.cc = wanted;
    if (wanted.shutdown != 0 && had.shutdown == 0) {
        c.csts = (c.csts & ~nvme::csts::shutdown_mask) | nvme::csts::shutdown_occurring;
        co_await end_io_queues(c);
        c.csts = (c.csts & ~nvme::csts::shutdown_mask) | nvme::csts::shutdown_complete;
        start_keep_alive(c);
        // Event requests stay as they are: a host that shuts down has forgotten its own.
    }
    if (had.enable && !wanted.enable) {  // controller reset (Base 3.7.2)
        co_await end_io_queues(c);
        reset_state(c);
        c.csts = 0;
        start_keep_alive(c);
    }
    if (wanted.enable && !had.enable) {
        co_await call_on(c.of->owner().system().app_thread(), [&]() -> task<> {
            c.ready = true;
            co_return;
        });
        c.csts = nvme::csts::ready;
        start_keep_alive(c);
    }
    answer(r, nvme::status::success);
}

task<> property_set(request& r) {
    auto command = nvme::view_as<nvme::property_set_command>(r.command);
    bool cc = static_cast<nvme::property>(command.offset.get()) == nvme::property::cc;
    if (!cc || (command.attributes & 7) != 0) co_return answer(r, nvme::status::invalid_field);
    co_await set_configuration(r, static_cast<uint32_t>(command.value));
}

task<> fabrics(request& r) {
    qpair& q = *r.queue;
    // Byte 4 is the low byte of what other commands call NSID.
    switch (static_cast<nvme::fabrics_type>(nvme::view_as<nvme::fabrics_command>(r.command).type)) {
        case nvme::fabrics_type::connect:
            if (q.connecting) co_return answer(r, nvme::status::command_sequence_error);
            q.connecting = true;
            co_await connect(r);
            q.connecting = false;
            co_return;
        case nvme::fabrics_type::property_get:
            if (q.ctrl == nullptr || q.id != 0) co_return answer(r, nvme::status::command_sequence_error);
            co_return property_get(r);
        case nvme::fabrics_type::property_set:
            if (q.ctrl == nullptr || q.id != 0) co_return answer(r, nvme::status::command_sequence_error);
            co_return co_await property_set(r);
        case nvme::fabrics_type::disconnect:  // Base 6.4: I/O queues only; the answer goes out before the end
            if (q.ctrl == nullptr) co_return answer(r, nvme::status::command_sequence_error);
            if (q.id == 0) co_return answer(r, nvme::status::invalid_queue_id);
            q.enabled = false;
            tell_ending(q);
            co_return answer(r, nvme::status::success);
        case nvme::fabrics_type::authentication_send:
        case nvme::fabrics_type::authentication_receive:
            co_return answer(r, nvme::status::command_sequence_error);  // no authentication is asked for
    }
    answer(r, nvme::status::invalid_opcode);
}

}  // namespace

void execute_fabrics(request& r) noexcept { r.queue->group.spawn("fabrics command", fabrics(r)); }

controller::~controller() = default;

void quit(qpair& q) noexcept {
    if (q.ctrl == nullptr) return;
    q.enabled = false;
    if (q.id != 0) return tell_ending(q);
    q.ctrl->state->keep_alive.cancel();
    abort_events(*q.ctrl, nvme::status::aborted_sq_deletion);
}

task<> leave(qpair& q) {
    if (q.ctrl == nullptr) co_return;
    quit(q);  // it may have connected while it was ending
    controller& c = *q.ctrl;
    --(q.id == 0 ? q.group.stats.current_admin_qpairs : q.group.stats.current_io_qpairs);
    co_await call_on(c.of->owner().system().app_thread(), [&]() -> task<> {
        if (q.id == 0) {  // the controller goes with its admin queue
            c.ready = false;
            for (auto& entry : c.queues)
                if (entry.qid != 0) entry.on->post([queue = entry.queue] { queue->disconnect(); });
            while (c.queues.size() > 1) co_await sleep(1 * milliseconds);
            std::erase_if(c.of->controllers, [&](auto& k) { return k.get() == &c; });
        }
        std::erase_if(c.queues, [&](auto& entry) { return entry.queue == &q; });
    });
    if (q.id == 0) c.state.reset();
    q.ctrl = nullptr;
    q.kept.reset();
}

}  // namespace varve::targets::nvmf
