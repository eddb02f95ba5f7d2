#include "env/linux/socket_base.h"

#include <sys/socket.h>

#include <cerrno>

#include "env/linux/loop_base.h"
#include "util/assert.h"

namespace varve::env::os_linux {

socket_base::socket_base(loop_base& home, descriptor connection, address local, address peer) noexcept
    : _home(home), _connection(std::move(connection)), _local(std::move(local)), _peer(std::move(peer)) {}

socket_base::~socket_base() { VARVE_ASSERT(!started() || _closed); }

void socket_base::start(socket_handler& handler) noexcept {
    VARVE_ASSERT(!started());
    _handler = &handler;
    _home.began();
    begin_receive();
}

void socket_base::send(send_op& op) noexcept {
    VARVE_ASSERT(started() && !_closed);
    op.result = 0;
    _queue.push(op);
    if (!_ending) _home.wants_flush(*this);
}

void socket_base::resume_receive() noexcept {
    if (!_paused || _ending) return;
    _resuming = true;
    want_attention();
}

void socket_base::want_attention() noexcept { _home.wants_attention(*this); }

void socket_base::received(std::span<const std::byte> bytes) noexcept {
    if (_ending) return;
    if (_paused) {
        _kept.append(bytes);
        hold_receive();
        return;
    }
    _home.ran_something();
    _home.wants_batch_end(*this);
    std::size_t taken = _handler->on_data(bytes);
    VARVE_ASSERT(taken <= bytes.size());
    if (taken == bytes.size() || _ending) return;
    _paused = true;
    _kept.append(bytes.subspan(taken));
}

void socket_base::attend() noexcept {
    if (_resuming && !_ending) resume();
    if (_peer_ended && !_end_told && !_paused && !_ending && all_sent()) {
        _end_told = true;
        if (_handler->on_peer_end()) end(0);
    }
    if (_ending && quiet()) finish();
}

void socket_base::resume() noexcept {
    _resuming = false;
    _paused = false;
    if (!_kept.empty()) {
        _home.ran_something();
        _home.wants_batch_end(*this);
        std::size_t offered = _kept.view().size();
        std::size_t taken = _handler->on_data(_kept.view());
        VARVE_ASSERT(taken <= offered);
        if (_ending) return;
        _kept.consume(taken);
        _paused = !_kept.empty();
    }
    if (!_paused && !_peer_ended) begin_receive();
}

void socket_base::peer_ended() noexcept {
    _peer_ended = true;
    want_attention();
}

void socket_base::end(int reason) noexcept {
    VARVE_ASSERT(started());
    if (_ending) return;
    _ending = true;
    _reason = reason;
    // Wakes whatever of ours waits in the kernel, and tells the peer. What the kernel has taken over it still sends.
    ::shutdown(number(), SHUT_RDWR);
    quiesce();
    want_attention();
}

std::size_t socket_base::gather(std::span<iovec> into, std::size_t& bytes) const noexcept {
    std::size_t count = 0;
    for (send_op* op = _queue.front(); op != nullptr; op = op->next) {
        for (uint32_t i = 0; i < op->iov_count; ++i) {
            if (count == into.size()) return count;
            into[count++] = op->iov[i];
            bytes += op->iov[i].iov_len;
        }
    }
    return count;
}

void socket_base::take_sent(std::size_t bytes, queue<send_op>& done) noexcept {
    while (send_op* op = _queue.front()) {
        while (op->iov_count > 0 && op->iov->iov_len <= bytes) {
            bytes -= op->iov->iov_len;
            ++op->iov;
            --op->iov_count;
        }
        if (op->iov_count > 0) {
            op->iov->iov_base = static_cast<std::byte*>(op->iov->iov_base) + bytes;
            op->iov->iov_len -= bytes;
            return;
        }
        _queue.pop();
        done.push(*op);
    }
}

void socket_base::drop_queue() noexcept {
    int outcome = _reason != 0 ? _reason : -ECANCELED;
    while (!_queue.empty()) {
        send_op* op = _queue.take_all();
        while (op != nullptr) {
            send_op* next = op->next;
            op->result = outcome;
            op->done(*op);
            op = next;
        }
    }
}

void socket_base::finish() noexcept {
    drop_queue();
    _closed = true;
    _connection.reset();
    list_node<flush_tag>::unlink();
    list_node<batch_tag>::unlink();
    list_node<attention_tag>::unlink();
    _home.ended();
    _home.ran_something();
    _handler->on_closed(_reason);  // may destroy this
}

}  // namespace varve::env::os_linux
