// One NVMe/TCP connection, which is one queue pair (NVMe TCP Transport Specification 1.0). Poll group's thread.
//
// Receive: bytes are parsed where the socket put them; only a header that straddles two deliveries is gathered in
// _partial. Transmit: finished slots queue on _to_send; once a turn, everything queued becomes one gathered send. A
// slot is in exactly one state; see slot_state.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "env/loop.h"
#include "nvme/tcp.h"
#include "targets/nvmf/poll_group.h"
#include "targets/nvmf/qpair.h"
#include "targets/nvmf/transport.h"
#include "thread/buffer_pool.h"
#include "thread/thread.h"

namespace varve::targets::nvmf {

enum class slot_state : uint8_t {
    free,
    waiting_for_buffer,  // queued at the thread's buffer pool
    receiving,           // data from the host: in the capsule, or asked for with R2T
    executing,
    sending_r2t,  // queued or under way
    responding,   // response queued or under way
};

class tcp_connection final : public qpair, private env::socket_handler {
  public:
    // Takes the socket and starts receiving. Deletes itself when the connection has ended and nothing is under way.
    static void run(poll_group& in, std::unique_ptr<env::socket> socket, const transport_options& options);

    void complete(request& r) noexcept override;
    void disconnect() noexcept override;
    void resize(uint16_t entries) override;
    recall abort(uint16_t command_id, bool again) noexcept override;
    const env::address& local() const noexcept override { return _socket->local(); }
    const env::address& peer() const noexcept override { return _socket->peer(); }
    const char* transport_name() const noexcept override { return "TCP"; }

  private:
    struct slot : request {
        tcp_connection* connection = nullptr;
        slot* next = nullptr;  // in the free list or one of the queues
        thread::pool_buffer buffer;
        thread::buffer_wait wait;
        std::byte* memory = nullptr;  // of `buffer`, or of a spare
        env::buffer* spare = nullptr;
        uint32_t received = 0;  // bytes of data that came from the host
        uint16_t index = 0;
        slot_state state = slot_state::free;
        bool to_host = false;
        bool in_capsule = false;
        bool unwanted = false;    // to be aborted as soon as its data is here
        bool digest_bad = false;  // data of an H2CData did not match its digest: the command fails when all is here
    };
    using slot_queue = queue<slot>;

    // What a gathered send under way consists of. Two, so that one can be filled while the other is in the kernel's
    // hands.
    struct batch : env::send_op {
        tcp_connection* connection = nullptr;
        std::vector<iovec> pieces;
        std::vector<std::byte> headers;
        std::size_t iov_used = 0, header_used = 0;
        slot* slots = nullptr;  // freed, or advanced, when it is done
        bool under_way = false;
    };

    tcp_connection(poll_group& in, std::unique_ptr<env::socket> socket, const transport_options& options);
    ~tcp_connection();

    // --- tcp_receive.cc
    std::size_t on_data(std::span<const std::byte> bytes) noexcept override;
    void on_closed(int reason) noexcept override;
    enum class rx : uint8_t { header, data, digest, ended };
    std::size_t parse_header(std::span<const std::byte> bytes) noexcept;  // bytes consumed; 0: no slot is free
    std::size_t header_size(const nvme::tcp::common_header& ch) const noexcept;
    // False: it was wrong, and the connection is being terminated.
    bool check_common(std::span<const std::byte> header) noexcept;
    bool check_header_digest(std::span<const std::byte> header) noexcept;
    void handle_pdu(std::span<const std::byte> header) noexcept;
    void handle_ic_req(std::span<const std::byte> header) noexcept;
    void handle_command(std::span<const std::byte> header) noexcept;
    void handle_h2c_data(std::span<const std::byte> header) noexcept;
    std::size_t take_data(std::span<const std::byte> bytes) noexcept;
    std::size_t take_digest(std::span<const std::byte> bytes) noexcept;
    void data_complete() noexcept;
    void expect_data(slot* into, uint32_t bytes) noexcept;
    void terminate(nvme::tcp::fatal_error why, uint32_t info, std::span<const std::byte> header) noexcept;
    // What the command's SGL says about its data, checked against the capsule. success, or the status to answer with.
    nvme::status describe_data(slot& s, uint32_t capsule_bytes) noexcept;
    void get_buffer(slot& s, uint32_t bytes) noexcept;
    bool take_spare(slot& s) noexcept;
    void spare_returned() noexcept;
    void buffer_ready(slot& s) noexcept;
    void fail(slot& s, nvme::status code, bool retry = false) noexcept;

    // --- tcp_transmit.cc
    void queue_send(slot& s) noexcept;
    void queue_control(std::span<const std::byte> pdu) noexcept;
    void flush() noexcept;
    void append_response(batch& b, slot& s) noexcept;
    void append_read_data(batch& b, slot& s, bool stands_for_response) noexcept;
    void append_r2t(batch& b, slot& s) noexcept;
    std::byte* add_header(batch& b, std::size_t size) noexcept;
    void add_iov(batch& b, const void* data, std::size_t size) noexcept;
    void batch_done(batch& b) noexcept;
    std::size_t pieces_wanted() const noexcept;
    void size_batch(batch& b);
    void size_batches();

    // --- tcp_connection.cc
    void add_slots(uint32_t count);
    slot* take_slot() noexcept;
    void resume_receive() noexcept;  // if it is paused
    void release(slot& s) noexcept;
    void drop_idle_slots() noexcept;  // those that wait for the host or for a buffer
    struct until_quiet;               // co_await: a slot was released
    task<> finish();

    std::unique_ptr<env::socket> _socket;
    const transport_options& _options;  // outlives all connections: target::stop()

    // receive
    rx _rx = rx::header;
    bool _header_digest = false, _data_digest = false;
    uint8_t _digest_flags = 0;  // both, as FLAGS of a PDU with data has them
    bool _initialized = false;  // ICReq came
    bool _paused = false;       // on_data left bytes behind: no slot was free
    bool _resuming = false;
    uint8_t _hpda = 0;
    uint16_t _partial_size = 0;
    uint32_t _data_left = 0;     // of the PDU under way
    uint32_t _pdu_data = 0;      // data bytes of the PDU under way, for its digest
    slot* _receiving = nullptr;  // null: the data is skipped
    uint32_t _digest_state = 0;
    uint8_t _digest_have = 0;
    std::array<std::byte, 4> _digest_bytes{};
    std::array<std::byte, 264> _partial;  // the largest header (ICReq) or PDO, and its digest

    // transmit
    slot_queue _to_send;
    std::vector<std::byte> _control;  // ICResp or C2HTermReq to be sent before anything else
    std::array<batch, 2> _batches;
    struct connection_work : work {
        tcp_connection* connection = nullptr;
    };
    connection_work _flush_work;
    bool _flush_queued = false;

    // Buffers for data in capsules when the pool has none: commands ahead in the stream may hold what the pool had
    // until data comes that lies behind this capsule. Two, so that a fused pair can be complete.
    std::array<env::buffer, 2> _spares;
    unsigned _spares_used = 0;  // bit for bit

    // slots
    std::vector<std::unique_ptr<slot[]>> _slot_chunks;  // two for Connect, then the queue
    std::vector<slot*> _slots;                          // by index, which is the transfer tag
    slot* _free = nullptr;
    uint32_t _in_use = 0;

    // end
    bool _closing = false;      // close() was called on the socket, or the peer has gone
    bool _closed = false;       // on_closed came: finish() runs
    bool _terminating = false;  // a C2HTermReq is to be sent; then close
    std::coroutine_handle<> _quiet_waiter;
    connection_work _quiet_work;
    bool _quiet_queued = false;
    // Data that was asked for, or half a capsule of it: a host that sends none of it holds our memory in vain.
    void await_data() noexcept;
    void look_for_progress() noexcept;
    time_ns _progress = 0;  // when data came or was asked for, or when we let the host go on
    connection_work _progress_work;
    thread::timer _progress_timer{_progress_work};

    connection_work _term_timeout;
    thread::timer _term_timer{_term_timeout};
};

}  // namespace varve::targets::nvmf
