#include "env/sim/universe.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "env/sim/net/network.h"
#include "env/sim/world.h"
#include "util/assert.h"

namespace varve::env::sim {

universe_options universe_options::drawn(uint64_t seed) {
    rng chance = rng::stream(seed, "weather");
    universe_options how;
    schedule_options& s = how.schedule;
    s.turn_max = chance.between_log<time_ns>(s.turn_min, 20 * microseconds);
    s.starve_one_in = chance.one_in(3) ? 0 : chance.between_log<uint32_t>(50, 5000);
    s.starve_max = chance.between_log<time_ns>(100 * microseconds, 50 * milliseconds);
    s.pause_one_in = chance.one_in(3) ? 0 : chance.between_log<uint32_t>(500, 20000);
    link_options& l = how.link;
    l.delay_min = chance.between_log<time_ns>(500, 100 * microseconds);
    l.delay_max = chance.between_log<time_ns>(l.delay_min, chance.one_in(8) ? 20 * milliseconds : 500 * microseconds);
    // Segments of a few bytes make whole systems slow to simulate: some seeds only.
    l.segment_max =
        chance.one_in(8) ? chance.between_log<uint32_t>(8, 256) : chance.between_log<uint32_t>(1024, 256 << 10);
    l.buffer_max = chance.between_log<uint32_t>(l.buffer_min, 1 << 20);
    l.offer_whole_one_in = chance.between<uint32_t>(1, 4);
    disk_options& d = how.disk;
    d.latency_min = chance.between_log<time_ns>(500, 100 * microseconds);
    d.latency_max = chance.between_log<time_ns>(d.latency_min, 5 * milliseconds);
    d.flush_latency_max = chance.between_log<time_ns>(d.latency_max, 20 * milliseconds);
    d.spike_one_in = chance.coin() ? 0 : chance.between_log<uint32_t>(20, 2000);
    return how;
}

universe::universe(uint64_t seed, const universe_options& how)
    : _seed(seed),
      _how(how),
      _scheduler(rng::stream(seed, "schedule"), how.schedule, _log),
      _network(std::make_unique<network>(*this)) {}

universe::~universe() { VARVE_ASSERT(_programs.empty()); }

world& universe::add_world(std::string name) { return add_world(std::move(name), world_options{}); }

world& universe::add_world(std::string name, const world_options& how) {
    auto index = static_cast<unsigned>(_worlds.size());
    return *_worlds.emplace_back(std::make_unique<world>(*this, std::move(name), index, how));
}

void universe::start(std::string name, std::move_only_function<void()> body) {
    _programs.push_back(std::make_unique<program>(std::move(name), std::move(body)));
}

void universe::run() {
    drive_until([&] { return _programs.empty(); });
}

bool universe::resume_programs() {
    bool any = false;
    for (std::size_t i = 0; i < _programs.size(); ++i) {  // programs start programs
        program& p = *_programs[i];
        if (p.waits_for && !p.waits_for()) continue;
        p.waits_for = nullptr;
        _running = &p;
        p.stack.resume();
        _running = nullptr;
        _scheduler.stir();
        any = true;
    }
    if (any) std::erase_if(_programs, [](const std::unique_ptr<program>& p) { return p->stack.ended(); });
    return any;
}

void universe::drive_until(std::move_only_function<bool()> until) {
    VARVE_ASSERT(_running == nullptr && !_scheduler.in_turn());
    for (;;) {
        while (resume_programs()) {
        }
        if (until()) return;
        if (!_scheduler.step()) give_up("nothing is left to happen, or it goes on for ever");
    }
}

void universe::wait_until(std::move_only_function<bool()> come) {
    VARVE_ASSERT(_running != nullptr);  // programs wait; a turn never does
    program& me = *_running;
    if (come()) return;
    me.waits_for = std::move(come);
    me.stack.suspend();
}

void universe::pause(time_ns delay) {
    time_ns until = now() + delay;
    at(until, [] {});
    wait_until([this, until] { return now() >= until; });
}

void universe::run_workers(std::span<worker* const> workers) {
    for (worker* w : workers) _scheduler.add(*w);
    auto finished = [workers] { return std::ranges::all_of(workers, [](worker* w) { return w->finished(); }); };
    if (_running != nullptr) {
        wait_until(finished);
    } else {
        drive_until(finished);
    }
    for (worker* w : workers) _scheduler.remove(*w);
}

void universe::pass_time(time_ns deadline, const std::move_only_function<bool() const>& come) {
    if (_scheduler.in_turn()) return;
    if (_running != nullptr) {
        auto alarm = deadline == never ? agenda::event_id{} : at(deadline, [] {});
        wait_until([&] { return come() || now() >= deadline; });
        cancel(alarm);
        return;
    }
    while (!come() && now() < deadline) {
        if (!_scheduler.pass_time(deadline)) give_up("a loop waits for what will never come");
    }
}

void universe::give_up(std::string_view why) const {
    std::string waiting;
    for (const auto& p : _programs) waiting += fmt::format(" {}", p->name);
    fmt::print(stderr, "{}simulation: {} (seed {}, {} ns, programs:{})\n", _log.text(), why, _seed, now(), waiting);
    std::fflush(stderr);
    std::abort();
}

}  // namespace varve::env::sim
