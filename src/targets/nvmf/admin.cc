// The admin command set: dispatch, asynchronous events, abort, keep-alive.
#include "targets/nvmf/admin.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>

#include "nvme/text.h"
#include "targets/nvmf/admin_commands.h"
#include "targets/nvmf/poll_group.h"
#include "targets/nvmf/subsystem.h"
#include "targets/nvmf/target.h"
#include "thread/awaits.h"

namespace varve::targets::nvmf {

using nvme::admin_opcode;

void answer(request& r, nvme::status code, uint64_t result) noexcept {
    r.status = code;
    r.result = result;
    r.dnr = code != nvme::status::success;
    r.queue->complete(r);
}

void answer_with(request& r, std::span<const std::byte> data, uint64_t offset) noexcept {
    if (offset > data.size()) return answer(r, nvme::status::invalid_field);
    std::size_t most = r.data_length;
    auto* to = static_cast<std::byte*>(r.data.iov_base);
    std::size_t n = std::min<std::size_t>(data.size() - offset, most);
    if (n != 0) std::memcpy(to, data.data() + offset, n);
    std::memset(to + n, 0, most - n);  // the buffer has been somebody else's
    r.transfer_length = r.data_length;
    answer(r, nvme::status::success);
}

// --- keep-alive (Base 3.9)

uint32_t granted_keep_alive(const controller& c, uint32_t asked) noexcept {
    uint64_t step = c.keep_alive_ms_step;
    uint64_t steps = (std::max(asked, c.keep_alive_ms_min) + step - 1) / step;
    return static_cast<uint32_t>(std::min(steps, UINT32_MAX / step) * step);
}

void start_keep_alive(controller& c) noexcept {
    controller::admin_state& s = *c.state;
    s.run = [](work& w) noexcept {
        auto& state = static_cast<controller::admin_state&>(w);
        if (state.active || state.of.configuring.locked()) return start_keep_alive(state.of);
        std::string what = state.of.running()
                               ? fmt::format("no keep-alive from {} in {} ms", state.of.hostnqn, state.keep_alive_ms)
                               : fmt::format("{} does not enable it", state.of.hostnqn);
        state.of.of->owner().log().notice(
            fmt::format("controller {} of {}: {}, disconnecting", state.of.id, state.of.of->options().nqn, what));
        state.of.csts |= nvme::csts::fatal;
        state.of.admin->disconnect();
    };
    s.active = false;
    // Before the host enables it, after a reset and after a shutdown a controller waits for two minutes at least
    // (Base 3.9, 6.3); then whoever says nothing has gone.
    constexpr time_ns association_patience = 120 * seconds;
    if (!c.running()) return s.keep_alive.start(association_patience);
    if (s.keep_alive_ms == 0) return s.keep_alive.cancel();
    s.keep_alive.start(static_cast<time_ns>(s.keep_alive_ms) * milliseconds);
}

// --- asynchronous events (Base 5.2)

void post_event(controller& c, nvme::async_event e) noexcept {
    controller::admin_state& s = *c.state;
    if (!s.event_requests.empty()) {
        request& r = *s.event_requests.back();
        s.event_requests.pop_back();
        return answer(r, nvme::status::success, e.encode());
    }
    // Told when the host asks. Notices are masked by then, so this does not grow.
    if (std::ranges::find(s.events, e) == s.events.end()) s.events.push_back(e);
}

void abort_events(controller& c, nvme::status with) noexcept {
    if (!c.state) return;
    for (request* r : std::exchange(c.state->event_requests, {})) {
        r->status = with;
        r->dnr = false;
        r->queue->complete(*r);
    }
    c.state->events.clear();
    c.state->namespace_notice_masked = c.state->ana_notice_masked = c.state->discovery_notice_masked = false;
}

void notice_read(controller& c, nvme::log_page page) noexcept {
    controller::admin_state& s = *c.state;
    std::erase_if(s.events, [page](const nvme::async_event& e) { return e.log_page == nvme::raw(page); });
    if (page == nvme::log_page::changed_namespaces) s.namespace_notice_masked = false;
    if (page == nvme::log_page::ana) s.ana_notice_masked = false;
    if (page == nvme::log_page::discovery) s.discovery_notice_masked = false;
}

// Stays: who the host is, the number of errors ever, namespaces that changed and were not asked for.
void reset_state(controller& c) noexcept {
    controller::admin_state& s = *c.state;
    abort_events(c, nvme::status::aborted_by_request);
    s.features = default_features(c);
    s.keep_alive_ms = s.keep_alive_ms_connected;
    s.errors.clear();
}

void notify_namespace_changed(controller& c, uint32_t nsid) {
    if (!c.state) return;
    controller::admin_state& s = *c.state;
    auto at = std::ranges::lower_bound(s.changed_namespaces, nsid);
    if (at == s.changed_namespaces.end() || *at != nsid) s.changed_namespaces.insert(at, nsid);
    if ((s.features.async_event_config & nvme::event_mask::namespace_attribute) == 0 || s.namespace_notice_masked)
        return;
    s.namespace_notice_masked = true;
    post_event(c, {nvme::event_type::notice, nvme::event_info::notice_namespace_changed,
                   nvme::raw(nvme::log_page::changed_namespaces)});
}

void notify_ana_changed(controller& c) {
    if (!c.state) return;
    controller::admin_state& s = *c.state;
    if ((s.features.async_event_config & nvme::event_mask::ana_change) == 0 || s.ana_notice_masked) return;
    s.ana_notice_masked = true;
    post_event(c, {nvme::event_type::notice, nvme::event_info::notice_ana_change, nvme::raw(nvme::log_page::ana)});
}

void notify_discovery_changed(controller& c) {
    if (!c.state) return;
    controller::admin_state& s = *c.state;
    if ((s.features.async_event_config & nvme::event_mask::discovery_change) == 0 || s.discovery_notice_masked) return;
    s.discovery_notice_masked = true;
    post_event(
        c, {nvme::event_type::notice, nvme::event_info::notice_discovery_change, nvme::raw(nvme::log_page::discovery)});
}

namespace {

void async_event_request(request& r) noexcept {
    controller::admin_state& s = *r.queue->ctrl->state;
    if (s.event_requests.size() >= async_event_limit) return answer(r, nvme::status::async_event_limit_exceeded);
    if (!s.events.empty()) {
        nvme::async_event e = s.events.front();
        s.events.pop_front();
        return answer(r, nvme::status::success, e.encode());
    }
    s.event_requests.push_back(&r);
}

// Base 5.1. Event requests are called back here, commands of other queues on the threads of those. Bit 0 of the result
// says "not aborted".
bool abort_event_request(controller& c, uint16_t command_id) noexcept {
    auto& waiting = c.state->event_requests;
    auto found = std::ranges::find_if(waiting, [&](request* w) { return w->command.cid == command_id; });
    if (found == waiting.end()) return false;
    request& aborted = **found;
    waiting.erase(found);
    aborted.status = nvme::status::aborted_by_request;
    aborted.dnr = false;
    aborted.queue->complete(aborted);
    return true;
}

// App thread.
task<qpair::recall> recall_on(controller& c, uint16_t queue_id, uint16_t command_id, bool again) {
    auto found = std::ranges::find(c.queues, queue_id, &controller::queue_entry::qid);
    if (queue_id == 0 || found == c.queues.end()) co_return qpair::recall::none;
    // As in disconnect_later(): it is there when this arrives.
    co_return co_await call_on(
        *found->on, [=, queue = found->queue]() -> task<qpair::recall> { co_return queue->abort(command_id, again); });
}

task<> abort_task(request& r) {
    controller& c = *r.queue->ctrl;
    auto queue_id = static_cast<uint16_t>(r.command.cdw10.get());
    auto command_id = static_cast<uint16_t>(r.command.cdw10.get() >> 16);
    if (queue_id == 0) co_return answer(r, nvme::status::success, abort_event_request(c, command_id) ? 0 : 1);
    const time_ns give_up = thread::thread::current()->now() + c.abort_patience;
    auto outcome = qpair::recall::none;
    for (bool again = false;; again = true) {
        outcome = co_await call_on(c.of->owner().system().app_thread(),
                                   [&] { return recall_on(c, queue_id, command_id, again); });
        if (again && outcome == qpair::recall::none) outcome = qpair::recall::recalled;  // its data has come
        bool over = thread::thread::current()->now() >= give_up || !r.queue->enabled;
        if (outcome != qpair::recall::awaited || over) break;
        co_await sleep(1 * milliseconds);
    }
    answer(r, nvme::status::success, outcome == qpair::recall::recalled ? 0 : 1);
}

void record_error(const request& r) {
    controller::admin_state& s = *r.queue->ctrl->state;
    nvme::error_log_entry e{};
    e.error_count = ++s.error_count;
    e.sqid = r.queue->id;
    e.cid = r.command.cid;
    e.status_field = nvme::make_status(nvme::status::invalid_opcode, true);
    e.nsid = r.command.nsid;
    s.errors.push_front(e);
    if (s.errors.size() > error_log_entries) s.errors.pop_back();
}

void unknown(request& r) {
    record_error(r);
    const logger& log = r.queue->group.owner().log();
    if (log.debugging())
        log.debug(
            fmt::format("admin command {} is not offered", nvme::text_of(static_cast<admin_opcode>(r.command.opcode))));
    answer(r, nvme::status::invalid_opcode);
}

// A discovery controller knows but a few commands (Base 3.1.2.3).
bool allowed_for_discovery(admin_opcode o) noexcept {
    return o == admin_opcode::get_log_page || o == admin_opcode::identify || o == admin_opcode::abort ||
           o == admin_opcode::set_features || o == admin_opcode::get_features ||
           o == admin_opcode::async_event_request || o == admin_opcode::keep_alive;
}

}  // namespace

void execute_admin(request& r) noexcept {
    controller& c = *r.queue->ctrl;
    auto opcode = static_cast<admin_opcode>(r.command.opcode);
    c.state->active = true;
    if ((c.csts & nvme::csts::ready) == 0) return answer(r, nvme::status::command_sequence_error);
    if (r.command.fused() != nvme::fuse::none) return answer(r, nvme::status::invalid_field);
    if (c.discovery && !allowed_for_discovery(opcode)) return unknown(r);
    switch (opcode) {
        case admin_opcode::identify:
            return identify(r);
        case admin_opcode::get_log_page:
            return get_log_page(r);
        case admin_opcode::get_features:
            return get_features(r);
        case admin_opcode::set_features:
            return set_features(r);
        case admin_opcode::async_event_request:
            return async_event_request(r);
        case admin_opcode::abort:
            return r.queue->group.spawn("abort", abort_task(r));
        case admin_opcode::keep_alive:
            if (c.state->keep_alive_ms == 0) return answer(r, nvme::status::keep_alive_invalid);
            return answer(r, nvme::status::success);
        default:
            return unknown(r);
    }
}

}  // namespace varve::targets::nvmf
