// One system as its administrator sees it: its methods, its subsystems and the state they are in. App thread.
//
//   instance i(threads, log, {});
//   i.add(std::make_unique<...>());       in the order in which they start
//   co_await i.start();                   start-up ends, run time begins
//   co_await i.call("bdev_get_bdevs", {});
//   co_await i.stop();                    in the opposite order
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "jobs/registry.h"
#include "rpc/subsystem.h"
#include "server/notifications.h"
#include "thread/sync.h"
#include "util/log.h"

namespace varve::thread {
class runtime;
}

namespace varve::server {

class instance {
  public:
    struct options {
        int process_id = 0;                          // as framework_get_reactors reports it
        std::function<void(std::string_view)> kill;  // spdk_kill_instance, with the signal's name
        std::vector<std::string> allowed_methods;    // --rpcs-allowed; empty: all
    };
    instance(thread::runtime& threads, log& system_log, options how);
    ~instance();

    // Its methods are there at once. Before start().
    void add(std::unique_ptr<rpc::subsystem> part);
    // Once all are added: names of the past under which present methods are still called.
    void add_old_names();
    const std::vector<std::unique_ptr<rpc::subsystem>>& subsystems() const noexcept { return _parts; }
    const rpc::subsystem* find(std::string_view name) const noexcept;

    rpc::registry& methods() noexcept { return _methods; }
    bool may_be_called(std::string_view method) const noexcept;
    rpc::states state() const noexcept { return _state; }
    task<json::value> call(std::string_view method, json::value params);

    // Starts every subsystem. When one fails, so does this; stop() tidies up. errc::rpc_invalid_state the second time.
    task<> start();
    // Until start() has ended; its error is everybody's.
    task<> wait_started();
    task<> stop();

    thread::runtime& threads() noexcept { return _threads; }
    log& system_log() noexcept { return _log; }
    notifications& events() noexcept { return _events; }
    jobs::registry& jobs() noexcept { return _jobs; }
    const options& how() const noexcept { return _how; }

  private:
    task<> start_parts();

    thread::runtime& _threads;
    log& _log;
    const options _how;
    rpc::registry _methods;
    notifications _events;
    jobs::registry _jobs;
    std::vector<std::unique_ptr<rpc::subsystem>> _parts;
    std::size_t _begun = 0;  // how many have been asked to start
    rpc::states _state = rpc::states::startup;
    bool _starting = false;
    event _start_ended;
    result<> _start_outcome;
};

}  // namespace varve::server
