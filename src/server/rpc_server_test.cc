// The server over real Unix sockets, with blocking clients on threads of their own.
#include "server/rpc_server.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <functional>
#include <thread>

#include "thread/awaits.h"
#include "thread/sync.h"
#include "thread/test_world.h"

namespace varve::server {
namespace {

class client {
  public:
    explicit client(const std::string& path) {
        sockaddr_un name{};
        name.sun_family = AF_UNIX;
        std::memcpy(name.sun_path, path.data(), path.size());
        _s = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        EXPECT_EQ(::connect(_s, reinterpret_cast<sockaddr*>(&name), sizeof name), 0) << std::strerror(errno);
        timeval limit{20, 0};
        ::setsockopt(_s, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
        ::setsockopt(_s, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    }
    ~client() { ::close(_s); }
    // False when the server has closed.
    bool send(std::string_view bytes) {
        while (!bytes.empty()) {
            ssize_t n = ::send(_s, bytes.data(), bytes.size(), MSG_NOSIGNAL);
            if (n <= 0) return false;
            bytes.remove_prefix(static_cast<std::size_t>(n));
        }
        return true;
    }
    void end_sending() { ::shutdown(_s, SHUT_WR); }
    std::string line() {
        for (;;) {
            if (auto end = _read.find('\n'); end != std::string::npos) {
                std::string out = _read.substr(0, end);
                _read.erase(0, end + 1);
                return out;
            }
            char bytes[4096];
            ssize_t n = ::recv(_s, bytes, sizeof bytes, 0);
            // A connection that is closed with something unread in it is reset.
            if (n <= 0) return n == 0 || errno == ECONNRESET ? "<closed>" : "<nothing>";
            _read.append(bytes, static_cast<std::size_t>(n));
        }
    }
    std::string ask(std::string_view request) { return send(request) ? line() : "<not sent>"; }

  private:
    int _s = -1;
    std::string _read;
};

class rpc_over_sockets : public thread::in_every_world {
  protected:
    // Serves "echo", "slow" (50 ms) and "big" (1 MiB) while `clients` runs on another OS thread.
    void serve(std::function<void(const std::string& path)> clients) {
        thread::system_of system(GetParam(), 1);
        system.run(serve_until(std::move(clients)));
    }
    void TearDown() override { std::filesystem::remove(path); }

    static task<json::value> call(std::string method, json::value params) {
        if (method == "slow") co_await sleep(50 * milliseconds);
        if (method == "big") co_return std::string(std::size_t{1} << 20, 'x');
        co_return params;
    }
    task<> serve_until(std::function<void(const std::string& path)> clients) {
        thread::thread& home = thread::here();
        log lines([](const log::line&) {});
        rpc_server server(home, lines.component("rpc"),
                          [](std::string_view m, json::value p) { return call(std::string(m), std::move(p)); });
        co_await server.listen(path);
        event done;
        std::thread others([&] {
            clients(path);
            home.post([&] { done.set(); });
        });
        co_await done.wait();
        others.join();
        co_await server.stop();
        EXPECT_FALSE(std::filesystem::exists(path));
    }

    const std::string path =
        (std::filesystem::temp_directory_path() / ("varve_rpc." + std::to_string(::getpid()) + ".sock")).string();
};
INSTANTIATE_TEST_SUITE_P(worlds, rpc_over_sockets, thread::every_world(), thread::world_name);

const char* const echo = R"({"id":1,"method":"echo","params":{"a":1}})";
const char* const echoed = R"({"jsonrpc":"2.0","id":1,"result":{"a":1}})";

TEST_P(rpc_over_sockets, answers_only_its_owner) {
    serve([](const std::string& at) {
        client c(at);
        EXPECT_EQ(c.ask(echo), echoed);
        struct stat s{};
        EXPECT_EQ(::stat(at.c_str(), &s), 0);
        EXPECT_EQ(s.st_mode & 0777u, 0600u);
    });
}

TEST_P(rpc_over_sockets, a_second_server_is_refused) {
    serve([](const std::string& at) {
        thread::system_of second(GetParam(), 1);
        second.run([](const std::string& same) -> task<> {
            log lines([](const log::line&) {});
            rpc_server server(thread::here(), lines.component("rpc"),
                              [](std::string_view m, json::value p) { return call(std::string(m), std::move(p)); });
            auto outcome = server.listen(same);
            EXPECT_EQ(outcome ? errc::ok : outcome.error().code(), errc::address_in_use);
            co_return;
        }(at));
        EXPECT_EQ(client(at).ask(echo), echoed);
    });
}

TEST_P(rpc_over_sockets, bad_clients_are_their_own_problem) {
    serve([](const std::string& at) {
        client half(at), silent(at), nested(at), binary(at), deaf(at), good(at);
        EXPECT_TRUE(half.send(R"({"id":1,"method":"ec)"));
        std::string deep(100'000'000, '[');
        nested.send(deep);
        EXPECT_TRUE(nested.line().starts_with(R"({"jsonrpc":"2.0","id":null,"error":{"code":-32700)"));
        EXPECT_EQ(nested.line(), "<closed>");
        EXPECT_TRUE(binary.ask(std::string_view("\0\xff\xfe", 3))
                        .starts_with(R"({"jsonrpc":"2.0","id":null,"error":{"code":-32700)"));
        for (int i = 0; i < 20; ++i) EXPECT_TRUE(deaf.send(R"({"id":1,"method":"big"})"));  // and never reads
        {
            client gone(at);
            gone.send(R"({"id":1,"method":"slow"})");
        }
        EXPECT_EQ(good.ask(echo), echoed);
        EXPECT_EQ(half.ask(R"(ho","params":{"a":1}})"), echoed);
    });
}

TEST_P(rpc_over_sockets, a_client_that_ended_its_sending_is_answered) {
    serve([](const std::string& at) {
        client c(at);
        c.send(R"({"id":1,"method":"slow"})");
        c.end_sending();
        EXPECT_EQ(c.line(), R"({"jsonrpc":"2.0","id":1,"result":null})");
        EXPECT_EQ(c.line(), "<closed>");
        client idle(at);
        idle.end_sending();
        EXPECT_EQ(idle.line(), "<closed>");
    });
}

TEST_P(rpc_over_sockets, many_requests_on_many_connections) {
    serve([](const std::string& at) {
        std::vector<std::thread> all;
        std::atomic<int> answered = 0;
        for (int n = 0; n < 16; ++n) {
            all.emplace_back([&] {
                client c(at);
                std::string requests;
                for (int i = 0; i < 500; ++i) requests += echo;
                EXPECT_TRUE(c.send(requests));
                for (int i = 0; i < 500; ++i) answered += c.line() == echoed;
            });
        }
        for (std::thread& t : all) t.join();
        EXPECT_EQ(answered, 16 * 500);
    });
}

TEST_P(rpc_over_sockets, large_replies_and_requests) {
    serve([](const std::string& at) {
        client c(at);
        EXPECT_EQ(c.ask(R"({"id":1,"method":"big"})").size(), (std::size_t{1} << 20) + 36);
        std::string big = R"({"id":1,"method":"echo","params":[")" + std::string(std::size_t{5} << 20, 'y') + "\"]}";
        EXPECT_EQ(c.ask(big).size(), (std::size_t{5} << 20) + 38);
        client too_big(at);
        std::string huge = R"({"id":1,"method":"echo","params":[")" + std::string(std::size_t{33} << 20, 'y') + "\"]}";
        too_big.send(huge);
        EXPECT_EQ(
            too_big.line(),
            R"({"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"Parse error: The document is too large."}})");
    });
}

TEST_P(rpc_over_sockets, connections_are_bounded) {
    serve([](const std::string& at) {
        std::vector<std::unique_ptr<client>> all;
        for (std::size_t i = 0; i < rpc_server::max_connections; ++i) {
            all.push_back(std::make_unique<client>(at));
            EXPECT_EQ(all.back()->ask(echo), echoed);
        }
        EXPECT_EQ(client(at).line(), "<closed>");
        all.pop_back();
        for (int tries = 0; tries < 1000; ++tries) {
            client again(at);
            if (again.ask(echo) == echoed) return;
        }
        ADD_FAILURE() << "a free place is not given again";
    });
}

}  // namespace
}  // namespace varve::server
