// The server of a scenario: a whole system, started again whenever the power has come back.
#include <fmt/format.h>

#include <optional>

#include "bdev/methods/service.h"
#include "json/parse.h"
#include "modules/file.h"
#include "modules/malloc.h"
#include "server/instance.h"
#include "server/kept_options.h"
#include "sim/shared_state.h"
#include "targets/nvmf/methods/service.h"
#include "thread/awaits.h"
#include "thread/runtime.h"

namespace varve::sim {

namespace {

class storage_server {
  public:
    storage_server(shared_state& s, thread::runtime& threads)
        : _s(s), _lines([](const log::line&) {}), _instance(threads, _lines, {}) {
        _instance.add(server::make_sock());
        _instance.add(server::make_iobuf());
        _instance.add(server::make_accel());
        auto bdevs = std::make_unique<bdev::service>(threads);
        bdevs->add(modules::make_malloc());
        bdevs->add(modules::make_aio());
        bdev::registry& devices = bdevs->devices();
        _instance.add(std::move(bdevs));
        _instance.add(std::make_unique<targets::nvmf::service>(threads, devices, _lines.component("nvmf")));
    }

    task<> live() {
        uint64_t cuts = _s.result.power_cuts;
        auto served = co_await as_result(serve());
        if (!served && cuts == _s.result.power_cuts) _s.problem("the server: " + served.error().message());
        co_await _instance.stop();
    }

  private:
    task<> call(std::string method, std::string params) {
        auto parsed = co_await json::parse(params);
        auto reply = co_await as_result(_instance.call(method, std::move(parsed)));
        if (!reply) co_await fail(std::move(reply).error().in(method));
    }
    std::string with_nqn(const std::string& further) {
        return fmt::format(R"({{"nqn": "{}", {}}})", subsystem_nqn, further);
    }

    task<> serve() {
        co_await _instance.start();
        co_await call("bdev_aio_create",
                      fmt::format(R"({{"name": "disk0", "filename": "{}", "block_size": 512}})", disk_path));
        co_await call("bdev_malloc_create", R"({"name": "ram0", "num_blocks": 64, "block_size": 512})");
        co_await call("nvmf_create_transport", R"({"trtype": "TCP"})");
        co_await call("nvmf_create_subsystem", with_nqn(R"("allow_any_host": true)"));
        co_await call("nvmf_subsystem_add_ns", with_nqn(R"("namespace": {"bdev_name": "disk0", "nsid": 1})"));
        co_await call("nvmf_subsystem_add_listener",
                      with_nqn(fmt::format(
                          R"("listen_address": {{"trtype": "TCP", "adrfam": "IPv4", "traddr": "{}", "trsvcid": "{}"}})",
                          _s.server.host(), port)));
        if (!_s.server_must_end) _s.server_is_up = true;
        while (!_s.server_must_end && !_s.over) {
            co_await sleep((1 + static_cast<time_ns>(_s.server.random() % 5)) * milliseconds);
            if (_s.how.change_namespaces) co_await change_namespaces();
        }
    }

    task<> change_namespaces() {
        if (_s.grow_to != 0) {
            _s.disk->resize(std::exchange(_s.grow_to, 0) * 512);
            co_await call("bdev_aio_rescan", R"({"name": "disk0"})");
            ++_s.result.namespace_changes;
        }
        // Not faster than a host can look: it lists namespaces again as long as they change meanwhile.
        if (_s.all.now() < _next_change) co_return;
        _next_change = _s.all.now() + 40 * _s.all.options().link.delay_max +
                       static_cast<time_ns>(_s.server.random() % 100) * milliseconds;
        if (_second_there) {
            co_await call("nvmf_subsystem_remove_ns", with_nqn(R"("nsid": 2)"));
        } else {
            co_await call("nvmf_subsystem_add_ns", with_nqn(R"("namespace": {"bdev_name": "ram0", "nsid": 2})"));
        }
        _second_there = !_second_there;
        ++_s.result.namespace_changes;
    }

    shared_state& _s;
    log _lines;
    server::instance _instance;
    bool _second_there = false;
    time_ns _next_change = 0;
};

}  // namespace

void live_as_server(shared_state& s) {
    while (!s.over) {
        s.server.restore_power();
        s.server_must_end = false;
        thread::cpu_set cpus;
        uint64_t count = 1 + s.server.random() % 3;
        for (unsigned i = 0; i < count; ++i) cpus.add(i);
        auto threads = thread::runtime::make(s.server, {.cpus = cpus});
        if (!threads) return s.problem("no runtime: " + threads.error().message());
        {
            storage_server server(s, **threads);
            (*threads)->app_thread().post([&] {
                start_detached(server.live(), [&](result<> done) {
                    if (!done) s.problem("the server's end: " + done.error().message());
                    (*threads)->stop();
                });
            });
            (*threads)->run();
        }
        // A machine takes its time to come up again.
        if (!s.over) s.all.pause(100 * milliseconds);
    }
}

}  // namespace varve::sim
