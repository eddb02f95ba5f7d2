#include "nvme/host/controller.h"

#include <fmt/format.h>

#include <algorithm>

#include "env/system.h"
#include "nvme/text.h"
#include "thread/awaits.h"
#include "thread/runtime.h"

namespace varve::nvme::host {

namespace {

constexpr uint32_t transfer_unlimited = 1u << 20;  // what we make of MDTS 0, and at most of any
constexpr uint32_t admin_transfer_max = 16384;
constexpr time_ns shutdown_timeout = 2 * seconds;

// Breaks the queue when its time is over; the request that waits completes then.
class deadline : work {
  public:
    deadline(queue_pair& on, time_ns after) : _on(on), _timer(*this) {
        run = [](work& self) noexcept {
            static_cast<deadline&>(self)._on.abandon(error(errc::timed_out, "an admin command was not answered"));
        };
        _timer.start(after);
    }

  private:
    queue_pair& _on;
    thread::timer _timer;
};

}  // namespace

controller::controller(controller_options options)
    : _options(std::move(options)), _home(*thread::thread::current()), _keep_alive_timer(_keep_alive_work) {
    _identity = {.subnqn = _options.subnqn, .hostnqn = _options.hostnqn, .host_id = _options.host_id};
    if (_identity.host_id.is_nil()) _identity.host_id = _home.system().world().make_uuid();
    if (_identity.hostnqn.empty()) _identity.hostnqn = std::string(uuid_nqn_prefix) + _identity.host_id.to_string();
    _transport = make_tcp_transport(_options.address, _options.tcp);
    _keep_alive_work.owner = this;
    _keep_alive_work.run = [](work& w) noexcept { static_cast<keep_alive_work&>(w).owner->on_keep_alive_due(); };
}

controller::~controller() { VARVE_ASSERT(_admin == nullptr && _open_queues.empty()); }

task<std::unique_ptr<controller>> controller::connect(controller_options options) {
    std::unique_ptr<controller> made(new controller(std::move(options)));
    result<> started = co_await as_result(made->start());
    if (!started) {
        co_await made->disconnect();
        co_return varve::fail(std::move(started).error());
    }
    co_return std::move(made);
}

task<> controller::start() {
    const uint16_t entries = std::max(_options.admin_queue_entries, admin_queue_entries_min);
    _admin = co_await _transport->open({.qid = 0, .entries = entries});
    _admin->on_lost([this](const error& why) { lose(why); });
    {
        deadline limit(*_admin, _options.admin_timeout);
        _id = co_await fabrics_connect(*_admin, _identity,
                                       {.entries = entries,
                                        .keep_alive_ms = _options.keep_alive_ms,
                                        .disable_flow_control = _options.disable_sq_flow_control});
    }
    co_await enable();
    co_await ask(identify_command(cns::controller), std::as_writable_bytes(std::span(&_data, 1)),
                 "identifying the controller");
    const unsigned shift = 12u + _capabilities.page_size_min + _data.mdts;
    _transfer_max = _data.mdts == 0 || shift >= 20 ? transfer_unlimited : 1u << shift;
    start_keep_alive();
    co_await ask_for_events();
    if (!is_discovery()) co_await set_up_io();
}

task<> controller::enable() {
    {
        deadline limit(*_admin, _options.admin_timeout);
        _capabilities = controller_capabilities::decode(co_await get_property(*_admin, property::cap));
        const bool several = (_capabilities.command_sets & css_several) != 0;
        const controller_configuration wanted{.enable = true,
                                              .command_set = static_cast<uint8_t>(several ? 6 : 0),
                                              .page_size = _capabilities.page_size_min,
                                              .sqe_size_log2 = 6,
                                              .cqe_size_log2 = 4};
        _enabled = true;
        co_await set_property(*_admin, property::cc, wanted.encode());
    }
    const time_ns patience = std::max<time_ns>(_capabilities.ready_timeout_500ms, 1) * 500 * milliseconds;
    deadline limit(*_admin, patience + _options.admin_timeout);
    const time_ns give_up = _home.now() + patience;
    for (time_ns pause = 100 * microseconds;; pause = std::min<time_ns>(pause * 2, 50 * milliseconds)) {
        const uint64_t now = co_await get_property(*_admin, property::csts);
        if ((now & csts::fatal) != 0) co_await varve::fail(errc::io, "the controller reports a fatal error");
        if ((now & csts::ready) != 0) co_return;
        if (_home.now() > give_up) co_await varve::fail(errc::timed_out, "the controller does not become ready");
        co_await sleep(pause);
    }
}

task<> controller::set_up_io() {
    const uint16_t wanted = std::max<uint16_t>(_options.io_queues_max, 1);
    const uint32_t granted = co_await ask(
        set_feature_command(feature::number_of_queues, number_of_queues(wanted, wanted)), {}, "asking for I/O queues");
    _io_queues = static_cast<uint16_t>(std::min<uint32_t>({wanted, (granted & 0xffff) + 1, (granted >> 16) + 1}));
    for (uint16_t qid = 1; qid <= _io_queues; ++qid) _free_qids.push_back(qid);
    co_await rescan();
}

task<> controller::shut_down() {
    deadline limit(*_admin, shutdown_timeout);
    const controller_configuration ended{.shutdown = 1, .sqe_size_log2 = 6, .cqe_size_log2 = 4};
    controller_configuration wanted = ended;
    wanted.enable = true;
    wanted.page_size = _capabilities.page_size_min;
    co_await set_property(*_admin, property::cc, wanted.encode());
    for (time_ns pause = 100 * microseconds;; pause *= 2) {
        const uint64_t now = co_await get_property(*_admin, property::csts);
        if ((now & csts::shutdown_mask) == csts::shutdown_complete) co_return;
        co_await sleep(pause);
    }
}

task<> controller::disconnect() {
    _disconnecting = true;
    _keep_alive_timer.cancel();
    if (_admin == nullptr) co_return;
    // An error here means that the connection is gone or goes now, which is what is wanted.
    if (_enabled && _admin->ready()) (void)co_await as_result(shut_down());
    co_await _admin->close();
    co_await _handlers.close();
    _events.clear();
    _admin.reset();
}

// The connection is gone: whoever has I/O queues must not wait for answers that will not come.
void controller::lose(const error& why) noexcept {
    if (std::exchange(_lost, true)) return;
    _keep_alive_timer.cancel();
    for (const open_queue_entry& entry : _open_queues) {
        // Here at once: a message to ourselves could find the queue gone. From elsewhere the queue leaves the list with
        // a message to us whose answer cannot overtake this one.
        if (entry.home == &_home) {
            entry.queue->abandon(why);
        } else {
            entry.home->post([queue = entry.queue, why] { queue->abandon(why); });
        }
    }
    if (_on_lost) _on_lost(why);
}

// ---- Admin commands ----

task<cqe> controller::admin(sqe command, std::span<std::byte> data) {
    if (_admin == nullptr || _lost) co_await varve::fail(errc::not_connected, "the controller is not connected");
    request r;
    r.command = command;
    r.set_data(data);
    {
        deadline limit(*_admin, _options.admin_timeout);
        co_await execute(*_admin, r);
    }
    if (r.code() == status::aborted_by_host && _admin->failure()) co_await varve::fail(*_admin->failure());
    co_return r.completion;
}

task<uint32_t> controller::ask(sqe command, std::span<std::byte> data, std::string_view what) {
    const std::string doing(what);
    const cqe answer = co_await admin(command, data);
    if (!answer.ok())
        co_await varve::fail(errc_of(answer.code()), fmt::format("{}: {}", doing, describe(answer.code())));
    co_return answer.cdw0.get();
}

task<> controller::get_log_page(log_page which, uint64_t offset, std::span<std::byte> into, uint32_t nsid) {
    const std::size_t piece = std::min(_transfer_max, admin_transfer_max);
    while (!into.empty()) {
        const std::span<std::byte> now = into.first(std::min(into.size(), piece));
        const log_request what{.id = which, .length = now.size(), .offset = offset};
        co_await ask(get_log_command(what, nsid), now, fmt::format("reading log page {:02x}h", raw(which)));
        into = into.subspan(now.size());
        offset += now.size();
    }
}

// ---- Keep-alive ----

void controller::start_keep_alive() noexcept {
    if (_options.keep_alive_ms == 0) return;
    _keep_alive.context = this;
    _keep_alive.done = [](request& r) noexcept { static_cast<controller*>(r.context)->_keep_alive_out = false; };
    _keep_alive_timer.start(_options.keep_alive_ms * milliseconds / 2);
}

void controller::on_keep_alive_due() noexcept {
    if (_keep_alive_out) return _admin->abandon(error(errc::timed_out, "the keep-alive was not answered"));
    _keep_alive_out = true;
    _keep_alive.command = plain_admin_command(admin_opcode::keep_alive);
    _admin->submit(_keep_alive);
    _keep_alive_timer.start(_options.keep_alive_ms * milliseconds / 2);
}

// ---- Asynchronous events ----

task<> controller::ask_for_events() {
    const uint32_t wanted =
        _data.oaes & (event_mask::namespace_attribute | event_mask::ana_change | event_mask::discovery_change);
    // A controller without events is no less useful.
    const cqe answer = co_await admin(set_feature_command(feature::async_event_config, wanted));
    if (!answer.ok()) co_return;
    for (unsigned i = 0; i < std::min<unsigned>(events_max, _data.aerl + 1u); ++i) {
        event_request& r = *_events.emplace_back(std::make_unique<event_request>());
        r.owner = this;
        r.command = plain_admin_command(admin_opcode::async_event_request);
        r.done = [](request& over) noexcept {
            auto& mine = static_cast<event_request&>(over);
            mine.owner->on_event_done(mine);
        };
        _admin->submit(r);
    }
}

void controller::on_event_done(event_request& r) noexcept {
    if (!r.ok() || _disconnecting) return;     // the connection is over, or the controller takes no more of them
    _handlers.spawn(handle(r), [](error) {});  // who lost the connection reports it
}

// Asks for the next event when this one has been dealt with, so that there is never more of this than requests.
task<> controller::handle(event_request& r) {
    const async_event event = async_event::decode(r.completion.cdw0);
    if (event.type == event_type::notice && event.info == event_info::notice_namespace_changed && !is_discovery()) {
        // Reading the log page lets the controller send the next event.
        changed_namespaces_log changed;
        co_await get_log_page(log_page::changed_namespaces, 0, std::as_writable_bytes(std::span(&changed, 1)));
        co_await rescan();
    }
    if (_on_event) _on_event(event);
    if (!_disconnecting && !_lost) _admin->submit(r);
}

// ---- I/O queues ----

task<uint16_t> controller::take_qid() {
    if (_lost || _disconnecting) co_await varve::fail(errc::not_connected, "the controller is not connected");
    if (_free_qids.empty())
        co_await varve::fail(errc::busy, fmt::format("the controller has {} I/O queues, and all are open", _io_queues));
    const uint16_t qid = _free_qids.front();
    _free_qids.erase(_free_qids.begin());
    co_return qid;
}

task<> controller::attach_queue(queue_pair& queue, thread::thread& home) {
    if (_lost || _disconnecting) co_await varve::fail(errc::not_connected, "the controller is not connected");
    _open_queues.push_back({&queue, &home});
}

task<> controller::detach_queue(queue_pair& queue) {
    std::erase_if(_open_queues, [&queue](const open_queue_entry& e) { return e.queue == &queue; });
    co_return;
}

task<> controller::release_qid(uint16_t qid) {
    _free_qids.push_back(qid);
    co_return;
}

task<std::unique_ptr<queue_pair>> controller::open_queue() {
    thread::thread& here = *thread::thread::current();
    const uint16_t qid = co_await call_on(_home, [this] { return take_qid(); });
    const auto deepest = static_cast<uint32_t>(_capabilities.queue_entries_max) + 1;
    const auto entries = static_cast<uint16_t>(std::clamp<uint32_t>(_options.io_queue_entries, 2, deepest));
    const uint64_t capsule = static_cast<uint64_t>(_data.ioccsz) * 16;
    const uint64_t in_capsule = capsule > sizeof(sqe) ? capsule - sizeof(sqe) : 0;

    std::unique_ptr<queue_pair> queue;
    result<std::unique_ptr<queue_pair>> opened = co_await as_result(
        _transport->open({.qid = qid,
                          .entries = entries,
                          .in_capsule_max = static_cast<uint32_t>(std::min<uint64_t>(in_capsule, 1u << 20))}));
    result<> outcome;
    if (opened) {
        queue = std::move(*opened);
        deadline limit(*queue, _options.admin_timeout);
        result<uint16_t> connected = co_await as_result(fabrics_connect(
            *queue, _identity,
            {.controller_id = _id, .entries = entries, .disable_flow_control = _options.disable_sq_flow_control}));
        if (connected) {
            outcome = co_await as_result(call_on(_home, [&] { return attach_queue(*queue, here); }));
        } else {
            outcome = varve::fail(std::move(connected).error());
        }
    } else {
        outcome = varve::fail(std::move(opened).error());
    }
    if (!outcome) {
        if (queue != nullptr) co_await queue->close();
        co_await call_on(_home, [this, qid] { return release_qid(qid); });
        co_return varve::fail(std::move(outcome).error());
    }
    co_return std::move(queue);
}

task<> controller::close_queue(std::unique_ptr<queue_pair> queue) {
    const uint16_t qid = queue->qid();
    // Off the list first, so that lose() does not name a queue that is gone.
    co_await call_on(_home, [&] { return detach_queue(*queue); });
    co_await queue->close();
    co_await call_on(_home, [this, qid] { return release_qid(qid); });
}

}  // namespace varve::nvme::host
