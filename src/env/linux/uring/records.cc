#include "env/linux/uring/records.h"

#include <poll.h>

#include <cerrno>

#include "util/assert.h"

namespace varve::env::os_linux::uring {
namespace {

void poll_for_reading(io_uring_sqe& entry, int number) noexcept {
    entry.opcode = IORING_OP_POLL_ADD;
    entry.fd = number;
    entry.poll32_events = POLLIN;
}

}  // namespace

void loop::waking::prepare(io_uring_sqe& entry) noexcept {
    poll_for_reading(entry, _number);
    entry.len = IORING_POLL_ADD_MULTI;
}

void loop::waking::answered(int32_t, uint32_t flags) noexcept {
    if ((flags & IORING_CQE_F_MORE) == 0) _home.ask(*this);
}

void loop::recurring_request::abandon() noexcept {
    VARVE_ASSERT(!_abandoned);
    _abandoned = true;
    _home.ended();
    let_go();
    if (_armed) {
        _home.cancel(*this);
    } else if (!_inside) {
        delete this;
    }
}

void loop::recurring_request::answered(int32_t outcome, uint32_t flags) noexcept {
    if ((flags & IORING_CQE_F_MORE) == 0) _armed = false;
    _inside = true;
    take(outcome);
    _inside = false;
    if (_armed) return;
    if (_abandoned) {
        delete this;
    } else {
        arm();
    }
}

void loop::listening::prepare(io_uring_sqe& entry) noexcept {
    if (_starved) return poll_for_reading(entry, _opened.socket.get());
    entry.opcode = IORING_OP_ACCEPT;
    entry.fd = _opened.socket.get();
    entry.ioprio = IORING_ACCEPT_MULTISHOT;
    entry.accept_flags = SOCK_CLOEXEC | SOCK_NONBLOCK;
}

// The descriptor stays until the kernel has answered: its number must not mean another socket meanwhile.
void loop::listening::let_go() noexcept {
    ::shutdown(_opened.socket.get(), SHUT_RDWR);
    _opened.lock.reset();
}

void loop::listening::take(int32_t outcome) noexcept {
    if (_starved) {
        _starved = false;
        if (abandoned()) return;
        outcome = ::accept4(_opened.socket.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (outcome < 0 && (errno == EMFILE || errno == ENFILE)) _home.refuse_one(_opened.socket.get());
    } else if (outcome == -EMFILE || outcome == -ENFILE) {
        _starved = true;
    }
    if (outcome < 0) return;
    descriptor fresh(outcome);
    if (!abandoned()) _home.deliver_accepted(std::move(fresh), _opened.local, _handler);
}

void loop::watching::prepare(io_uring_sqe& entry) noexcept { poll_for_reading(entry, _number); }

void loop::watching::take(int32_t outcome) noexcept {
    if (abandoned() || outcome < 0) return;
    _home.ran_something();
    _work.run(_work);
}

void loop::connecting::prepare(io_uring_sqe& entry) noexcept {
    entry.opcode = IORING_OP_CONNECT;
    entry.fd = _connection.get();
    entry.addr = reinterpret_cast<uint64_t>(&_name.storage);
    entry.off = _name.length;
}

void loop::connecting::answered(int32_t outcome, uint32_t) noexcept {
    std::unique_ptr<connecting> mine(this);
    _home.deliver_connected(std::move(_connection), -outcome, _handler);
}

}  // namespace varve::env::os_linux::uring
