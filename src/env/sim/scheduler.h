// Who gets the next turn, and when time passes. Workers of all systems share one scheduler: each step lets one of them,
// drawn by the seed, take a turn, which costs a little time; now and then one gets no turns for a while (its processor
// is busy elsewhere), or nobody does. When all have said in a row that there is nothing to do, time jumps to the next
// event or deadline.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "env/sim/agenda.h"
#include "env/sim/rng.h"
#include "env/sim/trace.h"
#include "env/system.h"

namespace varve::env::sim {

struct schedule_options {
    time_ns turn_min = 200, turn_max = 3 * microseconds;  // what a turn costs
    uint32_t starve_one_in = 2000;                        // steps; 0: nobody ever is
    time_ns starve_max = 20 * milliseconds;
    uint32_t pause_one_in = 5000;  // steps after which nobody runs for a while
    time_ns pause_max = 5 * milliseconds;
    time_ns time_max = 3600 * seconds;  // of virtual time: later than that the system is taken to hang
    uint64_t steps_max = 200'000'000;
};

class scheduler {
  public:
    scheduler(rng chance, schedule_options how, trace& log) noexcept : _chance(chance), _how(how), _log(log) {}

    time_ns now() const noexcept { return _now; }
    agenda& events() noexcept { return _events; }
    // Inside a worker's turn: nothing may block.
    bool in_turn() const noexcept { return _in_turn; }

    void add(worker& w);
    void remove(worker& w);
    bool has_workers() const noexcept { return !_seats.empty(); }
    // Someone may have found work for someone else: all are asked again before time jumps.
    void stir() noexcept;

    // One turn, or one jump in time; then what is due by then. False when nothing will ever happen again.
    bool step();
    // As step(), but only lets time pass, up to `limit`. False when nothing was due and there is no limit.
    bool pass_time(time_ns limit);

    // For tests: no turns for this worker until then.
    void starve(const worker& w, time_ns until);

  private:
    struct seat {
        worker* who = nullptr;
        uint64_t number = 0;
        bool quiet = false;  // said there is nothing to do, and nobody has done anything since
        time_ns starved_until = 0;
    };
    seat* draw();
    void give_turn(seat& s);
    void disturb();
    void advance_to(time_ns at);
    time_ns next_moment() const;

    rng _chance;
    const schedule_options _how;
    trace& _log;
    agenda _events;
    time_ns _now = 1 * seconds;  // the clock of a machine that has been up for a while: zero is no time anything began
    uint64_t _steps = 0;
    uint64_t _numbers = 0;
    bool _in_turn = false;
    std::vector<seat> _seats;
};

}  // namespace varve::env::sim
