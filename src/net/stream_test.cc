// Streams and listeners in every world: each test has both ends in one system.
#include "net/stream.h"

#include <string>

#include "net/listener.h"
#include "thread/awaits.h"
#include "thread/gate.h"
#include "thread/sync.h"
#include "thread/test_world.h"

namespace varve::net {
namespace {

using thread::here;
using thread::system_of;
using thread::unexpected;
using thread::world_kind;

class streams : public thread::in_every_world {};
INSTANTIATE_TEST_SUITE_P(worlds, streams, thread::every_world(), thread::world_name);

using conversation = task<> (*)(stream& client, stream& server);

task<> connected(conversation body) {
    listener doors = co_await listener::open({env::address::family::ipv4, "127.0.0.1", 0});
    stream client = co_await connect(doors.local());
    stream server = co_await doors.accept();
    EXPECT_EQ(client.peer(), doors.local());
    co_await body(client, server);
}

// Runs a body with the two ends of a connection.
void with_pair(world_kind world, conversation body) {
    system_of s(world, 1);
    s.run(connected(body));
}

std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }
std::span<std::byte> room_of(std::string& text) { return std::as_writable_bytes(std::span(text)); }

// Coroutines are named functions: a lambda that captures must outlive its frame.
task<> talk(stream& client, stream& server) {
    co_await client.write(bytes_of("hello, "));
    std::string first = "wor", second = "ld";
    iovec pieces[] = {{first.data(), first.size()}, {second.data(), second.size()}};
    co_await client.write(std::span<const iovec>(pieces));
    std::string got(12, ' ');
    co_await server.read_exactly(room_of(got));
    EXPECT_EQ(got, "hello, world");
    co_await server.write(bytes_of("answer"));
    std::string answer;
    while (answer.size() < 6) {
        std::string piece(100, ' ');
        std::size_t count = co_await client.read_some(room_of(piece));
        EXPECT_GT(count, 0U);
        answer.append(piece, 0, count);
    }
    EXPECT_EQ(answer, "answer");
    EXPECT_EQ(co_await client.read_some({}), 0U);
}

TEST_IN_WORLDS(streams, both_ends_talk) { with_pair(GetParam(), talk); }

task<> write_much(stream& to, const std::string& what) { co_await to.write(bytes_of(what)); }

// The writer is held back by a reader that takes little.
task<> much(stream& client, stream& server) {
    std::string sent(100'000, '\0');
    for (std::size_t i = 0; i < sent.size(); ++i) sent[i] = static_cast<char>(i * 31 + (i >> 8));
    gate writers;
    writers.spawn(write_much(client, sent), unexpected);
    std::string got(sent.size(), ' ');
    std::size_t have = 0;
    for (std::size_t step = 1; have < got.size(); step = step * 3 % 65521) {
        std::size_t wanted = std::min(step, got.size() - have);
        have += co_await server.read_some(room_of(got).subspan(have, wanted));
    }
    EXPECT_TRUE(got == sent);
    co_await writers.close();
}

TEST_IN_WORLDS(streams, much_in_pieces) { with_pair(GetParam(), much); }

task<> early_end(stream& client, stream& server) {
    co_await client.write(bytes_of("half"));
    client.close();
    std::string got(8, ' ');
    auto outcome = co_await as_result(server.read_exactly(room_of(got)));
    EXPECT_FALSE(outcome);
    EXPECT_EQ(outcome.error().code(), errc::reset);
    EXPECT_EQ(got.substr(0, 4), "half");
    EXPECT_EQ(co_await server.read_some(room_of(got)), 0U);  // ended is ended
}

TEST_IN_WORLDS(streams, end_of_the_peer_is_told_after_its_bytes) { with_pair(GetParam(), early_end); }

task<> read_into(stream& from, errc& outcome) {
    std::string room(8, ' ');
    auto got = co_await as_result(from.read_some(room_of(room)));
    outcome = got ? errc::ok : got.error().code();
}

task<> closed_while_reading(stream& client, stream&) {
    errc outcome = errc::ok;
    gate readers;
    readers.spawn(read_into(client, outcome), unexpected);
    client.close();
    co_await readers.close();
    EXPECT_EQ(outcome, errc::cancelled);
    auto after = co_await as_result(client.write(bytes_of("x")));
    EXPECT_FALSE(after);
    EXPECT_EQ(after.error().code(), errc::cancelled);
}

TEST_IN_WORLDS(streams, close_ends_a_read) { with_pair(GetParam(), closed_while_reading); }

task<> destroyed_while_reading(stream& client, stream& server) {
    errc outcome = errc::ok;
    gate readers;
    {
        stream mine = std::move(client);
        readers.spawn(read_into(mine, outcome), unexpected);
    }
    co_await readers.close();
    EXPECT_EQ(outcome, errc::cancelled);
    std::string room(1, ' ');
    EXPECT_EQ(co_await server.read_some(room_of(room)), 0U);
}

TEST_IN_WORLDS(streams, a_stream_may_go_while_it_is_read) { with_pair(GetParam(), destroyed_while_reading); }

task<> refused() {
    env::address nobody;
    {
        listener doors = co_await listener::open({env::address::family::ipv4, "127.0.0.1", 0});
        nobody = doors.local();
    }
    co_await sleep(milliseconds);
    auto outcome = co_await as_result(connect(nobody));
    EXPECT_FALSE(outcome);
    EXPECT_EQ(outcome.error().code(), errc::refused);
    EXPECT_NE(outcome.error().message().find(nobody.to_string()), std::string::npos);
}

TEST_IN_WORLDS(streams, refusal_names_the_address) {
    system_of s(GetParam(), 1);
    s.run(refused());
}

task<> accept_one(listener& doors, errc& outcome) {
    auto got = co_await as_result(doors.accept());
    outcome = got ? errc::ok : got.error().code();
}

task<> listener_goes() {
    errc outcome = errc::ok;
    gate waiting;
    {
        listener doors = co_await listener::open({env::address::family::ipv4, "127.0.0.1", 0});
        waiting.spawn(accept_one(doors, outcome), unexpected);
        auto second = listener::open(doors.local());
        EXPECT_FALSE(second);
        EXPECT_EQ(second.error().code(), errc::address_in_use);
    }
    co_await waiting.close();
    EXPECT_EQ(outcome, errc::cancelled);
}

TEST_IN_WORLDS(streams, listener_may_go_while_accept_waits) {
    system_of s(GetParam(), 1);
    s.run(listener_goes());
}

}  // namespace
}  // namespace varve::net
