#include "env/linux/socket_setup.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cerrno>
#include <charconv>
#include <cstring>

namespace varve::env::os_linux {
namespace {

result<socket_name> unix_name(const std::string& path) {
    sockaddr_un name = {};
    if (path.empty() || path.size() >= sizeof name.sun_path) {
        return fail(errc::invalid, "the path of a Unix socket has 1 to 107 characters: '" + path + "'");
    }
    name.sun_family = AF_UNIX;
    std::memcpy(name.sun_path, path.data(), path.size());
    socket_name made;
    made.length = sizeof name;
    std::memcpy(&made.storage, &name, sizeof name);
    return made;
}

result<socket_name> look_up(const address& of, int flags) {
    if (of.kind == address::family::unix_path) return unix_name(of.host);
    addrinfo hints = {}, *found = nullptr;
    hints.ai_family = of.kind == address::family::ipv6 ? AF_INET6 : AF_INET;
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = flags | AI_NUMERICSERV;
    int outcome = ::getaddrinfo(of.host.c_str(), std::to_string(of.port).c_str(), &hints, &found);
    if (outcome != 0) return fail(errc::not_found, of.host + ": " + ::gai_strerror(outcome));
    socket_name made;
    made.length = found->ai_addrlen;
    std::memcpy(&made.storage, found->ai_addr, found->ai_addrlen);
    ::freeaddrinfo(found);
    return made;
}

// An errno, or 0.
int bind_and_listen(listening_socket& made, const socket_name& name) {
    int socket = made.socket.get();
    if (made.lock) {
        ::fchmod(socket, 0600);  // before bind: the file is born with it
    } else {
        int yes = 1;
        ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    }
    if (::bind(socket, name.get(), name.length) != 0) return errno;
    if (made.lock) made.lock->bound();
    return ::listen(socket, SOMAXCONN) != 0 ? errno : 0;
}

}  // namespace

result<socket_name> numeric_name(const address& of) { return look_up(of, AI_NUMERICHOST); }
result<socket_name> resolved_name(const address& of) { return look_up(of, 0); }

address address_of(const socket_name& name) {
    address made;
    if (name.storage.ss_family == AF_UNIX) {
        made.kind = address::family::unix_path;
        sockaddr_un path = {};
        std::memcpy(&path, &name.storage, std::min<std::size_t>(name.length, sizeof path));
        made.host.assign(path.sun_path, ::strnlen(path.sun_path, sizeof path.sun_path));
        return made;
    }
    made.kind = name.storage.ss_family == AF_INET6 ? address::family::ipv6 : address::family::ipv4;
    char host[NI_MAXHOST] = "", port[NI_MAXSERV] = "";
    ::getnameinfo(name.get(), name.length, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV);
    made.host = host;
    std::from_chars(port, port + std::strlen(port), made.port);
    return made;
}

address local_address(int socket) {
    socket_name name;
    name.length = sizeof name.storage;
    if (::getsockname(socket, name.get(), &name.length) != 0) return {};
    return address_of(name);
}

address peer_address(int socket) {
    socket_name name;
    name.length = sizeof name.storage;
    if (::getpeername(socket, name.get(), &name.length) != 0) return {};
    return address_of(name);
}

result<descriptor> new_socket(int family) {
    descriptor made(::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!made) return fail(from_errno(errno));
    tune(made.get(), family);
    return made;
}

void tune(int socket, int family) noexcept {
    if (family == AF_UNIX) return;
    int yes = 1;
    ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
}

result<listening_socket> open_listener(const address& at) {
    auto name = resolved_name(at);
    if (!name) return std::unexpected(std::move(name).error());
    listening_socket made;
    if (at.kind == address::family::unix_path) {
        auto lock = unix_lock::take(at.host);
        if (!lock) return std::unexpected(std::move(lock).error());
        made.lock = std::move(*lock);
    }
    auto socket = new_socket(name->storage.ss_family);
    if (!socket) return std::unexpected(std::move(socket).error());
    made.socket = std::move(*socket);
    if (int failed = bind_and_listen(made, *name); failed != 0) {
        return fail(from_errno(failed), "cannot listen at " + at.to_string());
    }
    made.local = at.kind == address::family::unix_path ? at : local_address(made.socket.get());
    return made;
}

}  // namespace varve::env::os_linux
