// NVMe/TCP connections: slots, the beginning and the end. See tcp_connection.h.
#include "targets/nvmf/tcp_connection.h"

#include <fmt/core.h>

#include <algorithm>

#include "targets/nvmf/controller.h"
#include "targets/nvmf/target.h"
#include "thread/awaits.h"

namespace varve::targets::nvmf {

namespace {

constexpr uint32_t slots_before_connect = 2;
// A slot is free again when the kernel has taken its response; the host may see the response, and send its next
// command, before we learn of that. A few more slots than the queue has entries keep the receiver from pausing then.
constexpr uint32_t spare_slots = 16;

}  // namespace

void tcp_connection::run(poll_group& in, std::unique_ptr<env::socket> socket, const transport_options& options) {
    auto* connection = new tcp_connection(in, std::move(socket), options);  // deletes itself: finish()
    connection->_socket->start(*connection);
}

tcp_connection::tcp_connection(poll_group& in, std::unique_ptr<env::socket> socket, const transport_options& options)
    : qpair(in), _socket(std::move(socket)), _options(options) {
    size = slots_before_connect;
    group.connections.push_back(*this);
    group.thread().pin();
    for (batch& b : _batches) {
        b.connection = this;
        b.done = [](env::send_op& op) noexcept {
            auto& sent = static_cast<batch&>(op);
            sent.connection->batch_done(sent);
        };
    }
    _flush_work.connection = this;
    _flush_work.run = [](work& w) noexcept {
        tcp_connection& me = *static_cast<connection_work&>(w).connection;
        me._flush_queued = false;
        me.flush();
    };
    _quiet_work.connection = this;
    _quiet_work.run = [](work& w) noexcept {
        tcp_connection& me = *static_cast<connection_work&>(w).connection;
        me._quiet_queued = false;
        std::exchange(me._quiet_waiter, {}).resume();
    };
    _progress_work.connection = this;
    _progress_work.run = [](work& w) noexcept { static_cast<connection_work&>(w).connection->look_for_progress(); };
    _term_timeout.connection = this;
    _term_timeout.run = [](work& w) noexcept {
        tcp_connection& me = *static_cast<connection_work&>(w).connection;
        if (me._terminating || me.ctrl == nullptr) me.disconnect();
    };
    constexpr time_ns connect_patience = 30 * seconds;  // who is not connected by then takes up room
    _term_timer.start(connect_patience);
    add_slots(slots_before_connect);
}

tcp_connection::~tcp_connection() {
    VARVE_ASSERT(_in_use == 0 && !_flush_queued);
    group.thread().unpin();
}

void tcp_connection::add_slots(uint32_t count) {
    auto chunk = std::make_unique<slot[]>(count);
    for (uint32_t i = count; i-- > 0;) {
        slot& s = chunk[i];
        s.queue = this;
        s.connection = this;
        s.next = _free;
        _free = &s;
    }
    for (uint32_t i = 0; i < count; ++i) {
        chunk[i].index = static_cast<uint16_t>(_slots.size());
        _slots.push_back(&chunk[i]);
    }
    _slot_chunks.push_back(std::move(chunk));
    size_batches();
}

void tcp_connection::resize(uint16_t entries) {
    size = entries;
    constexpr uint32_t tags = 1 << 16;  // an index is a transfer tag
    if (_slots.size() < entries)
        add_slots(std::min(entries + spare_slots, tags) - static_cast<uint32_t>(_slots.size()));
}

tcp_connection::slot* tcp_connection::take_slot() noexcept {
    slot* s = _free;
    _free = s->next;
    ++_in_use;
    s->data = {};
    s->data_length = s->transfer_length = 0;
    s->result = 0;
    s->status = nvme::status::success;
    s->dnr = false;
    s->fused = s->partner = nullptr;
    s->parked = false;
    s->broken = nvme::status::success;
    s->memory = nullptr;
    s->received = 0;
    s->in_capsule = s->digest_bad = s->unwanted = false;
    return s;
}

void tcp_connection::release(slot& s) noexcept {
    s.buffer = {};
    if (env::buffer* spare = std::exchange(s.spare, nullptr)) [[unlikely]] {
        _spares_used &= ~(1u << (spare - _spares.data()));
        if (!_closing) spare_returned();
    }
    s.state = slot_state::free;
    s.next = _free;
    _free = &s;
    --_in_use;
    if (_quiet_waiter && !_quiet_queued) {  // later: the waiter may delete this connection, which callers still use
        _quiet_queued = true;
        thread::thread::current()->defer(_quiet_work);
    }
    if (_paused) resume_receive();
}

void tcp_connection::resume_receive() noexcept {
    if (!_paused || _closing) return;
    _paused = false;
    _progress = group.thread().now();
    _socket->resume_receive();
}

void tcp_connection::complete(request& r) noexcept {
    auto& s = static_cast<slot&>(r);
    if (_closing || _terminating) return release(s);  // nothing follows a C2HTermReq
    s.state = slot_state::responding;
    queue_send(s);
}

qpair::recall tcp_connection::abort(uint16_t command_id, bool again) noexcept {
    auto found = std::ranges::find_if(_slots, [&](slot* s) {
        return s->state != slot_state::free && s->command.cid == command_id && (!again || s->unwanted);
    });
    if (found == _slots.end() || _closing) return recall::none;
    slot& s = **found;
    switch (s.state) {
        case slot_state::executing:
            return abort_io(s) ? recall::recalled : recall::none;
        case slot_state::waiting_for_buffer:
            if (!group.buffers().cancel(s.wait)) return recall::none;  // its buffer is on the way
            if (_receiving == &s) _receiving = nullptr;                // its data is skipped
            fail(s, nvme::status::aborted_by_request, true);
            resume_receive();
            return recall::recalled;
        case slot_state::sending_r2t:
        case slot_state::receiving:  // the host sends the data that was asked for, whatever becomes of the command
            s.unwanted = true;
            return recall::awaited;
        case slot_state::free:
        case slot_state::responding:
            break;
    }
    return recall::none;
}

void tcp_connection::disconnect() noexcept {
    if (_closing) return;
    _closing = true;
    _rx = rx::ended;  // of bytes that the socket has already, nothing is carried out any more
    _socket->close();
}

void tcp_connection::on_closed(int reason) noexcept {
    thread::entered in(group.thread());
    _closing = _closed = true;
    _term_timer.cancel();
    _progress_timer.cancel();
    const logger& log = group.owner().log();
    if (reason != 0 && log.debugging())
        log.debug(fmt::format("connection from {} ended: {}", peer().to_string(), text_of(from_errno(reason))));
    group.spawn("ending a connection", finish());
}

namespace {
constexpr time_ns data_patience = 30 * seconds;
}

void tcp_connection::await_data() noexcept {
    _progress = group.thread().now();
    if (!_progress_timer.running()) _progress_timer.start(data_patience);
}

void tcp_connection::look_for_progress() noexcept {
    if (_closing) return;
    auto any = [&](auto... states) {
        return std::ranges::any_of(_slots, [=](slot* s) { return ((s->state == states) || ...); });
    };
    if (!any(slot_state::receiving)) return;  // started again by the next
    // While it is we who do not read, the host is not to blame, unless it sent more commands than the queue has
    // entries: then nothing but its data could free a slot.
    bool ours = _paused && any(slot_state::waiting_for_buffer, slot_state::executing, slot_state::sending_r2t,
                               slot_state::responding);
    const time_ns silent = group.thread().now() - _progress;
    if (ours || silent < data_patience) return _progress_timer.start(ours ? data_patience : data_patience - silent);
    group.owner().log().notice(fmt::format("{} sends none of the data of its writes for {} s, disconnecting",
                                           peer().to_string(), data_patience / seconds));
    disconnect();
}

// Slots that wait for the host, for memory or for the other half of a pair will not go on by themselves.
void tcp_connection::drop_idle_slots() noexcept {
    for (slot* s : _slots) {
        bool idle = s->state == slot_state::receiving || (s->state == slot_state::executing && s->parked);
        if (s->state == slot_state::waiting_for_buffer)
            idle = group.buffers().cancel(s->wait);  // else it is on its way
        if (idle) release(*s);
    }
    fused_first = nullptr;
    flush();
}

// Resumed by release() each time, until what it waits for holds.
struct tcp_connection::until_quiet {
    tcp_connection& of;
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> waiter) noexcept { of._quiet_waiter = waiter; }
    void await_resume() const noexcept {}
};

// The controller hears of the end last: as long as it lists this queue, something of the queue may be at work, on the
// controller or on its namespaces.
task<> tcp_connection::finish() {
    drop_idle_slots();
    quit(*this);
    while (_in_use != 0 || _flush_queued) {
        if (_in_use == 0) {
            co_await yield();
        } else {
            co_await until_quiet{*this};
        }
    }
    co_await leave(*this);
    unlink();
    delete this;
}

}  // namespace varve::targets::nvmf
