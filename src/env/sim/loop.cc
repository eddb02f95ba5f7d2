#include "env/sim/loop.h"

#include <fmt/format.h>

#include "env/sim/disk/file.h"
#include "env/sim/net/network.h"
#include "env/sim/universe.h"
#include "env/sim/world.h"
#include "util/assert.h"

namespace varve::env::sim {

loop::loop(world& in, uint64_t number)
    : _world(in),
      _universe(in.all()),
      _number(number),
      _chance(_universe.stream(fmt::format("loop {} of {}", number, in.name()))) {}

loop::~loop() { VARVE_ASSERT(_in_flight == 0); }

bool loop::poll() noexcept {
    VARVE_ASSERT(!_polling);  // a callback must not poll
    _polling = true;
    // Each op is on its own from here: start() may bring a power cut that completes others.
    for (file_op* op = _submitted.take_all(); op != nullptr;) {
        file_op* next = op->next;
        op->next = nullptr;
        static_cast<disk_file&>(*op->target).on().start(*op, *this);
        op = next;
    }
    list<ready> batch;
    std::size_t waiting = _ready.size();
    std::size_t taken = waiting < 2 || _chance.coin() ? waiting : _chance.between<std::size_t>(1, waiting);
    for (std::size_t i = 0; i < taken; ++i) batch.push_back(*_ready.pop_front());
    while (ready* next = batch.pop_front()) next->deliver();
    _polling = false;
    return taken > 0;
}

bool loop::wait(time_ns deadline) noexcept {
    bool woken = std::exchange(_woken, false);
    bool ran = poll();
    if (ran || woken) return ran;
    _universe.pass_time(deadline, [this] { return something_ready(); });
    _woken = false;
    return poll();
}

void loop::wake() noexcept {
    _woken = true;
    _universe.schedule().stir();
}

void loop::make_ready(ready& what) noexcept {
    if (!what.linked()) _ready.push_back(what);
}

void loop::submit(file_op& op) noexcept {
    VARVE_ASSERT(op.target != nullptr && op.done != nullptr);
    ++_in_flight;
    _submitted.push(op);
}

result<std::unique_ptr<listener>> loop::listen(const address& at, accept_handler& handler) {
    return _universe.net().listen(*this, at, handler);
}

void loop::connect(const address& to, connect_handler& handler) { _universe.net().connect(*this, to, handler); }

std::unique_ptr<detached_socket> loop::detach(std::unique_ptr<env::socket> connection) noexcept {
    return network::detach(*this, std::move(connection));
}

result<std::unique_ptr<env::socket>> loop::adopt(std::unique_ptr<detached_socket> connection) {
    return network::adopt(*this, std::move(connection));
}

result<std::unique_ptr<watch>> loop::watch_readable(int /*descriptor*/, work& /*on_readable*/) {
    return fail(errc::unsupported, "the simulation has no descriptors");
}

}  // namespace varve::env::sim
