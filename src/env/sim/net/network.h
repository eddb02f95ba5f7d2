// The network between the worlds of a universe. Every world is a host with an address of its own ("10.0.0.1" is the
// first one's); loopback addresses and Unix paths stay within a world. Connections delay, chop, and end as told.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <vector>

#include "env/loop.h"
#include "env/sim/net/connection.h"
#include "env/sim/net/options.h"
#include "env/sim/ready.h"

namespace varve::env::sim {

class loop;
class universe;
class world;

class network {
  public:
    explicit network(universe& all) noexcept;
    ~network();
    network(const network&) = delete;

    universe& all() const noexcept { return _all; }

    // What meets bytes that go from one world to another; may be changed at any time, one direction alone too.
    link_options& link(const world& from, const world& to);
    // Nothing passes between the two until they are joined again; nothing is lost either. Connects time out.
    void part(const world& a, const world& b);
    void join(const world& a, const world& b);
    bool partitioned(const world& a, const world& b) const;

    // Connections that are up.
    std::vector<connection*> connections();
    void lose_all();
    void lose_all_of(const world& w);
    void lose_between(const world& a, const world& b);
    // So many connects from now on find nobody listening.
    void refuse(uint64_t connects) noexcept { _refuse = connects; }
    uint64_t connections_made() const noexcept { return _made; }

    // The loops'.
    result<std::unique_ptr<env::listener>> listen(loop& at, const address& where, accept_handler& handler);
    void connect(loop& from, const address& to, connect_handler& handler);
    static std::unique_ptr<detached_socket> detach(loop& from, std::unique_ptr<env::socket> connection) noexcept;
    static result<std::unique_ptr<env::socket>> adopt(loop& by, std::unique_ptr<detached_socket> connection);

    // The connections'.
    connection* find(uint64_t number) noexcept;
    void left(connection& c);

  private:
    class listening_socket;
    class connecting;
    class between_loops;

    listening_socket* find_listener(const world& from, const address& to) const noexcept;
    void try_connect(uint64_t attempt);
    void settle(uint64_t attempt, time_ns delay);
    static std::pair<unsigned, unsigned> pair_of(const world& a, const world& b);

    universe& _all;
    uint64_t _next = 1;
    uint64_t _made = 0;
    uint64_t _refuse = 0;
    uint16_t _next_port = 49152;
    std::vector<listening_socket*> _listeners;
    std::map<uint64_t, std::unique_ptr<connecting>> _connecting;
    std::map<uint64_t, std::unique_ptr<connection>> _connections;
    std::map<std::pair<unsigned, unsigned>, link_options> _links;
    std::set<std::pair<unsigned, unsigned>> _parted;
};

}  // namespace varve::env::sim
