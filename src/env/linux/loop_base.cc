#include "env/linux/loop_base.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <cerrno>

#include "util/assert.h"

namespace varve::env::os_linux {
namespace {

class detached final : public detached_socket {
  public:
    detached(descriptor moved, address at, address other) noexcept
        : connection(std::move(moved)), local(std::move(at)), peer(std::move(other)) {}
    descriptor connection;
    address local, peer;
};

descriptor spare_descriptor() noexcept { return descriptor(::open("/dev/null", O_RDONLY | O_CLOEXEC)); }

}  // namespace

// A name on its way through the resolver: asked on a helper, answered on the loop. Destroys itself.
class loop_base::resolution final : public work {
  public:
    resolution(loop_base& home, address of, connect_handler& handler)
        : _home(home), _of(std::move(of)), _handler(handler) {
        run = [](work& self) noexcept { static_cast<resolution&>(self).ask(); };
    }

  private:
    void ask() noexcept {
        _found = resolved_name(_of);
        run = [](work& self) noexcept { static_cast<resolution&>(self).answer(); };
        _home.hand_back(*this);
    }
    void answer() noexcept {
        std::unique_ptr<resolution> mine(this);
        _home.ended();
        if (_found) {
            _home.start_connect(*_found, _handler);
        } else {
            _handler.on_connect(fail(std::move(_found).error()));
        }
    }

    loop_base& _home;
    const address _of;
    connect_handler& _handler;
    result<socket_name> _found;
};

// A failure to connect that is known at once; told from the next turn.
namespace {
class early_failure final : public work {
  public:
    early_failure(loop_base& home, error what, connect_handler& handler)
        : _home(home), _what(std::move(what)), _handler(handler) {
        run = [](work& self) noexcept { static_cast<early_failure&>(self).tell(); };
    }

  private:
    void tell() noexcept {
        std::unique_ptr<early_failure> mine(this);
        _home.ended();
        _handler.on_connect(fail(std::move(_what)));
    }

    loop_base& _home;
    error _what;
    connect_handler& _handler;
};
}  // namespace

timespec time_left(time_ns deadline) noexcept {
    timespec now = {};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    time_ns left = std::max<time_ns>(deadline - (now.tv_sec * seconds + now.tv_nsec), 0);
    return {.tv_sec = left / seconds, .tv_nsec = left % seconds};
}

loop_base::loop_base(const surroundings& around)
    : _around(around), _wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)), _spare(spare_descriptor()) {}

loop_base::~loop_base() { VARVE_ASSERT(_in_flight == 0); }

void loop_base::wake() noexcept { ::eventfd_write(_wake.get(), 1); }

void loop_base::ended() noexcept {
    VARVE_ASSERT(_in_flight > 0);
    --_in_flight;
}

bool loop_base::turn(bool may_sleep, time_ns deadline) noexcept {
    _ran = false;
    attend();
    run_handed_back();
    while (socket_base* s = _flush.pop_front()) s->transmit();
    exchange(may_sleep && !_ran && _attention.empty(), deadline);
    run_handed_back();
    while (socket_base* s = _batch.pop_front()) s->batch_ended();
    attend();
    return _ran;
}

// A connection that is not quiet yet takes itself off the list and comes back when it is; what callbacks add is for the
// next turn.
void loop_base::attend() noexcept {
    list<socket_base, attention_tag> now;
    while (socket_base* s = _attention.pop_front()) now.push_back(*s);
    while (socket_base* s = now.pop_front()) s->attend();
}

// All under the lock: once the loop has taken w it may be destroyed, and we must be through with it.
void loop_base::hand_back(work& w) noexcept {
    std::lock_guard lock(_hand_back_mutex);
    _hand_back_queue.push(w);
    _handed_back.store(true, std::memory_order_release);
    wake();
}

void loop_base::run_handed_back() noexcept {
    if (!_handed_back.load(std::memory_order_acquire)) return;
    work* chain = nullptr;
    {
        std::lock_guard lock(_hand_back_mutex);
        _handed_back.store(false, std::memory_order_relaxed);
        chain = _hand_back_queue.take_all();
    }
    while (chain != nullptr) {
        work* next = chain->next;
        chain->run(*chain);
        chain = next;
        _ran = true;
    }
}

void loop_base::connect(const address& to, connect_handler& handler) {
    if (auto name = numeric_name(to)) {
        start_connect(*name, handler);
    } else if (name.error().code() == errc::not_found) {
        began();
        _around.blocking.submit(*new resolution(*this, to, handler));
    } else {
        began();
        fail_connect_later(std::move(name).error(), handler);
    }
}

void loop_base::start_connect(const socket_name& name, connect_handler& handler) {
    began();
    auto made = new_socket(name.storage.ss_family);
    if (made) {
        connect_to(name, std::move(*made), handler);
    } else {
        fail_connect_later(std::move(made).error(), handler);
    }
}

void loop_base::fail_connect_later(error what, connect_handler& handler) {
    hand_back(*new early_failure(*this, std::move(what), handler));
}

void loop_base::deliver_connected(descriptor connection, int failure, connect_handler& handler) noexcept {
    ended();
    _ran = true;
    if (failure != 0) {
        handler.on_connect(fail(from_errno(failure)));
        return;
    }
    address local = local_address(connection.get()), peer = peer_address(connection.get());
    handler.on_connect(make_socket(std::move(connection), std::move(local), std::move(peer)));
}

void loop_base::deliver_accepted(descriptor connection, const address& listening_at, accept_handler& handler) noexcept {
    _ran = true;
    bool path = listening_at.kind == address::family::unix_path;
    tune(connection.get(), path ? AF_UNIX : AF_INET);
    address local = path ? listening_at : local_address(connection.get());
    address peer = path ? address{address::family::unix_path, "", 0} : peer_address(connection.get());
    handler.on_accept(make_socket(std::move(connection), std::move(local), std::move(peer)));
}

void loop_base::refuse_one(int listening) noexcept {
    _spare.reset();
    descriptor(::accept4(listening, nullptr, nullptr, SOCK_CLOEXEC));
    _spare = spare_descriptor();
}

std::unique_ptr<detached_socket> loop_base::detach(std::unique_ptr<env::socket> connection) noexcept {
    auto& mine = static_cast<socket_base&>(*connection);
    VARVE_ASSERT(!mine.started());
    return std::make_unique<detached>(mine.take_descriptor(), mine.local(), mine.peer());
}

result<std::unique_ptr<env::socket>> loop_base::adopt(std::unique_ptr<detached_socket> connection) {
    auto& moved = static_cast<detached&>(*connection);
    return make_socket(std::move(moved.connection), std::move(moved.local), std::move(moved.peer));
}

}  // namespace varve::env::os_linux
