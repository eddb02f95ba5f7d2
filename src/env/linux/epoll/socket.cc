#include "env/linux/epoll/socket.h"

#include <sys/socket.h>

#include <cerrno>

namespace varve::env::os_linux::epoll {
namespace {

int pending_error(int number) noexcept {
    int failure = 0;
    socklen_t size = sizeof failure;
    return ::getsockopt(number, SOL_SOCKET, SO_ERROR, &failure, &size) == 0 ? failure : errno;
}

}  // namespace

void socket::want(uint32_t events) noexcept { home().set_interest(number(), *this, _interest, events); }
void socket::begin_receive() noexcept { want(_interest | EPOLLIN); }
void socket::hold_receive() noexcept { want(_interest & ~static_cast<uint32_t>(EPOLLIN)); }

void socket::quiesce() noexcept {
    want(0);
    home().forget(*this);
}

void socket::ready(uint32_t events) noexcept {
    if ((events & EPOLLERR) != 0) {
        if (int failure = pending_error(number()); failure != 0) return end(-failure);
    }
    if ((events & EPOLLOUT) != 0) {
        want(_interest & ~static_cast<uint32_t>(EPOLLOUT));
        _home.wants_flush(*this);
    }
    if ((events & (EPOLLIN | EPOLLHUP)) == 0) return;
    if (paused()) {
        // A hang-up is reported until the descriptor is out of the set; resuming puts it back.
        hold_receive();
    } else {
        receive();
    }
}

void socket::receive() noexcept {
    std::span<std::byte> buffer = home().receive_buffer();
    ssize_t got = ::recv(number(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (got > 0) {
        received(buffer.first(static_cast<std::size_t>(got)));
    } else if (got == 0) {
        hold_receive();
        peer_ended();
    } else if (errno != EAGAIN && errno != EINTR) {
        end(-errno);
    }
}

void socket::transmit() noexcept {
    while (!_queue.empty() && !ending()) {
        std::size_t bytes = 0;
        msghdr message = {};
        message.msg_iov = home().send_vectors().data();
        message.msg_iovlen = gather(home().send_vectors(), bytes);
        ssize_t sent = ::sendmsg(number(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent >= 0) {
            take_sent(static_cast<std::size_t>(sent), home().sent());
            if (static_cast<std::size_t>(sent) == bytes) continue;
        } else if (errno == EINTR) {
            continue;
        } else if (errno != EAGAIN) {
            return end(-errno);
        }
        return want(_interest | EPOLLOUT);
    }
    sends_done();
}

}  // namespace varve::env::os_linux::epoll
