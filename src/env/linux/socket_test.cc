// Connections, for each kind of loop: order, partial transfers, pausing, and every way to end.
#include <netinet/in.h>
#include <sys/socket.h>

#include <memory>
#include <thread>

#include "env/linux/descriptor.h"
#include "env/linux/socket_setup.h"
#include "env/linux/test_loop.h"

namespace varve::env::os_linux {
namespace {

class sockets : public loop_test {
  protected:
    // A started pair.
    struct both {
        recorder client, server;
    };
    std::unique_ptr<both> talk() {
        auto made = std::make_unique<both>();
        pair ends = connect_pair();
        made->client.attach(std::move(ends.client));
        made->server.attach(std::move(ends.server));
        return made;
    }
    void hang_up(both& pair) {
        if (!pair.client.closed) pair.client.connection->close();
        ASSERT_TRUE(until([&] { return pair.client.closed && pair.server.closed; }));
    }
};
INSTANTIATE_TEST_SUITE_P(loops, sockets, testing::ValuesIn(flavours), flavour_name);

// Bytes that tell their place in the stream.
std::string pattern(std::size_t size) {
    std::string made(size, '\0');
    for (std::size_t i = 0; i < size; ++i) made[i] = static_cast<char>(i * 131 + (i >> 8) * 7 + (i >> 16));
    return made;
}

TEST_P(sockets, bytes_arrive_in_order_both_ways) {
    auto [client_end, server_end] = connect_pair();
    EXPECT_EQ(client_end->peer(), server_end->local());
    EXPECT_EQ(client_end->local(), server_end->peer());
    EXPECT_NE(client_end->local().port, 0);
    recorder client, server;
    client.attach(std::move(client_end));
    server.attach(std::move(server_end));
    client.send("one ");
    client.send("two ");
    client.send("three");
    server.send("answer");
    ASSERT_TRUE(until([&] { return server.received.size() == 13 && client.received.size() == 6; }));
    EXPECT_EQ(server.received, "one two three");
    EXPECT_EQ(client.received, "answer");
    EXPECT_GE(server.batch_ends, 1);
    client.connection->close();
    ASSERT_TRUE(until([&] { return client.closed && server.closed; }));
    EXPECT_EQ(client.reason, 0);
    EXPECT_EQ(server.reason, 0);
}

TEST_P(sockets, sends_of_one_turn_arrive_as_one) {
    auto pair = talk();
    for (int i = 0; i < 100; ++i) pair->client.send("0123456789");
    ASSERT_TRUE(until([&] { return pair->server.received.size() == 1000; }));
    EXPECT_EQ(pair->server.data_calls, 1);
    hang_up(*pair);
}

TEST_P(sockets, nothing_is_called_from_inside_send_or_close) {
    auto pair = talk();
    owned_send& op = pair->client.send("x");
    EXPECT_FALSE(op.finished);
    pair->client.connection->close();
    EXPECT_FALSE(op.finished);
    EXPECT_FALSE(pair->client.closed);
    hang_up(*pair);
}

TEST_P(sockets, megabytes_survive_partial_reads_and_pauses) {
    auto pair = talk();
    const std::string sent = pattern(3'000'000);
    pair->server.take_at_most = 10'007;
    pair->client.send(sent);
    ASSERT_TRUE(until([&] {
        if (pair->server.connection) pair->server.connection->resume_receive();
        return pair->server.received.size() == sent.size();
    }));
    EXPECT_TRUE(pair->server.received == sent);
    EXPECT_GT(pair->server.data_calls, 290);
    hang_up(*pair);
}

TEST_P(sockets, paused_connection_holds_its_peer_back) {
    auto pair = talk();
    pair->server.take_at_most = 1;
    std::string big = pattern(64 << 20);
    owned_send& op = pair->client.send(big);
    ASSERT_TRUE(until([&] { return pair->server.received.size() == 1; }));
    for (int i = 0; i < 100; ++i) loop->wait(world->now() + milliseconds);
    EXPECT_FALSE(op.finished);
    EXPECT_EQ(pair->server.received.size(), 1U);
    EXPECT_EQ(pair->server.data_calls, 1);
    pair->server.take_at_most = SIZE_MAX;
    pair->server.connection->resume_receive();
    ASSERT_TRUE(until([&] { return pair->server.received.size() == big.size(); }));
    EXPECT_TRUE(op.finished);
    EXPECT_TRUE(pair->server.received == big);
    hang_up(*pair);
}

TEST_P(sockets, leftover_is_offered_again_with_more_and_before_the_end) {
    auto pair = talk();
    pair->server.take_at_most = 2;
    pair->client.send("abcd");
    ASSERT_TRUE(until([&] { return pair->server.received == "ab"; }));
    pair->client.send("ef");
    for (int i = 0; i < 20; ++i) loop->wait(world->now() + milliseconds);
    pair->client.connection->close();
    ASSERT_TRUE(until([&] { return pair->client.closed; }));
    for (int i = 0; i < 20; ++i) loop->wait(world->now() + milliseconds);
    EXPECT_FALSE(pair->server.closed);
    EXPECT_EQ(pair->server.data_calls, 1);
    pair->server.take_at_most = SIZE_MAX;
    pair->server.connection->resume_receive();
    ASSERT_TRUE(until([&] { return pair->server.closed; }));
    EXPECT_EQ(pair->server.received, "abcdef");
    EXPECT_EQ(pair->server.reason, 0);
}

TEST_P(sockets, a_send_of_thousands_of_pieces_and_empty_ones) {
    auto pair = talk();
    const std::string sent = pattern(500'000);
    std::vector<iovec> pieces;
    for (std::size_t at = 0; at < sent.size();) {
        std::size_t length = std::min<std::size_t>(at % 173, sent.size() - at);  // 0 among them
        pieces.push_back({const_cast<char*>(sent.data()) + at, length});
        at += length == 0 ? 1 : length;
        if (length == 0) pieces.back() = {const_cast<char*>(sent.data()) + at - 1, 1};
        if (pieces.size() % 5 == 0) pieces.push_back({nullptr, 0});
    }
    ASSERT_GT(pieces.size(), 3000U);
    owned_send vectored(""), empty(""), none("");
    vectored.iov = pieces.data();
    vectored.iov_count = static_cast<uint32_t>(pieces.size());
    none.iov_count = 0;
    pair->client.connection->send(empty);
    pair->client.connection->send(vectored);
    pair->client.connection->send(none);
    ASSERT_TRUE(until([&] { return none.finished && pair->server.received.size() == sent.size(); }));
    EXPECT_TRUE(empty.finished && vectored.finished);
    EXPECT_TRUE(pair->server.received == sent);
    hang_up(*pair);
}

TEST_P(sockets, hundred_thousand_messages) {
    auto pair = talk();
    constexpr uint32_t count = 100'000, window = 500;
    uint32_t next = 0, done = 0;
    struct numbered : send_op {
        iovec vector;
        uint32_t number;
        uint32_t* done_so_far;
        bool busy;
    };
    std::vector<numbered> ops(window);
    for (numbered& op : ops) {
        op.busy = false;
        op.done_so_far = &done;
        op.done = [](send_op& finished) noexcept {
            auto& mine = static_cast<numbered&>(finished);
            EXPECT_EQ(mine.result, 0);
            EXPECT_EQ(mine.number, (*mine.done_so_far)++);
            mine.busy = false;
        };
    }
    ASSERT_TRUE(until([&] {
        for (; next < count && !ops[next % window].busy; ++next) {
            numbered& op = ops[next % window];
            op.number = next;
            op.vector = {&op.number, sizeof op.number};
            op.iov = &op.vector;
            op.iov_count = 1;
            op.busy = true;
            pair->client.connection->send(op);
        }
        return pair->server.received.size() == count * sizeof(uint32_t);
    }));
    for (uint32_t i = 0; i < count; ++i) {
        uint32_t got = 0;
        std::memcpy(&got, pair->server.received.data() + i * sizeof got, sizeof got);
        ASSERT_EQ(got, i);
    }
    hang_up(*pair);
    EXPECT_EQ(done, count);
}

TEST_P(sockets, two_hundred_connections_echo) {
    accepted_sockets accepted;
    auto listener = loop->listen({address::family::ipv4, "127.0.0.1", 0}, accepted);
    ASSERT_TRUE(listener);
    constexpr std::size_t count = 200;
    std::vector<connected_socket> connected(count);
    for (connected_socket& each : connected) loop->connect((*listener)->local(), each);
    std::deque<recorder> servers, clients;
    accepted.on_one = [&] {
        recorder& server = servers.emplace_back();
        server.attach(std::move(accepted.sockets.back()));
        server.on_bytes = [&server] {
            server.send(std::move(server.received));
            server.received.clear();
        };
    };
    ASSERT_TRUE(until([&] {
        return servers.size() == count && std::ranges::all_of(connected, [](auto& c) { return c.outcome.has_value(); });
    }));
    std::string message = pattern(20'000);
    for (connected_socket& each : connected) {
        ASSERT_TRUE(*each.outcome);
        clients.emplace_back().attach(std::move(**each.outcome));
        clients.back().send(message);
    }
    ASSERT_TRUE(until([&] {
        return std::ranges::all_of(clients, [&](recorder& c) { return c.received.size() == message.size(); });
    }));
    for (recorder& client : clients) {
        EXPECT_TRUE(client.received == message);
        client.connection->close();
    }
    ASSERT_TRUE(until([&] { return loop->in_flight() == 1; }));  // the listener
}

TEST_P(sockets, close_drops_what_is_queued_and_tells_each) {
    auto pair = talk();
    pair->server.take_at_most = 0;
    owned_send& stuck = pair->client.send(std::string(64 << 20, 'x'));
    owned_send& behind = pair->client.send("never");
    for (int i = 0; i < 20; ++i) loop->wait(world->now() + milliseconds);
    EXPECT_FALSE(stuck.finished);
    pair->client.connection->close();
    ASSERT_TRUE(until([&] { return pair->client.closed; }));
    EXPECT_EQ(stuck.result, -ECANCELED);
    EXPECT_EQ(behind.result, -ECANCELED);
    EXPECT_EQ(pair->client.reason, 0);
    pair->server.connection->close();
    ASSERT_TRUE(until([&] { return pair->server.closed; }));
}

TEST_P(sockets, both_sides_close_at_once_with_sends_queued) {
    auto pair = talk();
    pair->client.send(std::string(8 << 20, 'c'));
    pair->server.send(std::string(8 << 20, 's'));
    loop->poll();
    pair->client.connection->close();
    pair->server.connection->close();
    pair->server.connection->close();  // twice is once
    hang_up(*pair);
}

TEST_P(sockets, peer_that_vanishes_fails_the_sends) {
    auto pair = talk();
    pair->server.take_at_most = 0;
    owned_send& stuck = pair->client.send(std::string(64 << 20, 'x'));
    for (int i = 0; i < 20; ++i) loop->wait(world->now() + milliseconds);
    pair->server.connection->close();  // with bytes unread: a reset
    ASSERT_TRUE(until([&] { return pair->client.closed && pair->server.closed; }));
    EXPECT_LT(pair->client.reason, 0);
    EXPECT_EQ(stuck.result, pair->client.reason);
}

// A connection whose other end is a plain descriptor of the test.
struct half_pair {
    explicit half_pair(const address& to) : number(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
        auto name = numeric_name(to);
        EXPECT_EQ(::connect(number.get(), name->get(), name->length), 0);
    }
    descriptor number;
};

TEST_P(sockets, reset_by_the_peer_is_an_error) {
    accepted_sockets accepted;
    auto listener = loop->listen({address::family::ipv4, "127.0.0.1", 0}, accepted);
    half_pair peer((*listener)->local());
    ASSERT_TRUE(until([&] { return !accepted.sockets.empty(); }));
    recorder server;
    server.attach(std::move(accepted.sockets.front()));
    linger at_once{.l_onoff = 1, .l_linger = 0};
    ::setsockopt(peer.number.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    peer.number.reset();
    ASSERT_TRUE(until([&] { return server.closed; }));
    EXPECT_EQ(server.reason, -ECONNRESET);
}

TEST_P(sockets, peer_that_only_stopped_sending_gets_what_was_queued) {
    accepted_sockets accepted;
    auto listener = loop->listen({address::family::ipv4, "127.0.0.1", 0}, accepted);
    half_pair peer((*listener)->local());
    ASSERT_TRUE(until([&] { return !accepted.sockets.empty(); }));
    recorder server;
    server.attach(std::move(accepted.sockets.front()));
    const std::string answer = pattern(8 << 20);
    server.on_bytes = [&] { server.send(answer); };
    ASSERT_EQ(::send(peer.number.get(), "?", 1, 0), 1);
    ::shutdown(peer.number.get(), SHUT_WR);
    std::string got;
    std::thread reader([&] {
        char piece[65536];
        for (ssize_t count = 0; (count = ::recv(peer.number.get(), piece, sizeof piece, 0)) > 0;) {
            got.append(piece, static_cast<std::size_t>(count));
        }
    });
    EXPECT_TRUE(until([&] { return server.closed; }));
    reader.join();
    EXPECT_TRUE(got == answer);
    EXPECT_EQ(server.reason, 0);
}

TEST_P(sockets, connection_stays_for_a_peer_that_stopped_sending_if_wanted) {
    accepted_sockets accepted;
    auto listener = loop->listen({address::family::ipv4, "127.0.0.1", 0}, accepted);
    half_pair peer((*listener)->local());
    ASSERT_TRUE(until([&] { return !accepted.sockets.empty(); }));
    recorder server;
    server.stays = true;
    server.attach(std::move(accepted.sockets.front()));
    ASSERT_EQ(::send(peer.number.get(), "?", 1, 0), 1);
    ::shutdown(peer.number.get(), SHUT_WR);
    ASSERT_TRUE(until([&] { return server.peer_ended; }));
    for (int i = 0; i < 10; ++i) loop->wait(world->now() + milliseconds);
    ASSERT_FALSE(server.closed);
    owned_send& late = server.send("late answer");
    ASSERT_TRUE(until([&] { return late.finished; }));
    char got[32];
    EXPECT_EQ(::recv(peer.number.get(), got, sizeof got, 0), 11);
    server.connection->close();
    ASSERT_TRUE(until([&] { return server.closed; }));
    EXPECT_EQ(::recv(peer.number.get(), got, sizeof got, 0), 0);
}

TEST_P(sockets, close_from_inside_on_data) {
    auto pair = talk();
    pair->server.on_bytes = [&] {
        pair->server.send("too late");
        pair->server.connection->close();
        EXPECT_FALSE(pair->server.closed);
    };
    pair->client.send("hello");
    ASSERT_TRUE(until([&] { return pair->client.closed && pair->server.closed; }));
    EXPECT_EQ(pair->server.data_calls, 1);
}

TEST_P(sockets, sockets_that_were_never_started_may_go) {
    pair ends = connect_pair();
    ends.server.reset();
    recorder client;
    client.attach(std::move(ends.client));
    ASSERT_TRUE(until([&] { return client.closed; }));
    EXPECT_EQ(client.reason, 0);
}

TEST_P(sockets, bytes_sent_before_start_wait_for_it) {
    pair ends = connect_pair();
    recorder client, server;
    client.attach(std::move(ends.client));
    client.send("early");
    for (int i = 0; i < 10; ++i) loop->wait(world->now() + milliseconds);
    server.attach(std::move(ends.server));
    ASSERT_TRUE(until([&] { return server.received == "early"; }));
    client.connection->close();
    ASSERT_TRUE(until([&] { return client.closed && server.closed; }));
}

// More connections with bytes ready than the loop lends buffers for.
TEST_P(sockets, more_traffic_than_receive_buffers) {
    std::deque<both> pairs;
    accepted_sockets accepted;
    auto listener = loop->listen({address::family::ipv4, "127.0.0.1", 0}, accepted);
    const std::string message = pattern(400'000);
    std::vector<connected_socket> connected(40);
    for (connected_socket& each : connected) {
        loop->connect((*listener)->local(), each);
        ASSERT_TRUE(until([&] { return each.outcome && !accepted.sockets.empty(); }));
        both& pair = pairs.emplace_back();
        pair.server.attach(std::move(accepted.sockets.front()));
        pair.client.attach(std::move(**each.outcome));
        accepted.sockets.clear();
    }
    for (int round = 1; round <= 5; ++round) {
        for (both& pair : pairs) pair.client.send(message);
        ASSERT_TRUE(until([&] {
            return std::ranges::all_of(pairs, [&](both& p) { return p.server.received.size() == message.size(); });
        }));
        for (both& pair : pairs) {
            ASSERT_TRUE(pair.server.received == message);
            pair.server.received.clear();
        }
    }
    for (both& pair : pairs) hang_up(pair);
}

}  // namespace
}  // namespace varve::env::os_linux
