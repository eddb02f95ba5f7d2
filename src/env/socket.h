// Stream sockets (TCP and Unix) as a loop offers them: bytes are pushed to a handler, sends are gathered and ordered.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "util/result.h"

namespace varve::env {

// Where to listen or connect. Unix: `path`. TCP: numeric or resolvable host and port.
struct address {
    enum class family : uint8_t { ipv4, ipv6, unix_path };
    family kind = family::ipv4;
    std::string host;  // "127.0.0.1", "::1"; for unix_path the path
    uint16_t port = 0;
    std::string to_string() const;
    bool operator==(const address&) const = default;
};

// One gathered send. The op, its iov array and the memory it points to belong to the socket from send() until done().
struct send_op {
    send_op* next = nullptr;  // the socket's
    void (*done)(send_op&) noexcept = nullptr;
    iovec* iov = nullptr;  // may be modified by the socket (a partly sent op)
    uint32_t iov_count = 0;
    int32_t result = 0;  // 0, or a negated errno when the connection broke before all was handed to the kernel
};

class socket_handler {
  public:
    // Bytes arrived, valid during the call only. Returns how many were consumed; if fewer than all, the socket keeps
    // the rest, stops receiving, and offers them again (with more) after resume_receive().
    virtual std::size_t on_data(std::span<const std::byte> bytes) noexcept = 0;
    // The last call ever made for this socket: nothing refers to the handler, its sends or its memory any more. The
    // socket may be destroyed from inside. `reason`: 0 for an orderly end by the peer or by close(), else a negated
    // errno. Every queued send has had its done() before.
    virtual void on_closed(int reason) noexcept = 0;
    // The peer will send nothing more, but may still read; all it sent has been consumed, all that was queued is sent.
    // True ends the connection; after false it stays for what is still to be sent, until the handler closes it. Once.
    virtual bool on_peer_end() noexcept { return true; }
    // All bytes of one turn have been offered: a good moment to send what they caused.
    virtual void on_batch_end() noexcept {}

  protected:
    ~socket_handler() = default;
};

class socket {
  public:
    // Only after on_closed, or before start().
    virtual ~socket() = default;
    // Begins receiving; once.
    virtual void start(socket_handler& handler) noexcept = 0;
    // Sends in the order given; several ops are gathered in one system call where possible. More than one may be
    // queued.
    virtual void send(send_op& op) noexcept = 0;
    virtual void resume_receive() noexcept = 0;
    // Ends the connection; drops unsent data. on_closed follows from the loop, later, also when the peer has gone.
    virtual void close() noexcept = 0;
    virtual const address& local() const noexcept = 0;
    virtual const address& peer() const noexcept = 0;
};

class accept_handler {
  public:
    // A new connection, not started. It belongs to the listener's loop; see loop::adopt to move it to another.
    virtual void on_accept(std::unique_ptr<socket> connection) noexcept = 0;

  protected:
    ~accept_handler() = default;
};

// Accepts until destroyed. Destroying it never waits; no on_accept comes afterwards.
class listener {
  public:
    virtual ~listener() = default;
    virtual const address& local() const noexcept = 0;  // with the real port when 0 was asked for
};

}  // namespace varve::env
