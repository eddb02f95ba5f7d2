// Listening, connecting, watching and waking, for each kind of loop; connections that move between loops.
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <limits>
#include <thread>

#include "env/linux/descriptor.h"
#include "env/linux/socket_setup.h"
#include "env/linux/test_loop.h"

namespace varve::env::os_linux {
namespace {

class listeners : public loop_test {};
INSTANTIATE_TEST_SUITE_P(loops, listeners, testing::ValuesIn(flavours), flavour_name);

const address any_port{address::family::ipv4, "127.0.0.1", 0};

TEST_P(listeners, port_is_told_and_taken) {
    accepted_sockets accepted;
    auto first = loop->listen(any_port, accepted);
    ASSERT_TRUE(first);
    EXPECT_NE((*first)->local().port, 0);
    EXPECT_EQ((*first)->local().host, "127.0.0.1");
    auto second = loop->listen((*first)->local(), accepted);
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code(), errc::address_in_use);
    EXPECT_TRUE(second.error().message().starts_with("Address already in use")) << second.error().message();
    address at = (*first)->local();
    first->reset();
    auto third = loop->listen(at, accepted);
    EXPECT_TRUE(third) << third.error().message();
}

TEST_P(listeners, ipv6_and_names) {
    accepted_sockets accepted;
    auto six = loop->listen({address::family::ipv6, "::1", 0}, accepted);
    if (!six) GTEST_SKIP() << "no IPv6 here: " << six.error().message();
    EXPECT_EQ((*six)->local().to_string(), "[::1]:" + std::to_string((*six)->local().port));
    connected_socket connected;
    loop->connect((*six)->local(), connected);
    ASSERT_TRUE(until([&] { return connected.outcome && !accepted.sockets.empty(); }));
    ASSERT_TRUE(*connected.outcome);
    EXPECT_EQ(accepted.sockets.front()->peer().host, "::1");

    auto four = loop->listen(any_port, accepted);
    connected_socket by_name;
    loop->connect({address::family::ipv4, "localhost", (*four)->local().port}, by_name);
    EXPECT_FALSE(by_name.outcome);
    ASSERT_TRUE(until([&] { return by_name.outcome.has_value(); }));
    EXPECT_TRUE(*by_name.outcome) << by_name.outcome->error().message();
    ASSERT_TRUE(until([&] { return accepted.sockets.size() == 2; }));
}

TEST_P(listeners, failures_to_connect_are_told_later) {
    accepted_sockets accepted;
    auto listener = loop->listen(any_port, accepted);
    address nobody = (*listener)->local();
    listener->reset();
    loop->wait(world->now() + milliseconds);
    connected_socket refused, unresolved, no_file, too_long;
    loop->connect(nobody, refused);
    loop->connect({address::family::ipv4, "no such host", 1}, unresolved);
    loop->connect({address::family::unix_path, "/nonexistent/socket", 0}, no_file);
    loop->connect({address::family::unix_path, std::string(200, 'x'), 0}, too_long);
    EXPECT_FALSE(refused.outcome || unresolved.outcome || no_file.outcome || too_long.outcome);
    ASSERT_TRUE(until([&] { return refused.outcome && unresolved.outcome && no_file.outcome && too_long.outcome; }));
    EXPECT_EQ(refused.outcome->error().code(), errc::refused);
    EXPECT_EQ(unresolved.outcome->error().code(), errc::not_found);
    EXPECT_EQ(no_file.outcome->error().code(), errc::not_found);
    EXPECT_EQ(too_long.outcome->error().code(), errc::invalid);
}

TEST_P(listeners, unix_socket_is_private_and_goes_with_its_listener) {
    scratch_folder folder;
    accepted_sockets accepted;
    address at{address::family::unix_path, folder / "rpc.sock", 0};
    auto listener = loop->listen(at, accepted);
    ASSERT_TRUE(listener) << listener.error().message();
    struct stat about = {};
    ASSERT_EQ(::stat(at.host.c_str(), &about), 0);
    EXPECT_EQ(about.st_mode & 07777, 0600U);

    auto second = loop->listen(at, accepted);
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code(), errc::address_in_use);

    connected_socket connected;
    loop->connect(at, connected);
    ASSERT_TRUE(until([&] { return connected.outcome && !accepted.sockets.empty(); }));
    recorder client, server;
    client.attach(std::move(**connected.outcome));
    server.attach(std::move(accepted.sockets.front()));
    EXPECT_EQ(server.connection->local(), at);
    client.send("over a path");
    ASSERT_TRUE(until([&] { return server.received == "over a path"; }));

    listener->reset();
    EXPECT_NE(::stat(at.host.c_str(), &about), 0);
    EXPECT_NE(::stat((at.host + ".lock").c_str(), &about), 0);
    EXPECT_TRUE(loop->listen(at, accepted));
    client.connection->close();
    ASSERT_TRUE(until([&] { return client.closed && server.closed; }));
}

// What a process that was killed leaves behind, and what is somebody else's.
TEST_P(listeners, stale_unix_socket_is_replaced_and_a_live_or_foreign_file_is_not) {
    scratch_folder folder;
    accepted_sockets accepted;
    address at{address::family::unix_path, folder / "rpc.sock", 0};
    auto name = numeric_name(at);
    descriptor other(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::bind(other.get(), name->get(), name->length), 0);
    ASSERT_EQ(::listen(other.get(), 1), 0);
    auto live = loop->listen(at, accepted);
    ASSERT_FALSE(live);
    EXPECT_EQ(live.error().code(), errc::address_in_use);
    other.reset();
    auto stale = loop->listen(at, accepted);
    EXPECT_TRUE(stale) << stale.error().message();

    std::string file = folder / "file";
    ASSERT_TRUE(world->write_text(file, "precious"));
    auto foreign = loop->listen({address::family::unix_path, file, 0}, accepted);
    ASSERT_FALSE(foreign);
    EXPECT_EQ(foreign.error().code(), errc::exists);
    EXPECT_EQ(*world->read_text(file), "precious");
    auto folderless = loop->listen({address::family::unix_path, folder / "no/such", 0}, accepted);
    ASSERT_FALSE(folderless);
    EXPECT_EQ(folderless.error().code(), errc::not_found);
}

// A killed process's io_uring keeps its listening socket open for a moment: somebody answers who is no more.
TEST_P(listeners, socket_that_outlives_its_process_is_replaced) {
    scratch_folder folder;
    accepted_sockets accepted;
    address at{address::family::unix_path, folder / "rpc.sock", 0};
    auto name = numeric_name(at);
    descriptor kept(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::bind(kept.get(), name->get(), name->length), 0);
    int until_told[2];
    int listening[2];
    ASSERT_EQ(::pipe2(until_told, O_CLOEXEC), 0);
    ASSERT_EQ(::pipe2(listening, O_CLOEXEC), 0);
    descriptor told(until_told[0]), tell(until_told[1]), heard(listening[0]), hear(listening[1]);
    const pid_t other = ::fork();
    if (other == 0) {  // whoever listens is whom a client sees at the other end
        char byte = 0;
        if (::listen(kept.get(), 8) == 0 && ::write(hear.get(), &byte, 1) == 1) (void)!::read(told.get(), &byte, 1);
        ::_exit(0);
    }
    ASSERT_GT(other, 0);
    char byte = 0;
    ASSERT_EQ(::read(heard.get(), &byte, 1), 1);
    auto live = loop->listen(at, accepted);
    ASSERT_FALSE(live);
    EXPECT_EQ(live.error().code(), errc::address_in_use);

    ASSERT_EQ(::write(tell.get(), &byte, 1), 1);
    siginfo_t ended = {};
    ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(other), &ended, WEXITED | WNOWAIT), 0);
    auto zombie = loop->listen(at, accepted);
    EXPECT_TRUE(zombie) << zombie.error().message();
    ASSERT_EQ(::waitpid(other, nullptr, 0), other);
}

TEST_P(listeners, destroyed_from_inside_on_accept) {
    accepted_sockets accepted;
    auto listener = loop->listen(any_port, accepted);
    accepted.on_one = [&] { listener->reset(); };
    std::vector<connected_socket> connected(5);
    for (connected_socket& each : connected) loop->connect((*listener)->local(), each);
    ASSERT_TRUE(until([&] { return std::ranges::all_of(connected, [](auto& c) { return c.outcome.has_value(); }); }));
    for (int i = 0; i < 10; ++i) loop->wait(world->now() + milliseconds);
    EXPECT_EQ(accepted.sockets.size(), 1U);
}

TEST_P(listeners, storm_of_connections) {
    accepted_sockets accepted;
    auto listener = loop->listen(any_port, accepted);
    ASSERT_TRUE(listener);
    constexpr std::size_t count = 600;
    std::thread storm([&, to = numeric_name((*listener)->local())] {
        for (std::size_t i = 0; i < count; ++i) {
            descriptor each(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
            EXPECT_EQ(::connect(each.get(), to->get(), to->length), 0);
        }
    });
    std::size_t seen = 0;
    EXPECT_TRUE(until([&] {
        seen += accepted.sockets.size();
        accepted.sockets.clear();
        return seen == count;
    }));
    storm.join();
}

// The table of descriptors is full: the peer is told by an end, the listener lives and does not spin.
TEST_P(listeners, refuses_when_there_are_no_descriptors) {
    rlimit before = {};
    ::getrlimit(RLIMIT_NOFILE, &before);
    rlimit low{.rlim_cur = 256, .rlim_max = before.rlim_max};
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &low), 0);  // first: io_uring's accept keeps the limit it was asked under
    accepted_sockets accepted;
    auto listener = loop->listen(any_port, accepted);
    loop->wait(world->now() + milliseconds);
    descriptor peer(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    auto to = numeric_name((*listener)->local());
    std::vector<descriptor> fill;
    for (;;) {
        fill.emplace_back(::dup(0));
        if (!fill.back()) break;
    }
    ASSERT_EQ(::connect(peer.get(), to->get(), to->length), 0);
    timeval patience{.tv_sec = 0, .tv_usec = 1000};
    ::setsockopt(peer.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    char byte = 0;
    ssize_t got = -1;
    EXPECT_TRUE(until([&] {
        got = ::recv(peer.get(), &byte, 1, 0);
        return got == 0 || errno == ECONNRESET;
    }));
    int turns = 0;
    for (time_ns end = world->now() + 20 * milliseconds; world->now() < end; ++turns) loop->wait(end);
    EXPECT_LT(turns, 20);
    fill.clear();
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
    EXPECT_TRUE(accepted.sockets.empty());
    connected_socket connected;
    loop->connect((*listener)->local(), connected);
    EXPECT_TRUE(until([&] { return connected.outcome && accepted.sockets.size() == 1; }));
}

TEST_P(listeners, watch_calls_while_readable_and_may_go_from_inside) {
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    descriptor read_end(ends[0]), write_end(ends[1]);
    struct counting : work {
        int calls = 0;
        std::unique_ptr<watch> mine;
        bool stop = false;
    } counted;
    counted.run = [](work& self) noexcept {
        auto& me = static_cast<counting&>(self);
        ++me.calls;
        if (me.stop) me.mine.reset();
    };
    auto made = loop->watch_readable(read_end.get(), counted);
    ASSERT_TRUE(made);
    counted.mine = std::move(*made);
    EXPECT_FALSE(loop->wait(world->now() + 5 * milliseconds));
    EXPECT_EQ(counted.calls, 0);
    ASSERT_EQ(::write(write_end.get(), "x", 1), 1);
    ASSERT_TRUE(until([&] { return counted.calls == 3; }));  // nobody reads: it stays readable
    counted.stop = true;
    ASSERT_TRUE(until([&] { return counted.calls == 4; }));
    for (int i = 0; i < 5; ++i) loop->wait(world->now() + milliseconds);
    EXPECT_EQ(counted.calls, 4);
}

TEST_P(listeners, wake_ends_a_wait_and_is_remembered) {
    loop->wake();
    time_ns began = world->now();
    loop->wait(began + 5 * seconds);
    EXPECT_LT(world->now() - began, seconds);
    for (int i = 0; i < 100; ++i) {
        std::atomic<bool> woken = false;
        std::thread waker([&] {
            woken = true;
            loop->wake();
        });
        loop->wait(std::numeric_limits<time_ns>::max());
        EXPECT_TRUE(woken);
        waker.join();
    }
}

TEST_P(listeners, wait_keeps_its_deadline) {
    loop->poll();
    time_ns began = world->now();
    EXPECT_FALSE(loop->wait(began + 20 * milliseconds));
    EXPECT_GE(world->now() - began, 20 * milliseconds);
    EXPECT_LT(world->now() - began, 2 * seconds);
    EXPECT_FALSE(loop->wait(began));  // past
    EXPECT_FALSE(loop->poll());
}

// Accepted on one OS thread, served on another.
TEST_P(listeners, connections_move_to_the_loop_of_another_thread) {
    auto elsewhere = world->make_loop();
    ASSERT_TRUE(elsewhere);
    std::atomic<detached_socket*> moving = nullptr;
    std::atomic<bool> served = false;
    std::thread server_thread([&] {
        env::loop& there = **elsewhere;
        recorder server;
        EXPECT_TRUE(turn_until(*world, there, [&] { return moving.load() != nullptr; }));
        auto adopted = there.adopt(std::unique_ptr<detached_socket>(moving.exchange(nullptr)));
        ASSERT_TRUE(adopted);
        EXPECT_EQ((*adopted)->local().host, "127.0.0.1");
        server.attach(std::move(*adopted));
        server.on_bytes = [&] {
            server.send(std::move(server.received));
            server.received.clear();
        };
        EXPECT_TRUE(turn_until(*world, there, [&] { return server.closed; }));
        served = true;
    });
    pair ends = connect_pair();
    recorder client;
    client.attach(std::move(ends.client));
    client.send("echo");
    moving = loop->detach(std::move(ends.server)).release();
    (*elsewhere)->wake();
    EXPECT_TRUE(until([&] { return client.received == "echo"; }));
    client.connection->close();
    EXPECT_TRUE(until([&] { return client.closed; }));
    server_thread.join();
    EXPECT_TRUE(served);
    // A detached connection that nobody adopts is closed.
    pair others = connect_pair();
    recorder orphan;
    orphan.attach(std::move(others.client));
    loop->detach(std::move(others.server)).reset();
    EXPECT_TRUE(until([&] { return orphan.closed; }));
}

// Loops are made before their threads run.
TEST_P(listeners, loop_made_here_and_run_there) {
    auto made = world->make_loop();
    accepted_sockets accepted;
    auto listener = (*made)->listen(any_port, accepted);
    const address at = (*listener)->local();
    std::thread other([&] {
        EXPECT_TRUE(turn_until(*world, **made, [&] { return !accepted.sockets.empty(); }));
        accepted.sockets.clear();
        listener->reset();
        made->reset();
    });
    connected_socket connected;
    loop->connect(at, connected);
    EXPECT_TRUE(until([&] { return connected.outcome.has_value(); }));
    other.join();
}

}  // namespace
}  // namespace varve::env::os_linux
