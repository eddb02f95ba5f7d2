// One client of the JSON-RPC server. Belongs to the app thread; the loop calls it.
//
// Documents are cut from the bytes as they come; each holds one request or a batch. Requests wait in line until fewer
// than max_running of this client's calls run. While any waits, or more than high_water bytes of replies are unsent,
// nothing is taken from the socket, so what a client can make us hold is bounded.
#pragma once

#include <sys/uio.h>

#include <deque>
#include <map>
#include <memory>
#include <string>

#include "env/socket.h"
#include "json/splitter.h"
#include "server/envelope.h"

namespace varve::thread {
class thread;
}

namespace varve::server {

class rpc_server;

class connection final : env::socket_handler {
  public:
    static constexpr std::size_t max_running = 1024;
    static constexpr std::size_t high_water = std::size_t{1} << 20;
    static constexpr std::size_t max_batch_reply = std::size_t{32} << 20;

    connection(rpc_server& server, thread::thread& home, uint64_t id, std::unique_ptr<env::socket> client);
    ~connection();
    void start() noexcept { _client->start(*this); }

    // Which request of this client a call belongs to.
    struct ticket {
        uint64_t connection = 0;
        uint64_t batch = 0;  // 0: none
    };
    // A call ended; its reply, or nothing for a notification that succeeded.
    void finish(const ticket& of, std::string reply);

    // From now on nothing is started; what has been sent so far is answered.
    void stop_reading() noexcept;
    // Go on after the server held back.
    void resume() noexcept;
    bool all_sent() const noexcept { return !_sending.busy && _out.empty(); }
    void close() noexcept { _client->close(); }

  private:
    struct batch {
        std::size_t left = 0;
        std::string replies;
    };
    struct waiting {
        uint64_t batch = 0;
        json::value document;
    };
    struct sending : env::send_op {
        connection* owner = nullptr;
        iovec vec{};
        std::string text;
        bool busy = false;
    };

    std::size_t on_data(std::span<const std::byte> bytes) noexcept override;
    bool on_peer_end() noexcept override;
    void on_closed(int reason) noexcept override;

    bool holding_back() const noexcept;
    void take(std::string_view document);
    void take_batch(json::array requests);
    void refuse_and_close(const error& e);
    void start_waiting();
    void begin(waiting next);
    void put(std::string_view text);
    void flush() noexcept;
    void sent() noexcept;

    rpc_server& _server;
    thread::thread& _home;
    const uint64_t _id;
    std::unique_ptr<env::socket> _client;
    json::splitter _split;
    std::deque<waiting> _waiting;
    std::map<uint64_t, batch> _batches;
    uint64_t _next_batch = 1;
    std::size_t _running = 0;
    std::string _out;  // replies to send next
    sending _sending;
    bool _reading = true;       // false: whatever comes is dropped
    bool _paused = false;       // the socket keeps bytes for us and waits for resume_receive()
    bool _close_after = false;  // once all is sent
    bool _busy = false;         // inside on_data or begin: flush at its end
};

}  // namespace varve::server
