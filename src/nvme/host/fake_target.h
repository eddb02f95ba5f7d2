// For tests: an NVMe/TCP target that keeps namespaces in memory and does what it is told, wrong things too. Everything
// about the wire that a target may choose is an option; hooks answer single commands otherwise. It lives on one loop,
// in no thread, and allocates as it likes.
#pragma once

#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "env/loop.h"
#include "nvme/fabrics.h"
#include "nvme/identify.h"
#include "nvme/log_page.h"
#include "nvme/tcp.h"
#include "thread/task.h"

namespace varve::nvme::host {

class fake_target;

struct fake_namespace {
    std::string bytes;
    uint8_t block_shift = 9;
    uint64_t blocks() const { return bytes.size() >> block_shift; }
};

class fake_connection final : public env::socket_handler {
  public:
    fake_connection(fake_target& owner, std::unique_ptr<env::socket> socket);

    // ---- what a hook may use ----
    void respond(uint16_t cid, status s, uint32_t dw0 = 0);
    void send_data(uint16_t cid, std::string_view data, uint32_t offset, uint8_t flags);
    void send_r2t(uint16_t cid, uint16_t tag, uint32_t offset, uint32_t length);
    void send_raw(std::string bytes);
    void close() { _socket->close(); }
    uint16_t qid = 0;
    bool header_digest = false, data_digest = false;

  private:
    struct pending {  // a command that waits for its data
        sqe command;
        std::string data;
        uint32_t asked = 0;  // up to here
        uint32_t received = 0;
        uint32_t r2t_end = 0;
    };
    std::size_t on_data(std::span<const std::byte> bytes) noexcept override;
    void on_closed(int reason) noexcept override;
    void on_pdu(const std::string& pdu);
    void on_ic_req(const tcp::ic_req& pdu);
    void on_capsule(const std::string& pdu);
    void on_h2c(const std::string& pdu);
    void ask_for_data(uint16_t cid, pending& p);
    std::string payload(const std::string& pdu, uint32_t length);
    void execute(const sqe& c, std::string data);
    void fabrics(const sqe& c, const std::string& data);
    void admin(const sqe& c);
    void io(const sqe& c, const std::string& data);
    void answer_with(uint16_t cid, std::string data);
    std::string identify(const sqe& c, bool& known);
    std::string log(const sqe& c);
    std::string header_of(const void* pdu, std::size_t size, uint8_t data_at = 0);
    void send_pdu(std::string header, std::string_view data);

    friend class fake_target;
    fake_target& _target;
    std::unique_ptr<env::socket> _socket;
    std::string _received;
    std::map<uint16_t, pending> _pending;
    std::map<uint16_t, std::string> _first_fused;  // the compare's data of a pair, by nothing: at most one
    bool _ready = false;
    bool _compare_failed = false;
    std::vector<uint16_t> _events;  // cids of asynchronous event requests
    uint32_t _cc = 0;
};

struct fake_options {
    bool header_digest = true, data_digest = true;  // when the host asks
    uint8_t cpda = 0;
    uint8_t extra_padding = 0;  // of data to the host, a multiple of 4
    uint32_t maxh2cdata = 131072;
    bool success_flag = false;
    uint32_t in_capsule = 4096;
    uint32_t r2t_max = 131072;  // bytes in one R2T
    uint32_t c2h_max = 131072;  // bytes in one C2HData
    uint8_t mdts = 5;
    uint16_t queues = 8;
};

class fake_target final : public env::accept_handler {
  public:
    using hook = std::move_only_function<bool(fake_connection&, const sqe&, const std::string& data)>;

    fake_target(env::loop& on, fake_options options);
    ~fake_target();
    const env::address& address() const { return _listener->local(); }
    task<> stop();  // closes what is open; once

    void raise(async_event event);  // answers one asynchronous event request
    fake_connection* admin_queue();
    std::size_t connections() const { return _connections.size(); }

    fake_options options;
    std::map<uint32_t, fake_namespace> namespaces;
    // Called before a command is executed, its data complete; true when it has done it all.
    hook on_command;
    // Called when a command arrives whose data is to be asked for; true when it has done it all.
    hook on_capsule;
    // Instead of the answer to ICReq, when not empty.
    std::string ic_answer;
    bool ignore_ic = false;
    std::map<std::string, int> seen;  // commands by name, and PDUs by type
    std::vector<uint32_t> changed;    // for the log page
    std::vector<discovery_entry> discovery;
    uint64_t discovery_generation = 1;
    tcp::term_req last_term{};

  private:
    friend class fake_connection;
    void on_accept(std::unique_ptr<env::socket> connection) noexcept override;
    std::list<std::unique_ptr<fake_connection>> _connections;
    std::unique_ptr<env::listener> _listener;
};

}  // namespace varve::nvme::host
