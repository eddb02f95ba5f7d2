// Bytes from a JSON-RPC client against a whole system in simulation: every method there is may be called, in any order,
// cut anywhere. The system must neither fall over nor hang, and must end in order.
//
// The input is what the client sends, except for three bytes that JSON cannot hold: 0x1e ends a piece (the server gets
// what came before), 0x1d makes the client stop or go on reading, 0x1c lets what runs go on.
#include <cstdint>
#include <string>

#include "app/modules.h"
#include "env/sim/universe.h"
#include "env/sim/world.h"
#include "server/rpc_server.h"
#include "server/scripted_client.h"
#include "thread/awaits.h"
#include "thread/runtime.h"

namespace varve::app {
namespace {

constexpr std::size_t max_memory = std::size_t{64} << 20;  // what simulated disks and bdevs may take together

task<> play(server::scripted_client& client, std::string_view script) {
    std::string piece;
    for (char c : script) {
        if (c == '\x1e') {
            client.send(std::exchange(piece, {}));
        } else if (c == '\x1d') {
            client.reads = !client.reads;
        } else if (c == '\x1c') {
            co_await yield();
            client.turn();
        } else {
            piece += c;
        }
    }
    client.send(piece);
    client.reads = true;
    for (int i = 0; i < 3; ++i) {
        client.turn();
        co_await sleep(milliseconds);
    }
}

task<> live(server::instance& system, std::string_view script) {
    server::rpc_server server(thread::thread::current()->system().app_thread(), system.system_log().component("rpc"),
                              [&](std::string_view m, json::value p) { return system.call(m, std::move(p)); });
    server::scripted_client client;
    server.on_accept(client.socket());
    if (script.starts_with('\x1c')) co_await system.start();
    co_await play(client, script);
    server.stop_reading();
    client.hang_up(0);
    co_await system.stop();
    co_await server.stop();
}

void run(std::string_view script) {
    env::sim::universe all(1);
    env::sim::world& world = all.add_world("server", {.cpus = 1});
    world.mem().limit(max_memory);
    log silent([](const log::line&) {});
    all.start("server", [&] {
        auto threads = std::move(*thread::runtime::make(world, {}));
        {
            server::instance system(*threads, silent, {});
            add_modules(system);
            threads->app_thread().post([&] {
                start_detached(live(system, script), [&](result<> outcome) {
                    VARVE_ASSERT(outcome.has_value());
                    threads->stop();
                });
            });
            threads->run();
        }
    });
    all.run();
}

}  // namespace
}  // namespace varve::app

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
    varve::app::run({reinterpret_cast<const char*>(data), size});
    return 0;
}
