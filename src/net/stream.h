// A connection that a coroutine reads and writes.
//
//   net::stream s = co_await net::connect(address);
//   co_await s.write(request);
//   std::size_t got = co_await s.read_some(buffer);   0: the peer sends nothing more
//   co_await s.read_exactly(header);                  errc::reset when it ends before that
//
// After the peer ended its sending, writing goes on until the stream is destroyed.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "env/socket.h"
#include "thread/task.h"

namespace varve::net {

class stream {
  public:
    // Of a connected socket that was not started, on the current thread.
    explicit stream(std::unique_ptr<env::socket> connection);
    stream(stream&& other) noexcept;
    stream& operator=(stream&& other) noexcept;
    ~stream();

    // The memory must stay until the task has ended, also when the stream is destroyed before.
    task<std::size_t> read_some(std::span<std::byte> into);
    task<> read_exactly(std::span<std::byte> into);
    task<> write(std::span<const std::byte> bytes);
    task<> write(std::span<const iovec> pieces);

    // Ends the connection; whoever waits is told. The destructor does it too.
    void close() noexcept;

    const env::address& local() const noexcept;
    const env::address& peer() const noexcept;

  private:
    class connection;
    static task<std::size_t> read_some(connection& from, std::span<std::byte> into);
    static task<> read_exactly(connection& from, std::span<std::byte> into);
    static task<> write(connection& to, std::vector<iovec> pieces);
    void let_go() noexcept;

    connection* _connection;  // outlives us until the loop and its last user have let go of it
};

task<stream> connect(env::address to);

}  // namespace varve::net
