#include "env/sim/net/network.h"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <utility>

#include "env/sim/loop.h"
#include "env/sim/net/socket.h"
#include "env/sim/universe.h"
#include "env/sim/world.h"
#include "util/assert.h"

namespace varve::env::sim {

namespace {
bool is_wildcard(const std::string& host) { return host == "0.0.0.0" || host == "::"; }
bool is_loopback(const std::string& host) { return host.starts_with("127.") || host == "::1" || host == "localhost"; }
bool serves(const world& listener, const address& at, const world& from, const address& to) {
    if (at.kind != to.kind || at.port != to.port) return false;
    if (to.kind == address::family::unix_path || is_loopback(to.host)) {
        return &listener == &from && (at.host == to.host || is_wildcard(at.host));
    }
    if (is_wildcard(at.host)) return listener.host() == to.host;
    return at.host == to.host;
}
bool collide(const world& a, const address& one, const world& b, const address& two) {
    if (one.kind != two.kind || one.port != two.port) return false;
    if (&a == &b) return one.host == two.host || is_wildcard(one.host) || is_wildcard(two.host);
    return one.host == two.host && one.kind != address::family::unix_path && !is_loopback(one.host) &&
           !is_wildcard(one.host);
}
}  // namespace

class network::listening_socket final : public env::listener, public ready {
  public:
    listening_socket(network& of, loop& at, address where, accept_handler& handler)
        : _network(of), _loop(at), _address(std::move(where)), _handler(handler) {
        _network._listeners.push_back(this);
        _loop.hold();
    }
    ~listening_socket() override {
        std::erase(_network._listeners, this);
        _loop.release();
    }
    const address& local() const noexcept override { return _address; }
    world& in() const noexcept { return _loop.in(); }

    void arrived(uint64_t connection_number) {
        _pending.push_back(std::make_unique<socket>(_loop, _network, connection_number, 1));
        _loop.make_ready(*this);
    }
    void deliver() noexcept override {
        auto connection = std::move(_pending.front());
        _pending.pop_front();
        if (!_pending.empty()) _loop.make_ready(*this);
        _handler.on_accept(std::move(connection));  // may destroy this listener
    }

  private:
    network& _network;
    loop& _loop;
    const address _address;
    accept_handler& _handler;
    std::deque<std::unique_ptr<socket>> _pending;
};

class network::connecting final : public ready {
  public:
    connecting(network& of, loop& by, uint64_t n, address where, connect_handler& h)
        : from(by), number(n), to(std::move(where)), handler(h), _network(of) {
        from.hold();
    }
    ~connecting() { from.release(); }
    void deliver() noexcept override {
        connect_handler& told = handler;
        auto what = std::move(outcome);
        _network._connecting.erase(number);  // this
        told.on_connect(std::move(what));
    }

    loop& from;
    const uint64_t number;
    const address to;
    connect_handler& handler;
    unsigned tries = 0;
    result<std::unique_ptr<env::socket>> outcome = fail(errc::timed_out);

  private:
    network& _network;
};

class network::between_loops final : public detached_socket {
  public:
    between_loops(network& of, uint64_t connection, unsigned side)
        : _network(of), _connection(connection), _side(side) {}
    ~between_loops() override {
        if (_adopted) return;
        if (class connection* found = _network.find(_connection)) found->end(_side).leave();
    }
    std::unique_ptr<env::socket> adopt(loop& by) {
        _adopted = true;
        return std::make_unique<socket>(by, _network, _connection, _side);
    }

  private:
    network& _network;
    const uint64_t _connection;
    const unsigned _side;
    bool _adopted = false;
};

network::network(universe& all) noexcept : _all(all) {}

network::~network() { VARVE_ASSERT(_listeners.empty() && _connecting.empty()); }

std::pair<unsigned, unsigned> network::pair_of(const world& a, const world& b) {
    return std::minmax({a.index(), b.index()});
}

link_options& network::link(const world& from, const world& to) {
    return _links.try_emplace({from.index(), to.index()}, _all.options().link).first->second;
}

void network::part(const world& a, const world& b) { _parted.insert(pair_of(a, b)); }

void network::join(const world& a, const world& b) {
    if (_parted.erase(pair_of(a, b)) == 0) return;
    for (auto& [number, c] : _connections) {
        c->end(0).resume_arrivals();
        c->end(1).resume_arrivals();
    }
}

bool network::partitioned(const world& a, const world& b) const { return _parted.contains(pair_of(a, b)); }

std::vector<connection*> network::connections() {
    std::vector<connection*> up;
    for (auto& [number, c] : _connections) {
        if (!c->over() && !c->lost()) up.push_back(c.get());
    }
    return up;
}

void network::lose_all() {
    for (connection* c : connections()) c->lose();
}

void network::lose_all_of(const world& w) {
    for (connection* c : connections()) {
        if (&c->end(0).where() == &w || &c->end(1).where() == &w) c->lose();
    }
}

void network::lose_between(const world& a, const world& b) {
    for (connection* c : connections()) {
        if (pair_of(c->end(0).where(), c->end(1).where()) == pair_of(a, b)) c->lose();
    }
}

connection* network::find(uint64_t number) noexcept {
    auto found = _connections.find(number);
    return found == _connections.end() ? nullptr : found->second.get();
}

void network::left(connection& c) {
    // Later: it is being used.
    if (c.over()) _all.after(0, [this, number = c.number()] { _connections.erase(number); });
}

result<std::unique_ptr<env::listener>> network::listen(loop& at, const address& where, accept_handler& handler) {
    address real = where;
    if (real.host.empty()) return fail(errc::invalid, "listening needs an address");
    if (real.kind != address::family::unix_path && real.port == 0) real.port = _next_port++;
    for (const listening_socket* l : _listeners) {
        if (collide(l->in(), l->local(), at.in(), real)) {
            return fail(errc::address_in_use, fmt::format("{} port {}", real.host, real.port));
        }
    }
    return std::make_unique<listening_socket>(*this, at, std::move(real), handler);
}

network::listening_socket* network::find_listener(const world& from, const address& to) const noexcept {
    auto found = std::ranges::find_if(_listeners,
                                      [&](const listening_socket* l) { return serves(l->in(), l->local(), from, to); });
    return found == _listeners.end() ? nullptr : *found;
}

void network::connect(loop& from, const address& to, connect_handler& handler) {
    uint64_t number = _next++;
    _connecting.emplace(number, std::make_unique<connecting>(*this, from, number, to, handler));
    _all.log().record(_all.now(), "connect", number, from.in().index(), to.port);
    rng chance = _all.stream(fmt::format("connect {}", number));
    const link_options& l = link(from.in(), from.in());
    _all.after(chance.between(l.delay_min, std::max(l.delay_min, l.delay_max)),
               [this, number] { try_connect(number); });
}

void network::settle(uint64_t attempt, time_ns delay) {
    _all.after(delay, [this, attempt] {
        connecting& c = *_connecting.at(attempt);
        c.from.make_ready(c);
    });
}

// The request has reached the other side, or would have.
void network::try_connect(uint64_t attempt) {
    constexpr unsigned tries_max = 15;
    constexpr time_ns retry_after = 200 * milliseconds;
    connecting& c = *_connecting.at(attempt);
    world& client = c.from.in();
    listening_socket* l = find_listener(client, c.to);
    rng chance = _all.stream(fmt::format("answer {} {}", attempt, c.tries));
    const link_options& back = link(l != nullptr ? l->in() : client, client);
    time_ns delay = chance.between(back.delay_min, std::max(back.delay_min, back.delay_max));
    if (l != nullptr && partitioned(client, l->in())) {
        if (++c.tries < tries_max) {
            _all.after(retry_after, [this, attempt] { try_connect(attempt); });
            return;
        }
        c.outcome = fail(errc::timed_out, "no answer");
        return settle(attempt, 0);
    }
    bool refused = l == nullptr || chance.one_in(back.refuse_one_in);
    if (_refuse > 0) {
        --_refuse;
        refused = true;
    }
    if (refused) {
        c.outcome = fail(errc::refused, fmt::format("{} port {}", c.to.host, c.to.port));
        return settle(attempt, delay);
    }
    uint64_t number = _next++;
    ++_made;
    address mine{c.to.kind, c.to.kind == address::family::unix_path ? "" : client.host(), 0};
    if (is_loopback(c.to.host)) mine.host = c.to.host;
    if (c.to.kind != address::family::unix_path) mine.port = _next_port++;
    _connections.emplace(number, std::make_unique<connection>(*this, number, client, mine, l->in(), c.to));
    l->arrived(number);
    c.outcome = std::make_unique<socket>(c.from, *this, number, 0);
    settle(attempt, delay);
}

std::unique_ptr<detached_socket> network::detach(loop& from, std::unique_ptr<env::socket> connection) noexcept {
    auto& s = static_cast<socket&>(*connection);
    VARVE_ASSERT(&s.at() == &from);
    endpoint* end = s.give_up_end();
    return std::make_unique<between_loops>(end->in(), s.connection_number(), s.side());
}

result<std::unique_ptr<env::socket>> network::adopt(loop& by, std::unique_ptr<detached_socket> connection) {
    return static_cast<between_loops&>(*connection).adopt(by);
}

}  // namespace varve::env::sim
