#include "net/stream.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <vector>

#include "env/loop.h"
#include "net/parked.h"
#include "thread/thread.h"
#include "util/assert.h"

namespace varve::net {
// The handler of the socket. Lives until the connection is closed, the stream has let go, and no task uses it.
class stream::connection final : public env::socket_handler {
  public:
    explicit connection(std::unique_ptr<env::socket> s)
        : _socket(std::move(s)), _home(*thread::thread::current()), local(_socket->local()), peer(_socket->peer()) {
        _home.pin();
        _socket->start(*this);
    }

    // Keeps the connection while a task is about it.
    class use {
      public:
        explicit use(connection& of) noexcept : _of(of) { ++_of._uses; }
        use(const use&) = delete;
        ~use() {
            --_of._uses;
            _of.end_if_unused();
        }

      private:
        connection& _of;
    };

    class reading : public parked {
      public:
        reading(connection& from, std::span<std::byte> into) noexcept : _from(from), _into(into) {}
        bool await_ready() const noexcept { return _from._peer_ended || _from._over || _into.empty(); }
        void await_suspend(std::coroutine_handle<> who) noexcept {
            VARVE_ASSERT(_from._reader == nullptr);  // one at a time
            park(who);
            _from._reader = this;
            _from._socket->resume_receive();
        }
        std::size_t await_resume() const noexcept { return _got; }
        std::size_t take(std::span<const std::byte> bytes) noexcept {
            _got = std::min(bytes.size(), _into.size());
            std::memcpy(_into.data(), bytes.data(), _got);
            return _got;
        }

      private:
        connection& _from;
        const std::span<std::byte> _into;
        std::size_t _got = 0;
    };

    class writing : public parked {
      public:
        writing(connection& to, std::span<iovec> pieces) noexcept : _to(to) {
            _op.mine = this;
            _op.iov = pieces.data();
            _op.iov_count = static_cast<uint32_t>(pieces.size());
            _op.done = [](env::send_op& op) noexcept {
                writing& self = *static_cast<operation&>(op).mine;
                thread::entered in(self._to._home);
                self.go_on(self._to._home);
            };
        }
        void await_suspend(std::coroutine_handle<> who) noexcept {
            park(who);
            _to._socket->send(_op);
        }
        int await_resume() const noexcept { return _op.result; }

      private:
        struct operation : env::send_op {
            writing* mine = nullptr;
        };
        connection& _to;
        operation _op;
    };

    bool over() const noexcept { return _over; }
    // Why nothing more can be done, for a task that wanted something.
    error why() const {
        if (_closed_here) return error(errc::cancelled);
        return _reason != 0 ? error(from_errno(_reason)) : error(errc::pipe);
    }
    // An end that is no orderly one, for a reader.
    bool broken() const noexcept { return _over && (_closed_here || _reason != 0); }

    void close() noexcept {
        _closed_here = true;
        if (!_over) _socket->close();
    }
    void abandon() noexcept {
        _abandoned = true;
        close();
        end_if_unused();
    }

  private:
    std::size_t on_data(std::span<const std::byte> bytes) noexcept override {
        if (_reader == nullptr) return 0;
        thread::entered in(_home);
        reading& reader = *std::exchange(_reader, nullptr);
        std::size_t taken = reader.take(bytes);
        reader.go_on(_home);
        return taken;
    }
    bool on_peer_end() noexcept override {
        _peer_ended = true;
        wake_reader();
        return false;
    }
    void on_closed(int reason) noexcept override {
        _over = true;
        _reason = reason;
        _socket.reset();
        wake_reader();
        thread::entered in(_home);
        _home.unpin();
        end_if_unused();
    }
    void wake_reader() noexcept {
        if (_reader == nullptr) return;
        thread::entered in(_home);
        std::exchange(_reader, nullptr)->go_on(_home);
    }
    void end_if_unused() noexcept {
        if (_abandoned && _over && _uses == 0) delete this;
    }

    std::unique_ptr<env::socket> _socket;  // null when over
    thread::thread& _home;
    reading* _reader = nullptr;
    std::size_t _uses = 0;
    int _reason = 0;
    bool _peer_ended = false, _closed_here = false, _over = false, _abandoned = false;

  public:
    const env::address local, peer;
};

stream::stream(std::unique_ptr<env::socket> s) : _connection(new connection(std::move(s))) {}
stream::stream(stream&& other) noexcept : _connection(std::exchange(other._connection, nullptr)) {}
stream& stream::operator=(stream&& other) noexcept {
    std::swap(_connection, other._connection);
    return *this;
}
stream::~stream() {
    if (_connection != nullptr) _connection->abandon();
}
void stream::close() noexcept { _connection->close(); }
const env::address& stream::local() const noexcept { return _connection->local; }
const env::address& stream::peer() const noexcept { return _connection->peer; }

task<std::size_t> stream::read_some(std::span<std::byte> into) { return read_some(*_connection, into); }
task<> stream::read_exactly(std::span<std::byte> into) { return read_exactly(*_connection, into); }
task<> stream::write(std::span<const iovec> pieces) { return write(*_connection, {pieces.begin(), pieces.end()}); }
task<> stream::write(std::span<const std::byte> bytes) {
    // A send only reads, but iovec knows no const.
    return write(*_connection, {iovec{const_cast<std::byte*>(bytes.data()), bytes.size()}});
}

task<std::size_t> stream::read_some(connection& from, std::span<std::byte> into) {
    connection::use used(from);
    std::size_t got = co_await connection::reading(from, into);
    if (got == 0 && !into.empty() && from.broken()) co_return fail(from.why());
    co_return got;
}

task<> stream::read_exactly(connection& from, std::span<std::byte> into) {
    connection::use used(from);
    while (!into.empty()) {
        std::size_t got = co_await read_some(from, into);
        if (got == 0) co_await fail(errc::reset, "the connection ended too early");
        into = into.subspan(got);
    }
}

task<> stream::write(connection& to, std::vector<iovec> pieces) {
    connection::use used(to);
    if (to.over()) co_await fail(to.why());
    int outcome = co_await connection::writing(to, pieces);
    if (outcome != 0) co_await fail(from_errno(outcome));
}

namespace {

class connecting final : public parked, public env::connect_handler {
  public:
    explicit connecting(const env::address& to) noexcept : _to(to), _home(*thread::thread::current()) {}
    void await_suspend(std::coroutine_handle<> who) {
        park(who);
        _home.pin();
        _home.loop().connect(_to, *this);
    }
    result<std::unique_ptr<env::socket>> await_resume() noexcept { return std::move(*_outcome); }

  private:
    void on_connect(result<std::unique_ptr<env::socket>> outcome) noexcept override {
        thread::entered in(_home);
        _outcome.emplace(std::move(outcome));
        go_on(_home);
        _home.unpin();
    }

    const env::address& _to;
    thread::thread& _home;
    std::optional<result<std::unique_ptr<env::socket>>> _outcome;
};

}  // namespace

task<stream> connect(env::address to) {
    auto connected = co_await connecting(to);
    if (!connected) {
        error why = std::move(connected).error();
        co_return fail(error(why.code(), why.message() + ": cannot connect to " + to.to_string()));
    }
    co_return stream(std::move(*connected));
}

}  // namespace varve::net
