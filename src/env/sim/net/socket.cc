#include "env/sim/net/socket.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "env/sim/loop.h"
#include "env/sim/net/connection.h"
#include "env/sim/net/network.h"
#include "env/sim/universe.h"
#include "util/assert.h"

namespace varve::env::sim {

socket::socket(loop& at, network& in, uint64_t connection_number, unsigned side)
    : _loop(at),
      _network(in),
      _connection(connection_number),
      _side(side),
      _end(&in.find(connection_number)->end(side)),
      _local(_end->local()),
      _peer(_end->peer()) {
    _end->attach(this);
    _loop.hold();
}

socket::~socket() {
    if (_end == nullptr) return;
    VARVE_ASSERT(_handler == nullptr);  // started: only after on_closed
    give_up_end()->leave();
}

endpoint* socket::give_up_end() noexcept {
    VARVE_ASSERT(_handler == nullptr);
    _loop.release();
    _end->attach(nullptr);
    return std::exchange(_end, nullptr);
}

void socket::start(socket_handler& handler) noexcept {
    VARVE_ASSERT(_handler == nullptr && _end != nullptr);
    _handler = &handler;
    if (_end->closing()) return closed_ready();
    data_ready();
}

void socket::send(send_op& op) noexcept {
    VARVE_ASSERT(_end != nullptr && op.done != nullptr);
    _end->send(op);
}

void socket::resume_receive() noexcept {
    if (_offering) _resumed = true;
    if (!std::exchange(_paused, false) || _end == nullptr) return;
    data_ready();
}

void socket::close() noexcept {
    if (_end == nullptr || _end->closing()) return;
    _end->close();
    // Later, also when everything else is over.
    network& in = _network;
    in.all().after(_end->chance().between<time_ns>(0, 50 * microseconds), [&in, number = _connection, side = _side] {
        if (connection* found = in.find(number)) found->end(side).tell_closed();
    });
}

void socket::sends_ready() noexcept { _loop.make_ready(_sends); }

void socket::data_ready() noexcept {
    if (_handler == nullptr || _end->closing()) return;
    bool all_read = _end->arrived().empty();
    if (!all_read && !_paused) {
        _loop.make_ready(_data);
    } else if (_end->failure() != 0 || (all_read && _end->at_end())) {
        _loop.make_ready(_closed);
    }
}

void socket::closed_ready() noexcept {
    if (_handler != nullptr) _loop.make_ready(_closed);
}

void socket::deliver_sends() noexcept {
    while (send_op* op = _end->pop_sent()) op->done(*op);
}

bool socket::offer() noexcept {
    auto arrived = _end->arrived();
    const link_options& link = _network.all().options().link;
    std::size_t n = arrived.size();
    if (!_end->chance().one_in(link.offer_whole_one_in)) n = _end->chance().between_log<std::size_t>(1, n);
    auto copy = std::make_unique_for_overwrite<std::byte[]>(n);
    std::memcpy(copy.get(), arrived.data(), n);
    _network.all().log().contents({copy.get(), n});
    _offering = true;
    _resumed = false;
    std::size_t consumed = _handler->on_data({copy.get(), n});
    _offering = false;
    VARVE_ASSERT(consumed <= n);
    _end->consume(consumed);
    _paused = consumed < n && !_resumed;
    return consumed == n;
}

void socket::deliver_data() noexcept {
    uint64_t offers = _end->chance().between<uint64_t>(1, 4);
    bool any = false;
    while (offers-- > 0 && !_end->closing() && !_end->arrived().empty()) {
        any = true;
        if (!offer()) break;
    }
    if (_end->closing()) return;
    if (any) _handler->on_batch_end();
    data_ready();
}

void socket::deliver_end() noexcept {
    bool mine = _end->closing();
    int reason = mine ? 0 : _end->failure();
    int unsent = mine ? -ECANCELED : reason != 0 ? reason : -EPIPE;
    while (send_op* op = _end->pop_any(unsent)) op->done(*op);
    _end->leave();
    _end = nullptr;
    _loop.release();
    _sends.unlink();
    _data.unlink();
    _network.all().log().record(_network.all().now(), "closed", _connection, _side, static_cast<uint64_t>(-reason));
    std::exchange(_handler, nullptr)->on_closed(reason);
}

}  // namespace varve::env::sim
