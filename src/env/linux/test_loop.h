// What the tests of this folder share: a loop of each kind, driven by hand, and connections that note what happens.
#pragma once

#include <gtest/gtest.h>
#include <sys/uio.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <deque>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "env/linux/make_system.h"

namespace varve::env::os_linux {

struct flavour {
    const char* name;
    options how;
};
inline const flavour flavours[] = {
    {"io_uring", {.kind = loop_kind::io_uring}},
    {"io_uring_plain_buffers", {.kind = loop_kind::io_uring, .incremental_receive = false}},
    {"epoll", {.kind = loop_kind::epoll}},
};
inline std::string flavour_name(const testing::TestParamInfo<flavour>& info) { return info.param.name; }

inline int open_descriptors() {
    int count = 0;
    for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) ++count;
    return count;
}

// A directory of the test's own, removed at its end.
class scratch_folder {
  public:
    scratch_folder() {
        std::string pattern = (std::filesystem::temp_directory_path() / "varve_test.XXXXXX").string();
        EXPECT_NE(::mkdtemp(pattern.data()), nullptr);
        _path = pattern;
    }
    ~scratch_folder() { std::filesystem::remove_all(_path); }
    std::string operator/(const std::string& name) const { return (_path / name).string(); }

  private:
    std::filesystem::path _path;
};

// Turns the loop until the condition holds; false after ten seconds.
inline bool turn_until(env::system& world, env::loop& loop, const std::function<bool()>& condition) {
    time_ns give_up = world.now() + 10 * seconds;
    while (!condition()) {
        if (world.now() > give_up) return false;
        loop.wait(std::min(give_up, world.now() + 100 * milliseconds));
    }
    return true;
}

// A send that owns its bytes.
struct owned_send : send_op {
    explicit owned_send(std::string what) : bytes(std::move(what)) {
        vector = {bytes.data(), bytes.size()};
        iov = &vector;
        iov_count = 1;
        done = [](send_op& op) noexcept { static_cast<owned_send&>(op).finished = true; };
    }
    std::string bytes;
    iovec vector = {};
    bool finished = false;
};

// A connection that collects what it receives.
class recorder final : public socket_handler {
  public:
    void attach(std::unique_ptr<env::socket> s) {
        connection = std::move(s);
        connection->start(*this);
    }
    owned_send& send(std::string bytes) {
        owned_send& op = sends.emplace_back(std::move(bytes));
        connection->send(op);
        return op;
    }
    std::size_t on_data(std::span<const std::byte> bytes) noexcept override {
        EXPECT_FALSE(closed);
        largest_offer = std::max(largest_offer, bytes.size());
        std::size_t count = std::min(bytes.size(), take_at_most);
        received.append(reinterpret_cast<const char*>(bytes.data()), count);
        ++data_calls;
        if (on_bytes) on_bytes();
        return count;
    }
    void on_batch_end() noexcept override {
        EXPECT_FALSE(closed);
        ++batch_ends;
    }
    bool on_peer_end() noexcept override {
        EXPECT_FALSE(peer_ended);
        peer_ended = true;
        return !stays;
    }
    void on_closed(int why) noexcept override {
        EXPECT_FALSE(closed);
        for (owned_send& each : sends) EXPECT_TRUE(each.finished);
        closed = true;
        reason = why;
        if (destroy_when_closed) connection.reset();
    }

    std::unique_ptr<env::socket> connection;
    std::deque<owned_send> sends;
    std::string received;
    std::function<void()> on_bytes;
    std::size_t take_at_most = SIZE_MAX;
    std::size_t largest_offer = 0;
    int data_calls = 0, batch_ends = 0;
    bool closed = false, destroy_when_closed = true;
    bool peer_ended = false, stays = false;
    int reason = 1;
};

struct accepted_sockets final : accept_handler {
    void on_accept(std::unique_ptr<env::socket> connection) noexcept override {
        sockets.push_back(std::move(connection));
        if (on_one) on_one();
    }
    std::deque<std::unique_ptr<env::socket>> sockets;
    std::function<void()> on_one;
};

struct connected_socket final : connect_handler {
    void on_connect(result<std::unique_ptr<env::socket>> result) noexcept override {
        EXPECT_FALSE(outcome.has_value());
        outcome.emplace(std::move(result));
    }
    std::optional<result<std::unique_ptr<env::socket>>> outcome;
};

class loop_test : public testing::TestWithParam<flavour> {
  protected:
    void SetUp() override {
        world = make_system(GetParam().how);
        descriptors_before = open_descriptors();
        auto made = world->make_loop();
        ASSERT_TRUE(made) << made.error().message();
        loop = std::move(*made);
    }
    void TearDown() override {
        if (loop) EXPECT_TRUE(until([this] { return loop->in_flight() == 0; })) << loop->in_flight();
        loop.reset();
        EXPECT_EQ(open_descriptors(), descriptors_before);
    }
    bool until(const std::function<bool()>& condition) { return turn_until(*world, *loop, condition); }
    // A connected pair over TCP (or the Unix path), neither started.
    struct pair {
        std::unique_ptr<env::socket> client, server;
    };
    pair connect_pair(const address& at = {address::family::ipv4, "127.0.0.1", 0}) {
        accepted_sockets accepted;
        connected_socket connected;
        auto listener = loop->listen(at, accepted);
        EXPECT_TRUE(listener) << listener.error().message();
        loop->connect((*listener)->local(), connected);
        EXPECT_TRUE(until([&] { return connected.outcome && !accepted.sockets.empty(); }));
        EXPECT_TRUE(*connected.outcome) << connected.outcome->error().message();
        return {std::move(**connected.outcome), std::move(accepted.sockets.front())};
    }

    std::unique_ptr<env::system> world;
    std::unique_ptr<env::loop> loop;
    int descriptors_before = 0;
};

}  // namespace varve::env::os_linux
