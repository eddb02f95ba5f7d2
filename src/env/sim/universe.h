// Everything a simulation holds, from one seed: the clock, the scheduler, the network, and the worlds (machines) in it,
// each an env::system. Runs programs: straight code such as "make a runtime, run it, tidy up", several at once.
//
//   universe all(seed);
//   world& target = all.add_world("target");
//   world& host = all.add_world("host");
//   all.start("target", [&] { ... runtime->run(); ... });
//   all.start("host", [&] { ... });
//   all.start("fate", [&] { all.pause(50 * milliseconds); target.cut_power(); });
//   all.run();
//
// One OS thread. The same seed and the same programs give the same trace hash. A system that hangs (all idle, nothing
// due) or never ends is reported with the seed and the last events, and the process aborts.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "env/sim/disk/options.h"
#include "env/sim/fiber.h"
#include "env/sim/net/options.h"
#include "env/sim/scheduler.h"
#include "env/sim/trace.h"

namespace varve::env::sim {

class network;
class world;
struct world_options;

struct universe_options {
    schedule_options schedule;
    link_options link;
    disk_options disk;  // what disks are made with when nothing is said
    // Mild to rough weather, drawn by the seed: over many seeds every extreme occurs, alone and together.
    // Delays and scheduling only; whatever makes a correct system fail (errors, losses) is off until a test asks.
    static universe_options drawn(uint64_t seed);
};

class universe {
  public:
    explicit universe(uint64_t seed) : universe(seed, universe_options::drawn(seed)) {}
    universe(uint64_t seed, const universe_options& how);
    ~universe();
    universe(const universe&) = delete;

    uint64_t seed() const noexcept { return _seed; }
    const universe_options& options() const noexcept { return _how; }
    time_ns now() const noexcept { return _scheduler.now(); }
    trace& log() noexcept { return _log; }
    network& net() noexcept { return *_network; }
    scheduler& schedule() noexcept { return _scheduler; }
    rng stream(std::string_view name) const noexcept { return rng::stream(_seed, name); }

    // A machine, for as long as the universe lives; systems on it may come and go.
    world& add_world(std::string name);
    world& add_world(std::string name, const world_options& how);
    const std::vector<std::unique_ptr<world>>& worlds() const noexcept { return _worlds; }

    // Calls `what` at a time, between turns.
    agenda::event_id at(time_ns when, std::move_only_function<void()> what) {
        return _scheduler.events().add(when, std::move(what));
    }
    agenda::event_id after(time_ns delay, std::move_only_function<void()> what) {
        return at(now() + delay, std::move(what));
    }
    void cancel(agenda::event_id id) { _scheduler.events().cancel(id); }

    // A program begins with the next step; from anywhere.
    void start(std::string name, std::move_only_function<void()> body);
    // Runs until every program has ended.
    void run();
    // From inside a program: others run meanwhile.
    void pause(time_ns delay);
    // `come` is asked between turns.
    void wait_until(std::move_only_function<bool()> come);

    // What world::run does: gives the workers turns until all are finished.
    void run_workers(std::span<worker* const> workers);
    // What loop::wait does where nobody else runs: lets time pass until `come` or the deadline.
    void pass_time(time_ns deadline, const std::move_only_function<bool() const>& come);

    // Prints why, the seed and the last events, and aborts.
    [[noreturn]] void give_up(std::string_view why) const;

  private:
    struct program {
        program(std::string called, std::move_only_function<void()> body)
            : name(std::move(called)), stack(std::move(body)) {}
        std::string name;
        fiber stack;
        std::move_only_function<bool()> waits_for;  // empty: may go on
    };
    void drive_until(std::move_only_function<bool()> until);
    bool resume_programs();

    const uint64_t _seed;
    const universe_options _how;
    trace _log;
    scheduler _scheduler;
    std::unique_ptr<network> _network;
    std::vector<std::unique_ptr<world>> _worlds;
    std::vector<std::unique_ptr<program>> _programs;
    program* _running = nullptr;
};

}  // namespace varve::env::sim
