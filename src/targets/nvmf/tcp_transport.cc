// Listening for NVMe/TCP connections: accepted on the app thread, then handed to a poll group.
#include <memory>
#include <vector>

#include "env/loop.h"
#include "targets/nvmf/poll_group.h"
#include "targets/nvmf/target.h"
#include "targets/nvmf/tcp_connection.h"
#include "targets/nvmf/transport.h"

namespace varve::targets::nvmf {

namespace {

class tcp_transport final : public transport {
  public:
    tcp_transport(target& of, transport_options options) : transport(std::move(options)), _target(of) {}

    task<> listen(const env::address& at) override {
        if (entry* open = find(at)) {
            ++open->users;
            co_return;
        }
        auto made = std::make_unique<entry>(*this, at);
        made->socket = co_await _target.system().app_thread().loop().listen(at, *made);
        _open.push_back(std::move(made));
    }

    void stop_listening(const env::address& at) noexcept override {
        entry* open = find(at);
        if (open == nullptr || --open->users != 0) return;
        std::erase_if(_open, [open](auto& e) { return e.get() == open; });
    }

  private:
    struct entry final : env::accept_handler {
        entry(tcp_transport& transport, env::address address) : of(transport), at(std::move(address)) {}
        void on_accept(std::unique_ptr<env::socket> connection) noexcept override { of.place(std::move(connection)); }

        tcp_transport& of;
        env::address at;
        uint32_t users = 1;
        std::unique_ptr<env::listener> socket;
    };

    entry* find(const env::address& at) noexcept {
        for (auto& e : _open)
            if (e->at == at) return e.get();
        return nullptr;
    }

    // Takes the connection to the poll group whose turn it is.
    void place(std::unique_ptr<env::socket> connection) noexcept {
        thread::entered in(_target.system().app_thread());
        poll_group& group = _target.next_group();
        auto travelling = _target.system().app_thread().loop().detach(std::move(connection));
        group.thread().post([this, &group, travelling = std::move(travelling)]() mutable {
            auto arrived = group.thread().loop().adopt(std::move(travelling));
            if (!arrived)
                return _target.log().error("a connection was lost on the way to its poll group: " +
                                           arrived.error().message());
            if (group.ending) return;  // the target is stopping
            tcp_connection::run(group, std::move(*arrived), _options);
        });
    }

    target& _target;
    std::vector<std::unique_ptr<entry>> _open;
};

}  // namespace

std::unique_ptr<transport> make_tcp_transport(target& of, transport_options options) {
    return std::make_unique<tcp_transport>(of, std::move(options));
}

}  // namespace varve::targets::nvmf
