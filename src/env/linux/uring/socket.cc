#include "env/linux/uring/socket.h"

#include <cerrno>

namespace varve::env::os_linux::uring {
namespace {

constexpr std::size_t vectors_at_once = 1024;  // UIO_MAXIOV

}  // namespace

void socket::begin_receive() noexcept {
    if (_receiving) return;  // perhaps on its way back; receive_answered asks again
    _receiving = true;
    home().ask(_receive);
}

void socket::hold_receive() noexcept {
    if (!_receiving || _holding) return;
    _holding = true;
    home().cancel(_receive);
}

void socket::quiesce() noexcept {
    hold_receive();
    if (_sending) home().cancel(_send);
}

void socket::prepare_receive(io_uring_sqe& entry) noexcept {
    entry.opcode = IORING_OP_RECV;
    entry.fd = number();
    entry.flags = IOSQE_BUFFER_SELECT;
    entry.ioprio = IORING_RECV_MULTISHOT;
    entry.buf_group = buffers::group;
}

void socket::receive_answered(int32_t outcome, uint32_t flags) noexcept {
    buffers& provided = home().receive_buffers();
    if (outcome > 0) received(provided.bytes_of(outcome, flags));
    provided.release(outcome, flags);
    if ((flags & IORING_CQE_F_MORE) != 0) return;
    _receiving = _holding = false;
    if (ending()) return want_attention();
    if (outcome == 0) return peer_ended();
    bool goes_on = outcome > 0 || outcome == -ENOBUFS || outcome == -ECANCELED || outcome == -EINTR;
    if (!goes_on) return end(outcome);
    if (outcome == -ENOBUFS) provided.grow();
    if (!paused()) begin_receive();
}

void socket::transmit() noexcept {
    if (_sending || ending() || _queue.empty()) return;
    _sending = true;
    home().ask(_send);
}

void socket::prepare_send(io_uring_sqe& entry) noexcept {
    entry.fd = number();
    // All or an error, so that one answer tells all.
    entry.msg_flags = MSG_NOSIGNAL | MSG_WAITALL;
    send_op& first = *_queue.front();
    iovec* vectors = first.iov;
    std::size_t count = std::min<std::size_t>(first.iov_count, vectors_at_once);
    if (first.next != nullptr) {
        std::span<iovec> room = home().spare_vectors(vectors_at_once);
        std::size_t bytes = 0;
        if (room.size() > count) {
            count = gather(room, bytes);
            vectors = room.data();
        }
    }
    if (count <= 1) {
        entry.opcode = IORING_OP_SEND;
        entry.addr = count == 0 ? 0 : reinterpret_cast<uint64_t>(vectors->iov_base);
        entry.len = count == 0 ? 0 : static_cast<uint32_t>(std::min<std::size_t>(vectors->iov_len, 1 << 30));
    } else {
        entry.opcode = IORING_OP_SENDMSG;
        entry.addr = reinterpret_cast<uint64_t>(&home().message_over(vectors, count));
        entry.len = 1;
    }
}

void socket::send_answered(int32_t outcome) noexcept {
    _sending = false;
    if (outcome >= 0) {
        queue<send_op> done;
        take_sent(static_cast<std::size_t>(outcome), done);
        send_op* chain = done.take_all();
        if (chain != nullptr) _home.ran_something();
        while (chain != nullptr) {
            send_op* next = chain->next;
            chain->done(*chain);
            chain = next;
        }
    }
    if (ending()) return want_attention();
    if (outcome < 0 && outcome != -EINTR && outcome != -EAGAIN) return end(outcome);
    if (_queue.empty()) {
        sends_done();
    } else {
        _home.wants_flush(*this);
    }
}

}  // namespace varve::env::os_linux::uring
