#include "app/rpc_client.h"

#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "json/parse.h"
#include "json/splitter.h"

namespace varve::app {

namespace {

class descriptor {
  public:
    explicit descriptor(int number) noexcept : _number(number) {}
    descriptor(descriptor&& other) noexcept : _number(std::exchange(other._number, -1)) {}
    ~descriptor() {
        if (_number >= 0) ::close(_number);
    }
    int get() const noexcept { return _number; }

  private:
    int _number;
};

std::unexpected<error> failed(std::string_view what) {
    errc code = errno == EAGAIN ? errc::timed_out : from_errno(errno);
    return fail(code, what);
}

result<descriptor> connect_to(const std::string& path, unsigned timeout_s) {
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    if (path.empty() || path.size() >= sizeof name.sun_path) return fail(errc::invalid, "socket path " + path);
    std::memcpy(name.sun_path, path.data(), path.size());
    descriptor s(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (s.get() < 0) return failed("socket");
    timeval limit{static_cast<time_t>(timeout_s), 0};
    ::setsockopt(s.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    ::setsockopt(s.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (::connect(s.get(), reinterpret_cast<sockaddr*>(&name), sizeof name) != 0) return failed("no server at " + path);
    return s;
}

}  // namespace

result<json::value> exchange(const std::string& socket_path, std::string_view document, unsigned timeout_s) {
    auto s = connect_to(socket_path, timeout_s);
    if (!s) return std::unexpected(std::move(s).error());
    while (!document.empty()) {
        ssize_t sent = ::send(s->get(), document.data(), document.size(), MSG_NOSIGNAL);
        // A server that refuses to read on says why before it closes.
        if (sent < 0 && (errno == EPIPE || errno == ECONNRESET)) break;
        if (sent < 0) return failed("sending the request");
        document.remove_prefix(static_cast<std::size_t>(sent));
    }
    json::splitter split(std::size_t{1} << 30);
    std::string buffer(std::size_t{64} << 10, '\0');
    for (;;) {
        ssize_t got = ::recv(s->get(), buffer.data(), buffer.size(), 0);
        if (got < 0) return failed("waiting for the answer");
        if (got == 0) return fail(errc::reset, "the server closed the connection without an answer");
        std::string_view bytes(buffer.data(), static_cast<std::size_t>(got));
        auto answer = split.next(bytes);
        if (!answer) return std::unexpected(std::move(answer).error());
        if (*answer) return json::parse(**answer);
    }
}

}  // namespace varve::app
