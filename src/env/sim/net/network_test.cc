// Bytes arrive in order and all of them, in pieces of any size; a loss leaves a prefix; sends are told and refused as
// env/socket.h says.
#include "env/sim/net/network.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <vector>

#include "env/sim/loop.h"
#include "env/sim/universe.h"
#include "env/sim/world.h"

namespace varve::env::sim {
namespace {

struct party final : socket_handler, accept_handler, connect_handler {
    struct outgoing : send_op {
        std::vector<std::byte> bytes;
        iovec piece{};
        party* of = nullptr;
    };

    void take(std::unique_ptr<env::socket> s) {
        connection = std::move(s);
        connection->start(*this);
    }
    void on_accept(std::unique_ptr<env::socket> s) noexcept override { take(std::move(s)); }
    void on_connect(result<std::unique_ptr<env::socket>> s) noexcept override {
        answered = true;
        if (s) {
            take(std::move(*s));
        } else {
            refused = s.error().code();
        }
    }
    std::size_t on_data(std::span<const std::byte> bytes) noexcept override {
        EXPECT_FALSE(closed);
        std::size_t n = std::min(bytes.size(), appetite);
        got.insert(got.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(n));
        pieces.push_back(n);
        if (n < bytes.size()) full = true;
        return n;
    }
    void on_batch_end() noexcept override { ++batches; }
    void on_closed(int why) noexcept override {
        EXPECT_FALSE(closed);
        EXPECT_EQ(told, sends.size()) << "every send is told before";
        closed = true;
        reason = why;
        connection = nullptr;
    }
    void send(std::size_t count) {
        outgoing& o = sends.emplace_back();
        o.bytes.resize(count);
        for (std::byte *b = o.bytes.data(), *end = b + count; b != end; ++b)
            *b = static_cast<std::byte>(sent++ * 31 >> 3);
        o.piece = {o.bytes.data(), o.bytes.size()};
        o.iov = &o.piece;
        o.iov_count = 1;
        o.of = this;
        o.done = [](send_op& op) noexcept {
            auto& me = *static_cast<outgoing&>(op).of;
            EXPECT_EQ(&op, &me.sends[me.told]) << "in the order given";
            ++me.told;
            if (op.result != 0) ++me.failed;
        };
        connection->send(o);
    }

    std::unique_ptr<env::socket> connection;
    std::deque<outgoing> sends;
    std::size_t sent = 0, told = 0, failed = 0, batches = 0;
    std::vector<std::byte> got;
    std::vector<std::size_t> pieces;
    std::size_t appetite = SIZE_MAX;
    bool full = false, closed = false, answered = false;
    int reason = 1;
    errc refused = errc::ok;
};

struct pair_of_parties {
    explicit pair_of_parties(uint64_t seed) : all(seed) { begin(); }
    pair_of_parties(uint64_t seed, const universe_options& how) : all(seed, how) { begin(); }
    ~pair_of_parties() {
        for (party* p : {&client, &server}) {
            if (p->connection) p->connection->close();
        }
        listener = nullptr;
        run_until([&] { return a_loop->in_flight() + b_loop->in_flight() == 0; });
    }
    void begin() {
        a_loop = std::move(*a.make_loop());
        b_loop = std::move(*b.make_loop());
        listener = std::move(*b_loop->listen({address::family::ipv4, "0.0.0.0", 4420}, server));
        a_loop->connect({address::family::ipv4, b.host(), 4420}, client);
    }
    template <class F>
    void run_until(F come) {
        for (int n = 0; n < 1'000'000 && !come(); ++n) {
            a_loop->poll();
            b_loop->poll();
            if (!come()) all.pass_time(all.now() + 10 * microseconds, [] { return false; });
        }
        EXPECT_TRUE(come());
    }
    void settle(time_ns how_long) {
        time_ns until = all.now() + how_long;
        run_until([&] { return all.now() >= until; });
    }
    void connect() {
        run_until([&] { return client.connection && server.connection; });
    }
    universe all;
    world& a = all.add_world("a");
    world& b = all.add_world("b");
    party client, server;
    std::unique_ptr<env::loop> a_loop, b_loop;
    std::unique_ptr<env::listener> listener;
};

std::vector<std::byte> everything_sent(const party& p) {
    std::vector<std::byte> all;
    for (const auto& o : p.sends) all.insert(all.end(), o.bytes.begin(), o.bytes.end());
    return all;
}
bool is_prefix(const std::vector<std::byte>& part, const std::vector<std::byte>& whole) {
    return part.empty() || (part.size() <= whole.size() && std::memcmp(part.data(), whole.data(), part.size()) == 0);
}

// Without optimisation == of vectors takes a hundred times as long.
bool same(const std::vector<std::byte>& a, const std::vector<std::byte>& b) {
    return a.size() == b.size() && is_prefix(a, b);
}

TEST(sim_network, bytes_arrive_in_order_in_pieces_of_all_sizes) {
    std::size_t single = 0, large = 0, early_answers = 0;
    for (uint64_t seed = 0; seed < 300; ++seed) {
        pair_of_parties p(seed);
        p.connect();
        EXPECT_EQ(p.client.connection->peer().host, p.b.host());
        for (std::size_t n : {1U, 100U, 8192U, 0U, 3U, 20000U}) p.client.send(n);
        p.server.send(5000);
        p.run_until([&] { return p.server.got.size() >= 28296 && p.client.got.size() >= 5000; });
        early_answers += p.client.told < p.client.sends.size();
        p.run_until([&] { return p.client.told == 6 && p.server.told == 1; });
        EXPECT_TRUE(same(p.server.got, everything_sent(p.client))) << seed;
        EXPECT_TRUE(same(p.client.got, everything_sent(p.server))) << seed;
        EXPECT_EQ(p.client.failed + p.server.failed, 0U);
        EXPECT_GT(p.server.batches, 0U);
        for (std::size_t n : p.server.pieces) {
            single += n == 1;
            large += n >= 8192;
        }
    }
    EXPECT_GT(single, 100U);
    EXPECT_GT(large, 100U);
    EXPECT_GT(early_answers, 5U) << "bytes may have arrived before the sender is told that they left";
}

TEST(sim_network, a_slow_reader_stops_the_sender) {
    for (uint64_t seed = 0; seed < 50; ++seed) {
        pair_of_parties p(seed);
        p.connect();
        p.server.appetite = 0;
        for (int i = 0; i < 40; ++i) p.client.send(100'000);
        p.run_until([&] { return p.server.full; });
        p.settle(300 * milliseconds);
        EXPECT_LT(p.client.told, 40U) << "buffers are bounded";
        std::size_t calls = p.server.pieces.size();
        p.settle(10 * milliseconds);
        EXPECT_EQ(p.server.pieces.size(), calls) << "offered again only when asked";
        p.server.appetite = SIZE_MAX;
        p.server.connection->resume_receive();
        p.run_until([&] { return p.server.got.size() == 4'000'000; });
        EXPECT_TRUE(same(p.server.got, everything_sent(p.client)));
    }
}

TEST(sim_network, a_lost_connection_leaves_a_prefix_at_both_ends) {
    std::size_t parts = 0;
    for (uint64_t seed = 0; seed < 300; ++seed) {
        pair_of_parties p(seed);
        p.connect();
        for (int i = 0; i < 10; ++i) p.client.send(20'000);
        p.server.send(5'000);
        p.settle(static_cast<time_ns>(seed) * microseconds);
        p.all.net().lose_between(p.b, p.a);
        p.run_until([&] { return p.client.closed && p.server.closed; });
        EXPECT_TRUE(is_prefix(p.server.got, everything_sent(p.client)));
        EXPECT_LT(p.client.reason, 0);
        EXPECT_LT(p.server.reason, 0);
        parts += !p.server.got.empty() && p.server.got.size() < 200'000;
    }
    EXPECT_GT(parts, 50U);
}

TEST(sim_network, links_lose_connections_by_chance) {
    std::size_t lost = 0;
    for (uint64_t seed = 0; seed < 50; ++seed) {
        universe_options how;
        how.link.loss_one_in = 20;
        pair_of_parties p(seed, how);
        p.connect();
        for (int i = 0; i < 10; ++i) p.client.send(20'000);
        p.run_until([&] { return p.client.closed || p.server.got.size() == 200'000; });
        p.settle(10 * milliseconds);
        lost += p.client.closed && p.server.closed;
    }
    EXPECT_GT(lost, 5U);
    EXPECT_LT(lost, 50U);
}

TEST(sim_network, close_is_orderly_for_the_peer_and_drops_what_was_not_sent) {
    std::size_t dropped = 0;
    for (uint64_t seed = 0; seed < 200; ++seed) {
        pair_of_parties p(seed);
        p.connect();
        p.client.send(10);
        p.run_until([&] { return p.client.told == 1; });
        for (int i = 0; i < 20; ++i) p.client.send(100'000);
        p.client.connection->close();
        EXPECT_FALSE(p.client.closed) << "later, from the loop";
        p.run_until([&] { return p.client.closed && p.server.closed; });
        EXPECT_EQ(p.client.reason, 0);
        EXPECT_EQ(p.server.reason, 0);
        EXPECT_GE(p.server.got.size(), 10U);
        EXPECT_TRUE(is_prefix(p.server.got, everything_sent(p.client)));
        dropped += p.client.failed;
    }
    EXPECT_GT(dropped, 1000U);
}

TEST(sim_network, closing_with_unread_bytes_resets_the_peer) {
    std::size_t reset = 0;
    for (uint64_t seed = 0; seed < 50; ++seed) {
        pair_of_parties p(seed);
        p.connect();
        p.server.appetite = 0;
        p.client.send(100);
        p.run_until([&] { return p.server.full; });
        p.server.connection->close();
        p.run_until([&] { return p.client.closed && p.server.closed; });
        reset += p.client.reason == -ECONNRESET;
        EXPECT_EQ(p.server.reason, 0);
    }
    EXPECT_EQ(reset, 50U);
}

TEST(sim_network, connects_are_refused_and_time_out) {
    pair_of_parties p(3);
    p.connect();
    party other;
    auto attempt = [&](uint16_t port) {
        other.answered = false;
        p.a_loop->connect({address::family::ipv4, p.b.host(), port}, other);
        p.run_until([&] { return other.answered; });
        return other.refused;
    };
    EXPECT_EQ(attempt(4421), errc::refused);
    p.all.net().refuse(1);
    EXPECT_EQ(attempt(4420), errc::refused);
    p.all.net().part(p.a, p.b);
    EXPECT_EQ(attempt(4420), errc::timed_out);
    auto again = p.b_loop->listen({address::family::ipv4, p.b.host(), 4420}, p.server);
    ASSERT_FALSE(again);
    EXPECT_EQ(again.error().code(), errc::address_in_use);
    auto elsewhere = p.a_loop->listen({address::family::ipv4, "0.0.0.0", 4420}, other);
    EXPECT_TRUE(elsewhere) << "another host";
    auto any = p.a_loop->listen({address::family::ipv4, "127.0.0.1", 0}, other);
    EXPECT_NE((*any)->local().port, 0);
}

TEST(sim_network, a_partition_delays_and_loses_nothing) {
    pair_of_parties p(3);
    p.connect();
    p.all.net().part(p.a, p.b);
    p.client.send(1000);
    p.settle(seconds);
    EXPECT_TRUE(p.server.got.empty());
    p.all.net().join(p.a, p.b);
    p.run_until([&] { return p.server.got.size() == 1000; });
}

TEST(sim_network, one_direction_can_be_slow) {
    pair_of_parties p(3);
    p.connect();
    p.all.net().link(p.b, p.a) = {.delay_min = 2 * seconds, .delay_max = 3 * seconds};
    time_ns start = p.all.now();
    p.client.send(100);
    p.server.send(100);
    p.run_until([&] { return p.server.got.size() == 100; });
    EXPECT_LT(p.all.now(), start + seconds);
    EXPECT_TRUE(p.client.got.empty());
    p.run_until([&] { return p.client.got.size() == 100; });
    EXPECT_GE(p.all.now(), start + 2 * seconds);
}

struct mover final : accept_handler {
    void on_accept(std::unique_ptr<env::socket> s) noexcept override { waiting = from->detach(std::move(s)); }
    env::loop* from = nullptr;
    std::unique_ptr<detached_socket> waiting;
};

TEST(sim_network, sockets_move_between_loops) {
    for (bool adopt : {true, false}) {
        pair_of_parties p(3);
        p.listener = nullptr;
        mover m;
        m.from = p.b_loop.get();
        auto listener = p.b_loop->listen({address::family::unix_path, "/run/x", 0}, m);
        party near;
        p.b_loop->connect({address::family::unix_path, "/run/x", 0}, near);
        p.run_until([&] { return near.connection && m.waiting; });
        near.send(100);
        p.settle(10 * milliseconds);
        auto other = std::move(*p.b.make_loop());
        party far;
        if (adopt) {
            far.take(std::move(*other->adopt(std::move(m.waiting))));
            p.run_until([&] {
                other->poll();
                return far.got.size() == 100;
            });
            far.connection->close();
        }
        m.waiting = nullptr;  // closes
        p.run_until([&] {
            other->poll();
            return near.closed && (!adopt || far.closed);
        });
        EXPECT_EQ(near.reason, adopt ? 0 : -ECONNRESET);
        EXPECT_EQ(other->in_flight(), 0U);
    }
}

}  // namespace
}  // namespace varve::env::sim
