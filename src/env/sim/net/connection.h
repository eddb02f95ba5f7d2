// A simulated connection: two ends, and between them in each direction a wire on which bytes travel in segments, in
// order, each taking its time. Bytes sent and not yet consumed are bounded per direction; a sender beyond that waits.
// Belongs to the network; whatever refers to it later does so by number.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "env/sim/net/options.h"
#include "env/sim/rng.h"
#include "env/socket.h"
#include "util/list.h"
#include "util/units.h"

namespace varve::env::sim {

class connection;
class network;
class socket;
class world;

// One end: what its socket has asked to be sent, and what has arrived for it.
class endpoint {
  public:
    endpoint(network& in, connection& of, unsigned side, world& where, address local, address peer);

    // -- the socket's --
    void attach(socket* user) noexcept { _user = user; }  // null: nobody is here (any more)
    void send(send_op& op);
    // No more is sent or taken; the peer learns of it once it has got what was handed over.
    void close();
    // What has arrived and was not consumed, and that some of it has been.
    std::span<const std::byte> arrived() const noexcept { return std::span(_inbox).subspan(_consumed); }
    void consume(std::size_t bytes);
    // Arrived: the end of the peer's bytes; a failure (negated errno).
    bool at_end() const noexcept { return _ended; }
    int failure() const noexcept { return _failure; }
    bool closing() const noexcept { return _closing; }
    // Sends that were handed over and may be told so, oldest first; null when there is none.
    send_op* pop_sent() noexcept;
    // When it is over: any send left, handed over or (then result is `unsent`) not.
    send_op* pop_any(int unsent) noexcept;
    // Nothing refers to this end any more.
    void leave();

    const address& local() const noexcept { return _local; }
    const address& peer() const noexcept { return _peer; }
    network& in() const noexcept { return _network; }
    world& where() const noexcept { return _where; }
    bool left() const noexcept { return _left; }
    rng& chance() noexcept;

    // -- the wire's --
    enum class signal : uint8_t { bytes, end, reset };
    struct message {
        signal what = signal::bytes;
        time_ns arrives = 0;
        std::vector<std::byte> contents;
    };
    void pump();             // puts the next segment on the wire, if there is room
    void arrival();          // the first message on the wire to here is due
    void fail(int reason);   // negated errno
    void lose_tail();        // the connection is lost: of what is on the wire to here, only a part arrives
    void resume_arrivals();  // after a partition
    void tell_sent();
    void tell_closed();

  private:
    friend class connection;
    void schedule_pump();
    void schedule_arrival();
    void put_on_wire(signal what, std::vector<std::byte> contents);
    std::vector<std::byte> take_segment(std::size_t bytes);
    endpoint& other() const noexcept;
    std::size_t outstanding() const noexcept;
    template <class F>
    void later(time_ns delay, F f);

    network& _network;
    connection& _of;
    const unsigned _side;
    world& _where;
    const address _local, _peer;
    socket* _user = nullptr;

    queue<send_op> _waiting, _sent;
    std::size_t _front_sent = 0;  // bytes of the first waiting op on the wire already
    std::size_t _sent_count = 0;  // ops in _sent
    std::size_t _sent_told = 0;   // how many of them may be told
    std::size_t _capacity;        // bytes on the way from here, at most
    bool _pump_scheduled = false;
    bool _silent = false;  // nothing is sent any more

    std::deque<message> _wire;  // to here
    std::size_t _wire_bytes = 0;
    bool _arrival_scheduled = false;
    time_ns _last_arrival = 0;
    std::vector<std::byte> _inbox;
    std::size_t _consumed = 0;  // of the inbox
    bool _ended = false, _closing = false, _left = false;
    int _failure = 0;
};

class connection {
  public:
    connection(network& in, uint64_t number, world& client, address client_at, world& server, address server_at);

    uint64_t number() const noexcept { return _number; }
    endpoint& end(unsigned side) noexcept { return _ends[side]; }
    bool over() const noexcept { return _ends[0].left() && _ends[1].left(); }
    bool lost() const noexcept { return _lost; }
    // Both ends see it fail, each in its time, having got a part of what was under way.
    void lose();

    rng chance;

  private:
    network& _network;
    const uint64_t _number;
    bool _lost = false;
    endpoint _ends[2];  // client, server
};

}  // namespace varve::env::sim
