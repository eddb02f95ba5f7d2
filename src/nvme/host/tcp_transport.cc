#include <coroutine>
#include <optional>

#include "env/loop.h"
#include "nvme/host/transport.h"
#include "thread/thread.h"

namespace varve::nvme::host {

namespace {

// co_await connecting(loop, address)
class connecting final : env::connect_handler {
  public:
    connecting(thread::thread& here, const env::address& to) noexcept : _here(here), _to(to) {}
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> waiter) {
        _waiter = waiter;
        _here.pin();  // the loop has our address until it answers
        _here.loop().connect(_to, *this);
    }
    result<std::unique_ptr<env::socket>> await_resume() {
        _here.unpin();
        return std::move(*_outcome);
    }

  private:
    void on_connect(result<std::unique_ptr<env::socket>> outcome) noexcept override {
        thread::entered in(_here);
        _outcome.emplace(std::move(outcome));
        _waiter.resume();
    }
    thread::thread& _here;
    const env::address& _to;
    std::optional<result<std::unique_ptr<env::socket>>> _outcome;
    std::coroutine_handle<> _waiter;
};

class tcp_transport final : public transport {
  public:
    tcp_transport(env::address to, const tcp_options& options) : _to(std::move(to)), _options(options) {}

    task<std::unique_ptr<queue_pair>> open(queue_options options) const override {
        thread::thread& here = *thread::thread::current();
        result<std::unique_ptr<env::socket>> connection = co_await connecting(here, _to);
        if (!connection) co_return varve::fail(std::move(connection).error().in("connecting to " + describe()));
        std::unique_ptr<queue_pair> queue =
            std::make_unique<tcp_queue_pair>(&here, options, _options, std::move(*connection));
        result<> opened = co_await as_result(queue->opened());
        if (!opened) {
            co_await queue->close();
            co_return varve::fail(std::move(opened).error().in("connecting to " + describe()));
        }
        co_return std::move(queue);
    }

    std::string describe() const override { return "tcp://" + _to.to_string(); }

  private:
    const env::address _to;
    const tcp_options _options;
};

}  // namespace

std::unique_ptr<transport> make_tcp_transport(env::address to, const tcp_options& options) {
    return std::make_unique<tcp_transport>(std::move(to), options);
}

}  // namespace varve::nvme::host
