#include "nvme/host/tcp_queue_pair.h"

#include <algorithm>

namespace varve::nvme::host {

namespace {

constexpr time_ns last_words_timeout = 1 * seconds;

// Room for a batch of the queue's commands without data, and for one PDU of any kind.
uint32_t batch_memory(uint16_t entries) noexcept { return std::clamp<uint32_t>(entries * 80u, 1024u, 16384u); }

}  // namespace

tcp_queue_pair::tcp_queue_pair(thread::thread* home, const queue_options& options, const tcp_options& wanted,
                               std::unique_ptr<env::socket> connection)
    : queue_pair(home, options),
      _slots(static_cast<uint16_t>(options.entries - 1)),
      _wanted(wanted),
      _socket(std::move(connection)) {
    VARVE_ASSERT(options.entries >= 2);
    for (batch& b : _batches) {
        b.reserve(batch_memory(options.entries), batch_pieces);
        b.clear();
        b.readers.reserve(batch_pieces);
        b.queue = this;
        b.done = [](env::send_op& op) noexcept {
            batch& over = static_cast<batch&>(op);
            inside in(over.queue->_home);
            over.queue->on_sent(over);
        };
        _free[_free_count++] = &b;
    }
    _last_words.queue = this;
    _timeout_work.queue = this;
    _timeout_work.run = [](work& w) noexcept { static_cast<timeout_work&>(w).queue->on_timeout(); };
    if (_home != nullptr) {
        _home->pin();
        _timeout.emplace(_timeout_work);
        _timeout->start(_wanted.handshake_timeout);
    }
    _socket->start(*this);
    send_ic_req();
}

tcp_queue_pair::~tcp_queue_pair() { VARVE_ASSERT(_socket == nullptr && _slots.in_use() == 0); }

void tcp_queue_pair::begin_close() noexcept { _socket->close(); }

void tcp_queue_pair::on_closed(int reason) noexcept {
    inside in(_home);
    _socket.reset();
    if (_timeout) _timeout->cancel();
    if (_home != nullptr) _home->unpin();
    failed(reason == 0 ? error(errc::reset, "the controller closed the connection") : error(from_errno(reason)));
    _receiving = false;
    _receiver = nullptr;
    _requested.take_all();
    if (_open != nullptr) on_sent(*std::exchange(_open, nullptr));  // never will be
    _slots.for_each_in_use([this](slot& s) {
        VARVE_ASSERT(s.sends == 0 && !s.answered);
        request& r = *s.owner;
        _slots.release(s);
        fail(r);
    });
    closed();
}

void tcp_queue_pair::on_timeout() noexcept {
    if (_state == state::opening) {
        abandon(error(errc::timed_out, "no answer to the NVMe/TCP handshake"));
    } else if (_socket != nullptr) {
        _socket->close();  // the controller does not take our last words
    }
}

// Says what was wrong, then hangs up.
void tcp_queue_pair::protocol_error(tcp::fatal_error what, uint32_t field, const char* explanation) noexcept {
    if (broken()) return;
    failed(error(errc::bad_message, explanation));
    tcp::term_req pdu{};
    pdu.ch = {.type = raw(tcp::pdu_type::h2c_term_req),
              .flags = 0,
              .hlen = sizeof pdu,
              .pdo = 0,
              .plen = static_cast<uint32_t>(sizeof pdu + _pdu.size())};
    pdu.fes = raw(what);
    pdu.fei = field;
    std::memcpy(_last_words.bytes.data(), &pdu, sizeof pdu);
    std::ranges::copy(_pdu, _last_words.bytes.data() + sizeof pdu);
    _last_words.piece = {_last_words.bytes.data(), pdu.ch.plen};
    _last_words.iov = &_last_words.piece;
    _last_words.iov_count = 1;
    _last_words.done = [](env::send_op& op) noexcept {
        tcp_queue_pair& q = *static_cast<last_words&>(op).queue;
        inside in(q._home);
        if (q._socket != nullptr) q._socket->close();
    };
    if (_timeout) _timeout->start(last_words_timeout);
    _socket->send(_last_words);
}

}  // namespace varve::nvme::host
