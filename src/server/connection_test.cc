// Everything a client can do to a connection, with a scripted client in place of a socket.
#include "server/connection.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "server/rpc_server.h"
#include "server/scripted_client.h"
#include "thread/awaits.h"
#include "thread/sync.h"
#include "thread/test_world.h"

namespace varve::server {
namespace {

struct one_client {
    thread::system_of system{thread::world_kind::epoll, 1};
    log lines{[](const log::line&) {}};
    event go;
    std::size_t running = 0, most_running = 0;
    scripted_client client;

    // A method "echo" that answers its parameters, "slow" that waits for `go`, "fail", and "big" that answers a lot.
    task<json::value> call(std::string method, json::value params) {
        if (method == "slow") {
            most_running = std::max(most_running, ++running);
            co_await go.wait();
            --running;
            co_return "slow";
        }
        if (method == "fail") co_return fail(errc::no_device, "gone");
        if (method == "big") co_return std::string(std::size_t{1} << 20, 'x');
        co_return params;
    }

    void run(std::function<task<>(one_client&, rpc_server&)> body) { system.run(drive(std::move(body))); }
    task<> drive(std::function<task<>(one_client&, rpc_server&)> body) {
        rpc_server server(thread::here(), lines.component("rpc"),
                          [this](std::string_view m, json::value p) { return call(std::string(m), std::move(p)); });
        server.on_accept(client.socket());
        co_await body(*this, server);
        go.set();
        client.turn();
        client.hang_up(0);
        co_await server.stop();
    }

    // What comes back for these bytes, sent in pieces of any size.
    static std::string answer(std::string_view bytes, std::size_t piece = 1 << 20) {
        one_client c;
        c.run([&](one_client& self, rpc_server&) -> task<> {
            for (std::size_t at = 0; at < bytes.size(); at += piece) self.client.send(bytes.substr(at, piece));
            self.client.turn();
            co_return;
        });
        return c.client.received + (c.client.close_asked ? "<closed>" : "");
    }
};

TEST(rpc_connection, answers) {
    const std::string text =
        R"({"jsonrpc":"2.0","id":1,"method":"echo","params":{"a":1}} {"id":"x","method":"echo"})"
        R"({"method":"fail","id":3}{"method":"echo"}{"method":"fail"}{"id":4.5,"method":"echo","params":[null]})";
    const std::string expected = R"({"jsonrpc":"2.0","id":1,"result":{"a":1}}
{"jsonrpc":"2.0","id":"x","result":null}
{"jsonrpc":"2.0","id":3,"error":{"code":-19,"message":"No such device: gone"}}
{"jsonrpc":"2.0","id":null,"error":{"code":-19,"message":"No such device: gone"}}
{"jsonrpc":"2.0","id":4.5,"result":[null]}
)";
    for (std::size_t piece : {1u, 2u, 7u, 1000u}) EXPECT_EQ(one_client::answer(text, piece), expected) << piece;
}

TEST(rpc_connection, invalid_requests) {
    const std::string invalid = R"({"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"Invalid request"}})";
    for (const char* text : {"5 ", "\"a\"", "null ", "[]", R"({"id":1})", R"({"id":1,"method":5})",
                             R"({"jsonrpc":"1.0","id":1,"method":"echo"})", R"({"id":true,"method":"echo"})",
                             R"({"id":{},"method":"echo"})", R"({"id":1,"method":"echo","foo":1})",
                             R"({"id":1,"id":2,"method":"echo"})", R"({"id":1,"method":"echo","params":"x"})"}) {
        EXPECT_EQ(one_client::answer(text), invalid + "\n") << text;
    }
}

TEST(rpc_connection, batches) {
    EXPECT_EQ(one_client::answer(R"([{"id":1,"method":"echo"},{"method":"echo"},5,{"id":2,"method":"fail"}])"),
              R"([{"jsonrpc":"2.0","id":1,"result":null},)"
              R"({"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"Invalid request"}},)"
              R"({"jsonrpc":"2.0","id":2,"error":{"code":-19,"message":"No such device: gone"}}])"
              "\n");
    EXPECT_EQ(one_client::answer(R"([{"method":"echo"},{"method":"echo"}])"), "");
    EXPECT_EQ(one_client::answer(R"([[]])"),
              R"([{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"Invalid request"}}])"
              "\n");
}

TEST(rpc_connection, what_is_not_json_ends_it) {
    using std::string_view_literals::operator""sv;
    for (std::string_view text :
         {"hello"sv, "{\"a\":1,}"sv, "{'a':1}"sv, "/* c */{}"sv, "\0"sv, "{\"method\":\"log_\0get\"}"sv,
          "{\"method\":\"\xff\xfe\"}"sv, "{\"method\":\"a\nb\"}"sv, "\xef\xbb\xbf{}"sv, "[1,[}"sv}) {
        std::string got = one_client::answer(text);
        EXPECT_TRUE(got.starts_with(R"({"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"Parse error)"))
            << text << got;
        EXPECT_TRUE(got.ends_with("}}\n<closed>")) << got;
    }
    std::string deep(100'000'000, '[');
    EXPECT_TRUE(one_client::answer(deep).ends_with("<closed>"));
}

TEST(rpc_connection, good_requests_before_garbage_are_answered) {
    std::string got = one_client::answer(R"({"id":1,"method":"echo"}garbage{"id":2,"method":"echo"})");
    EXPECT_TRUE(got.starts_with("{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":null}\n{\"jsonrpc\":\"2.0\",\"id\":null,"))
        << got;
    EXPECT_TRUE(got.ends_with("<closed>"));
    EXPECT_EQ(got.find("\"id\":2"), std::string::npos);
}

TEST(rpc_connection, half_a_document_then_silence_only_waits) { EXPECT_EQ(one_client::answer(R"({"id":1,"meth)"), ""); }

TEST(rpc_connection, calls_answer_as_they_end) {
    one_client c;
    c.run([](one_client& self, rpc_server&) -> task<> {
        self.client.send(
            R"({"id":1,"method":"slow"}[{"id":2,"method":"slow"},{"id":3,"method":"echo"}]{"id":4,"method":"echo"})");
        self.client.turn();
        EXPECT_EQ(self.client.received, "{\"jsonrpc\":\"2.0\",\"id\":4,\"result\":null}\n");
        self.go.set();
        co_await yield();
        self.client.turn();
        EXPECT_EQ(
            self.client.received,
            "{\"jsonrpc\":\"2.0\",\"id\":4,\"result\":null}\n{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":\"slow\"}\n"
            "[{\"jsonrpc\":\"2.0\",\"id\":3,\"result\":null},{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":\"slow\"}]\n");
    });
}

TEST(rpc_connection, running_calls_are_bounded) {
    one_client c;
    c.run([](one_client& self, rpc_server&) -> task<> {
        std::string batch = "[";
        for (int i = 1; i <= 3000; ++i) batch += R"({"id":1,"method":"slow"},)";
        batch.back() = ']';
        self.client.send(batch + R"({"id":2,"method":"echo"})");
        self.client.turn();
        EXPECT_EQ(self.running, connection::max_running);
        EXPECT_FALSE(self.client.unread.empty());  // not taken while others wait
        self.go.set();
        for (int i = 0; i < 10; ++i) {
            co_await yield();
            self.client.turn();
        }
        EXPECT_EQ(self.most_running, connection::max_running);
        EXPECT_EQ(std::ranges::count(self.client.received, '\n'), 2);
        EXPECT_TRUE(self.client.received.ends_with("{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":null}\n"));
    });
}

TEST(rpc_connection, who_does_not_read_is_not_read) {
    one_client c;
    c.run([](one_client& self, rpc_server&) -> task<> {
        self.client.reads = false;
        for (int i = 0; i < 100; ++i) self.client.send(R"({"id":1,"method":"big"})");
        // One reply in the socket's hands, at most a mark's worth more, the rest not even started.
        EXPECT_GT(self.client.unread.size(), 90u * 23);
        self.client.reads = true;
        self.client.turn();
        EXPECT_EQ(std::ranges::count(self.client.received, '\n'), 100);
        co_return;
    });
}

TEST(rpc_connection, batch_replies_are_bounded) {
    std::string batch = "[";
    for (int i = 0; i < 64; ++i) batch += R"({"id":1,"method":"big"},)";
    batch.back() = ']';
    std::string got = one_client::answer(batch);
    EXPECT_LT(got.size(), connection::max_batch_reply + (std::size_t{2} << 20));
    EXPECT_NE(got.find("Message too long"), std::string::npos);
}

TEST(rpc_connection, a_client_that_goes_leaves_its_calls_to_end_alone) {
    one_client c;
    c.run([](one_client& self, rpc_server&) -> task<> {
        self.client.send(R"({"id":1,"method":"slow"})");
        self.client.hang_up(-104);
        EXPECT_EQ(self.running, 1u);
        self.go.set();
        co_await yield();
        EXPECT_EQ(self.running, 0u);
        EXPECT_EQ(self.client.received, "");
    });
}

TEST(rpc_connection, a_client_that_only_listens_gets_its_answers) {
    one_client c;
    c.run([](one_client& self, rpc_server&) -> task<> {
        self.client.send(R"({"id":1,"method":"slow"}{"id":2,"method":"echo"})");
        self.client.end_sending();
        EXPECT_FALSE(self.client.close_asked);
        self.go.set();
        co_await yield();
        self.client.turn();
        EXPECT_TRUE(self.client.received.ends_with("{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":\"slow\"}\n"));
        EXPECT_TRUE(self.client.closed);
    });
}

TEST(rpc_connection, held_requests_wait) {
    one_client c;
    c.run([](one_client& self, rpc_server& server) -> task<> {
        server.hold();
        self.client.send(R"({"id":1,"method":"echo"})");
        self.client.turn();
        EXPECT_EQ(self.client.received, "");
        server.release();
        self.client.turn();
        EXPECT_EQ(self.client.received, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":null}\n");
        co_return;
    });
}

TEST(rpc_connection, stop_answers_what_is_under_way) {
    one_client c;
    c.system.run([](one_client& self) -> task<> {
        rpc_server server(thread::here(), self.lines.component("rpc"), [&self](std::string_view m, json::value p) {
            return self.call(std::string(m), std::move(p));
        });
        server.on_accept(self.client.socket());
        self.client.send(R"({"id":1,"method":"slow"})");
        server.stop_reading();
        self.client.send(R"({"id":2,"method":"echo"})");
        self.go.set();
        gate turning;
        bool done = false;
        turning.spawn(
            [](one_client& of, bool& until) -> task<> {
                while (!until) {
                    of.client.turn();
                    co_await yield();
                }
            }(self, done),
            [](error) {});
        co_await server.stop();
        done = true;
        co_await turning.close();
        EXPECT_EQ(self.client.received, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":\"slow\"}\n");
        EXPECT_TRUE(self.client.closed);
    }(c));
}

}  // namespace
}  // namespace varve::server
