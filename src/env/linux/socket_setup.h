// Addresses as the kernel has them, and descriptors that listen or will connect.
#pragma once

#include <sys/socket.h>

#include <memory>
#include <vector>

#include "env/linux/descriptor.h"
#include "env/linux/unix_lock.h"
#include "env/socket.h"

namespace varve::env::os_linux {

struct socket_name {
    sockaddr_storage storage = {};
    socklen_t length = 0;
    sockaddr* get() noexcept { return reinterpret_cast<sockaddr*>(&storage); }
    const sockaddr* get() const noexcept { return reinterpret_cast<const sockaddr*>(&storage); }
};

// Numeric hosts and Unix paths; errc::not_found for a host that must be resolved.
result<socket_name> numeric_name(const address& of);
// Asks the resolver; may block for long.
result<socket_name> resolved_name(const address& of);
address address_of(const socket_name& name);
address local_address(int socket);
address peer_address(int socket);

// A socket that never blocks, without Nagle's delay.
result<descriptor> new_socket(int family);
void tune(int socket, int family) noexcept;

struct listening_socket {
    descriptor socket;
    address local;
    std::unique_ptr<unix_lock> lock;  // of the path of a Unix socket
};
result<listening_socket> open_listener(const address& at);

}  // namespace varve::env::os_linux
