// A queue pair over TCP. Commands are gathered into batches, one send each; what the controller sends is parsed as it
// arrives and read data is copied straight to where the request wants it.
//
// The peer is not trusted: a PDU that is wrong in any way breaks the connection (with a terminate request that says
// what was wrong, TCP 3.5), a wrong data digest fails its command only. A request whose data the socket may still read
// does not complete before that send is over, whatever the controller answers.
//
//   tcp_queue_pair.cc  life of the connection       tcp_send.cc  to the controller       tcp_receive.cc  from it
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <vector>

#include "env/socket.h"
#include "nvme/host/cid_table.h"
#include "nvme/host/queue_pair.h"
#include "nvme/host/send_batch.h"
#include "nvme/tcp.h"
#include "thread/thread.h"
#include "util/units.h"

namespace varve::nvme::host {

struct tcp_options {
    bool header_digest = false;
    bool data_digest = false;
    time_ns handshake_timeout = 10 * seconds;
    bool operator==(const tcp_options&) const = default;
};

class tcp_queue_pair final : public queue_pair, private env::socket_handler {
  public:
    // Takes a connected socket that was not started, and begins the handshake. See queue_pair for `home`.
    tcp_queue_pair(thread::thread* home, const queue_options& options, const tcp_options& wanted,
                   std::unique_ptr<env::socket> connection);
    ~tcp_queue_pair() override;

    std::size_t under_way() const noexcept override { return _slots.in_use(); }

    // Data in the capsules of admin and fabrics commands (TCP 3.3.2): 8 KiB is always allowed.
    static constexpr uint32_t admin_in_capsule_max = 8192;

  private:
    struct slot {
        request* owner = nullptr;
        uint16_t cid = 0;
        uint16_t sends = 0;  // pieces of the request's data in batches that are not over
        data_direction direction = data_direction::none;
        bool in_capsule = false;
        bool answered = false;       // the completion is in the request; only sends keep it
        bool digest_failed = false;  // some data was damaged on its way here
        uint32_t received = 0;
        uint32_t r2t_offset = 0;
        uint32_t r2t_left = 0;  // not yet handed to a batch
        uint16_t r2t_tag = 0;
        slot* next = nullptr;  // of those with r2t_left
    };
    struct batch : send_batch {
        tcp_queue_pair* queue = nullptr;
        std::vector<uint16_t> readers;  // cids of the slots whose data it holds, one for each piece of data
    };
    static constexpr unsigned batch_count = 4;
    static constexpr uint32_t batch_pieces = 128;
    static constexpr uint32_t pdo_max = 128;

    // ---- life ----
    void begin_close() noexcept override;
    void on_closed(int reason) noexcept override;
    void protocol_error(tcp::fatal_error what, uint32_t field, const char* explanation) noexcept;
    void on_timeout() noexcept;

    // ---- to the controller ----
    bool try_start(request& r) noexcept override;
    bool room_for_two() noexcept override;
    void do_flush() noexcept override;
    batch* room(uint32_t bytes, uint32_t pieces) noexcept;
    void send_open_batch() noexcept;
    void send_ic_req() noexcept;
    void append_data(batch& to, slot& of, uint32_t offset, uint32_t length) noexcept;
    void send_requested_data() noexcept;
    bool send_requested_data_of(slot& s) noexcept;
    void on_sent(batch& b) noexcept;
    void on_batch_end() noexcept override;

    // ---- from the controller ----
    enum class phase : uint8_t { header, padding, data, digest };
    std::size_t on_data(std::span<const std::byte> bytes) noexcept override;
    const std::byte* take_header(const std::byte* at, const std::byte* end) noexcept;
    const std::byte* take_data(const std::byte* at, const std::byte* end) noexcept;
    const std::byte* take_digest(const std::byte* at, const std::byte* end) noexcept;
    bool check_common(const std::byte* header) noexcept;
    void on_header(const std::byte* header) noexcept;
    void on_ic_resp(const tcp::ic_resp& pdu) noexcept;
    void on_term_req(const tcp::term_req& pdu) noexcept;
    void on_capsule_resp(const tcp::capsule_resp& pdu) noexcept;
    void on_c2h_data(const tcp::c2h_data& pdu) noexcept;
    void on_r2t(const tcp::r2t& pdu) noexcept;
    void data_over() noexcept;
    void answer(slot& s, const cqe& completion) noexcept;
    void forget_requested_data(slot& s) noexcept;
    void finish(slot& s) noexcept;

    // Callbacks of the loop begin with this (thread/thread.h).
    class inside {
      public:
        explicit inside(thread::thread* home) noexcept {
            if (home != nullptr) _entered.emplace(*home);
        }

      private:
        std::optional<thread::entered> _entered;
    };
    bool broken() const noexcept { return _state == state::failing || _state == state::closed; }

    // Of each I/O: first.
    cid_table<slot> _slots;
    batch* _open = nullptr;   // being filled
    bool _receiving = false;  // inside on_data, or before its on_batch_end
    bool _header_digest = false, _data_digest = false;
    uint8_t _cpda = 0;
    uint32_t _h2c_max = 0;
    queue<slot> _requested;
    std::array<batch*, batch_count> _free{};
    unsigned _free_count = 0;

    phase _phase = phase::header;
    uint8_t _pdu_flags = 0;
    uint32_t _have = 0;  // bytes of a header, or of a digest, in _held
    uint32_t _need = sizeof(tcp::common_header);
    uint32_t _padding_left = 0;
    uint32_t _data_left = 0;
    uint32_t _crc = 0;
    std::span<const std::byte> _pdu;  // the header being looked at, for error reports
    slot* _receiver = nullptr;        // whose data arrives
    const iovec* _into = nullptr;
    std::size_t _into_offset = 0;
    std::array<std::byte, sizeof(tcp::ic_resp) + tcp::digest_size> _held;

    const tcp_options _wanted;
    std::unique_ptr<env::socket> _socket;
    std::array<batch, batch_count> _batches;

    struct timeout_work : work {
        tcp_queue_pair* queue;
    } _timeout_work{};
    std::optional<thread::timer> _timeout;  // of the handshake, then of a terminate request

    struct last_words : env::send_op {
        tcp_queue_pair* queue;
        iovec piece;
        std::array<std::byte, tcp::term_pdu_max> bytes;
    } _last_words{};
};

}  // namespace varve::nvme::host
