#include "app/known_methods.h"

#include "app/modules.h"
#include "env/linux/make_system.h"
#include "thread/runtime.h"

namespace varve::app {

// A system that never runs.
struct known_methods::parts {
    log silent{[](const log::line&) {}};
    std::unique_ptr<env::system> world =
        env::os_linux::make_system({.kind = env::os_linux::loop_kind::epoll, .hugepages = false});
    result<std::unique_ptr<thread::runtime>> threads = thread::runtime::make(*world, {});
    std::unique_ptr<server::instance> system;
};

known_methods::known_methods() : _parts(std::make_unique<parts>()) {
    if (!_parts->threads) return;
    _parts->system = std::make_unique<server::instance>(**_parts->threads, _parts->silent, server::instance::options{});
    add_modules(*_parts->system);
}

known_methods::~known_methods() = default;

const rpc::registry* known_methods::get() const noexcept {
    return _parts->system ? &_parts->system->methods() : nullptr;
}

}  // namespace varve::app
