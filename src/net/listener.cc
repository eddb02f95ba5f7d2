#include "net/listener.h"

#include <deque>
#include <utility>

#include "env/loop.h"
#include "net/parked.h"
#include "util/assert.h"

namespace varve::net {

// The connections that came and were not taken yet.
class listener::line final : public env::accept_handler {
  public:
    line() : _home(*thread::thread::current()) {}
    ~line() {
        if (_doors) _home.unpin();
        if (_waiter != nullptr) _waiter->go_on(_home);
    }

    result<> open(const env::address& at) {
        auto opened = _home.loop().listen(at, *this);
        if (!opened) return std::unexpected(std::move(opened).error());
        _doors = std::move(*opened);
        _home.pin();
        return {};
    }
    const env::address& local() const noexcept { return _doors->local(); }

    class next final : public parked {
      public:
        explicit next(line& of) noexcept : _of(of) {}
        bool await_ready() noexcept {
            if (_of._came.empty()) return false;
            _taken = std::move(_of._came.front());
            _of._came.pop_front();
            return true;
        }
        void await_suspend(std::coroutine_handle<> who) noexcept {
            VARVE_ASSERT(_of._waiter == nullptr);  // one at a time
            park(who);
            _of._waiter = this;
        }
        // Null: the listener has gone.
        std::unique_ptr<env::socket> await_resume() noexcept { return std::move(_taken); }

      private:
        friend class line;
        line& _of;
        std::unique_ptr<env::socket> _taken;
    };

  private:
    void on_accept(std::unique_ptr<env::socket> connection) noexcept override {
        thread::entered in(_home);
        if (_waiter != nullptr) {
            next& waiter = *std::exchange(_waiter, nullptr);
            waiter._taken = std::move(connection);
            waiter.go_on(_home);
        } else if (_came.size() < waiting_max) {
            _came.push_back(std::move(connection));
        }
    }

    static constexpr std::size_t waiting_max = 1024;
    thread::thread& _home;
    std::unique_ptr<env::listener> _doors;
    std::deque<std::unique_ptr<env::socket>> _came;
    next* _waiter = nullptr;
};

listener::listener(std::unique_ptr<line> made) noexcept : _line(std::move(made)) {}
listener::listener(listener&&) noexcept = default;
listener& listener::operator=(listener&&) noexcept = default;
listener::~listener() = default;

result<listener> listener::open(const env::address& at) {
    auto made = std::make_unique<line>();
    VARVE_TRY(made->open(at));
    return listener(std::move(made));
}

task<stream> listener::accept() {
    auto taken = co_await line::next(*_line);
    if (!taken) co_return fail(errc::cancelled, "the listener has gone");
    co_return stream(std::move(taken));
}

const env::address& listener::local() const noexcept { return _line->local(); }

}  // namespace varve::net
