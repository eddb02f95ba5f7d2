// A reactor runs the lightweight threads of one processor, turn by turn, and one env::loop after them.
//
// A turn reads the clock once; takes the reactor's own mail; runs, for each thread in the order of their arrival, its
// inbox, deferred work, due timers and pollers, each only as far as it was filled when its batch was taken (what is
// deferred meanwhile runs in the next turn, so nothing starves the loop); polls the loop; then moves and ends threads.
//
// Idle: after `spin` without work it announces that it sleeps, looks at every inbox again, and waits in the loop.
//
// Only its own OS thread calls anything here but post(), wake() and the statistics.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "env/system.h"
#include "thread/mailbox.h"
#include "thread/thread.h"

namespace varve::thread {

struct thread::control {
    struct message : work {
        thread* about = nullptr;
    };
    message arrive, leave, end;
    std::atomic<bool> leave_sent{false}, end_sent{false};
    std::atomic<reactor*> wanted{nullptr};  // where `leave` is to bring it
};

class reactor final : public env::worker {
  public:
    struct options {
        bool busy_poll = false;
        time_ns spin = 0;
    };
    reactor(runtime& system, env::system& world, std::unique_ptr<env::loop> loop, unsigned cpu, options how);
    ~reactor() override;
    reactor(const reactor&) = delete;

    // The one whose turn (or sleep) this OS thread is in; null elsewhere.
    static reactor* current() noexcept { return _current; }

    bool turn() noexcept override;
    time_ns next_deadline() const noexcept override;
    bool finished() const noexcept override { return _finished; }
    void run() noexcept override;
    unsigned cpu() const noexcept override { return _cpu; }

    // Any OS thread.
    void post(work& w) noexcept {
        if (_mail.push(w)) wake();
    }
    // Any OS thread: whatever it was told before this call, it sees before it sleeps (again).
    void wake() noexcept {
        if (_sleeping.load(std::memory_order_seq_cst) && _sleeping.exchange(false, std::memory_order_seq_cst)) {
            _loop->wake();
        }
    }
    time_ns busy_time() const noexcept { return _busy_time.load(std::memory_order_relaxed); }
    time_ns created() const noexcept { return _created; }

    env::loop& loop() noexcept { return *_loop; }
    const time_ns& clock() const noexcept { return _now; }
    // Something about its threads is to be done after this turn: one ends, or moves.
    void needs_tidying() noexcept { _untidy = true; }
    void adopt(thread& t) noexcept;
    // What is charged from now on goes to this thread.
    void charge_to(thread& t) noexcept;
    // Whether work waits in an inbox. Called by the runtime, too, about quiet reactors.
    bool has_mail() const noexcept;
    void finish() noexcept { _finished = true; }
    void leave_quiet() noexcept { quiet = _quiet_seen = false; }

    // The runtime's, under its lock.
    unsigned assigned = 0;  // threads that run here or are on their way
    bool quiet = false;     // see wind_down()

  private:
    friend bool turn_once(reactor& r) noexcept;
    bool run_turn() noexcept;
    bool take_mail() noexcept;
    void settle(time_ns now) noexcept;
    void tidy() noexcept;
    bool sleep() noexcept;  // whether a callback ran
    bool must_poll() const noexcept;
    bool wind_down() noexcept;

    static constinit thread_local reactor* _current;

    time_ns _now = 0;
    env::system& _world;
    const std::unique_ptr<env::loop> _loop;
    std::vector<thread*> _threads;  // owned by the runtime
    bool _untidy = false;
    bool _in_wait = false;     // callbacks now come after a sleep: the clock is stale
    bool _quiet_seen = false;  // own copy of `quiet`
    bool _finished = false;
    time_ns _stamp = 0;           // time before this has been charged
    thread* _charged = nullptr;   // who used the time since; null: nobody
    time_ns _last_found = 0;      // the last turn that found work
    time_ns _stopping_since = 0;  // 0: not stopping
    runtime& _system;
    const options _how;
    const unsigned _cpu;
    time_ns _created;

    mailbox _mail;
    alignas(64) std::atomic<bool> _sleeping{false};
    alignas(64) std::atomic<time_ns> _busy_time{0};
};

}  // namespace varve::thread
