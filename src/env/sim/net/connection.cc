#include "env/sim/net/connection.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "env/sim/net/network.h"
#include "env/sim/net/socket.h"
#include "env/sim/universe.h"
#include "env/sim/world.h"
#include "util/assert.h"

namespace varve::env::sim {

connection::connection(network& in, uint64_t number, world& client, address client_at, world& server, address server_at)
    : chance(in.all().stream(fmt::format("connection {}", number))),
      _network(in),
      _number(number),
      _ends{endpoint(in, *this, 0, client, client_at, server_at),
            endpoint(in, *this, 1, server, server_at, client_at)} {}

void connection::lose() {
    if (std::exchange(_lost, true)) return;
    _network.all().log().record(_network.all().now(), "connection lost", _number);
    int reason = chance.one_in(4) ? -ETIMEDOUT : -ECONNRESET;
    for (unsigned side : {0U, 1U}) {
        endpoint& e = _ends[side];
        e._silent = true;
        e.lose_tail();
        e.later(chance.between<time_ns>(0, 2 * _network.link(e.other().where(), e.where()).delay_max),
                [reason](endpoint& self) { self.fail(reason); });
    }
}

endpoint::endpoint(network& in, connection& of, unsigned side, world& where, address local, address peer)
    : _network(in), _of(of), _side(side), _where(where), _local(std::move(local)), _peer(std::move(peer)) {
    const link_options& link = in.all().options().link;
    _capacity = of.chance.between_log<std::size_t>(link.buffer_min, std::max(link.buffer_min, link.buffer_max));
}

endpoint& endpoint::other() const noexcept { return _of.end(1 - _side); }
rng& endpoint::chance() noexcept { return _of.chance; }

// By number: the connection may be over by then.
template <class F>
void endpoint::later(time_ns delay, F f) {
    network& in = _network;
    in.all().after(delay, [&in, number = _of.number(), side = _side, f = std::move(f)]() mutable {
        if (connection* found = in.find(number)) f(found->end(side));
    });
}

std::size_t endpoint::outstanding() const noexcept {
    const endpoint& receiver = other();
    return receiver._wire_bytes + (receiver._inbox.size() - receiver._consumed);
}

void endpoint::send(send_op& op) {
    op.result = 0;
    _waiting.push(op);
    schedule_pump();
}

void endpoint::schedule_pump() {
    if (_silent || _waiting.empty() || std::exchange(_pump_scheduled, true)) return;
    later(chance().between<time_ns>(0, 3 * microseconds), [](endpoint& self) {
        self._pump_scheduled = false;
        self.pump();
    });
}

std::vector<std::byte> endpoint::take_segment(std::size_t bytes) {
    std::vector<std::byte> segment;
    while (send_op* op = _waiting.front()) {
        std::size_t skip = _front_sent;
        for (uint32_t i = 0; i < op->iov_count && segment.size() < bytes; ++i) {
            if (skip >= op->iov[i].iov_len) {
                skip -= op->iov[i].iov_len;
                continue;
            }
            auto* data = static_cast<const std::byte*>(op->iov[i].iov_base);
            std::size_t n = std::min(op->iov[i].iov_len - skip, bytes - segment.size());
            segment.insert(segment.end(), data + skip, data + skip + n);
            _front_sent += n;
            skip = 0;
        }
        std::size_t total = 0;
        for (uint32_t i = 0; i < op->iov_count; ++i) total += op->iov[i].iov_len;
        if (_front_sent < total) break;
        _front_sent = 0;
        _waiting.pop();
        _sent.push(*op);
        ++_sent_count;
    }
    return segment;
}

void endpoint::pump() {
    if (_silent || _waiting.empty()) return;
    const link_options& link = _network.link(_where, other()._where);
    std::size_t used = outstanding();
    if (used >= _capacity) return;  // consume() goes on
    std::size_t most = std::min<std::size_t>(_capacity - used, std::max(1U, link.segment_max));
    std::size_t told_before = _sent_count;
    auto segment = take_segment(chance().coin() ? most : chance().between_log<std::size_t>(1, most));
    if (!segment.empty()) put_on_wire(signal::bytes, std::move(segment));
    if (_sent_count > told_before) {
        later(chance().between<time_ns>(0, 20 * microseconds), [](endpoint& self) { self.tell_sent(); });
    }
    if (chance().one_in(link.loss_one_in)) return _of.lose();
    schedule_pump();
}

void endpoint::tell_sent() {
    _sent_told = _sent_count;
    if (_user != nullptr) _user->sends_ready();
}

void endpoint::tell_closed() {
    if (_user != nullptr) _user->closed_ready();
}

send_op* endpoint::pop_sent() noexcept {
    if (_sent_told == 0) return nullptr;
    --_sent_told;
    --_sent_count;
    return _sent.pop();
}

send_op* endpoint::pop_any(int unsent) noexcept {
    _silent = true;
    if (send_op* op = _sent.pop()) return op;
    send_op* op = _waiting.pop();
    if (op != nullptr) op->result = unsent;
    return op;
}

void endpoint::put_on_wire(signal what, std::vector<std::byte> contents) {
    endpoint& to = other();
    const link_options& link = _network.link(_where, to._where);
    time_ns now = _network.all().now();
    time_ns arrives = now + chance().between(link.delay_min, std::max(link.delay_min, link.delay_max));
    to._last_arrival = std::max(to._last_arrival, arrives);
    to._wire_bytes += contents.size();
    _network.all().log().record(now, "wire", _of.number(), _side, contents.size());
    to._wire.push_back({what, to._last_arrival, std::move(contents)});
    to.schedule_arrival();
}

void endpoint::schedule_arrival() {
    if (_wire.empty() || std::exchange(_arrival_scheduled, true)) return;
    time_ns now = _network.all().now();
    later(std::max<time_ns>(0, _wire.front().arrives - now), [](endpoint& self) {
        self._arrival_scheduled = false;
        self.arrival();
    });
}

void endpoint::resume_arrivals() { schedule_arrival(); }

void endpoint::arrival() {
    if (_wire.empty() || _network.partitioned(other()._where, _where)) return;
    message m = std::move(_wire.front());
    _wire.pop_front();
    _wire_bytes -= m.contents.size();
    if (_left || _closing) {
        // Nobody takes it: the sender is told so.
        if (m.what == signal::bytes && !other()._left) put_on_wire(signal::reset, {});
    } else if (m.what == signal::reset) {
        fail(-ECONNRESET);
    } else if (_failure == 0) {
        _inbox.insert(_inbox.end(), m.contents.begin(), m.contents.end());
        if (m.what == signal::end) _ended = true;
        if (_user != nullptr) _user->data_ready();
    }
    schedule_arrival();
}

void endpoint::consume(std::size_t bytes) {
    _consumed += bytes;
    VARVE_ASSERT(_consumed <= _inbox.size());
    if (_consumed == _inbox.size()) {
        _inbox.clear();
        _consumed = 0;
    } else if (_consumed > (64U << 10)) {
        _inbox.erase(_inbox.begin(), _inbox.begin() + static_cast<std::ptrdiff_t>(_consumed));
        _consumed = 0;
    }
    if (bytes > 0) other().schedule_pump();
}

void endpoint::fail(int reason) {
    if (_left || _closing || _failure != 0) return;
    _failure = reason;
    _silent = true;
    if (chance().coin()) {  // what had arrived may be lost with the connection
        _inbox.clear();
        _consumed = 0;
    }
    if (_user != nullptr) _user->data_ready();
}

void endpoint::lose_tail() {
    std::size_t kept = _wire.empty() ? 0 : chance().between<std::size_t>(0, _wire.size());
    while (_wire.size() > kept) {
        _wire_bytes -= _wire.back().contents.size();
        _wire.pop_back();
    }
}

void endpoint::close() {
    if (std::exchange(_closing, true)) return;
    bool unread = !arrived().empty();
    _silent = true;
    // As TCP: bytes that nobody will read make the end a reset, which may cost the peer what it has not read.
    if (_failure == 0 && !_of.lost()) put_on_wire(unread ? signal::reset : signal::end, {});
}

void endpoint::leave() {
    if (_left) return;
    close();
    _user = nullptr;
    _left = true;
    _network.left(_of);
}

}  // namespace varve::env::sim
