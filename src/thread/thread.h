// Lightweight threads: everything that has state belongs to one and is touched by it only; others send it work.
// A reactor (one per core) runs many; a thread that holds nothing of its reactor's loop may be moved to another.
//
// Once runtime::run() has returned (and before it was called) nothing runs, and whoever tidies up may touch the objects
// of any thread: "own thread only" below means then too.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "thread/mailbox.h"
#include "util/list.h"
#include "util/timer_queue.h"
#include "util/units.h"
#include "util/work.h"

namespace varve::env {
class loop;
class system;
}  // namespace varve::env

namespace varve::thread {

class buffer_pool;
class channel_slot;
class io_device_base;
class reactor;
class runtime;
class thread;

// Runs its work once, after a delay. Embedded in whatever waits; the destructor cancels. Own thread only.
class timer : timer_queue::node {
  public:
    explicit timer(work& what) noexcept : _what(&what) {}
    ~timer() { cancel(); }
    void start(time_ns delay) noexcept;  // from thread::now(); restarts when running; belongs to the current thread
    void cancel() noexcept;
    bool running() const noexcept { return queued(); }

  private:
    friend class thread;
    work* _what;
    thread* _owner = nullptr;
};

enum class poller_kind : uint8_t {
    busy,   // must be polled every turn: its reactor cannot sleep while one is registered and not paused
    timed,  // every `period`
    woken,  // runs only after wake(): from a watch on a descriptor, a completion, anything on its thread
};

// Runs a function of its thread again and again until destroyed (on its thread; also from inside its own function,
// which must then touch nothing of its own any more). A paused poller keeps a wake() for resume().
class poller : public list_node<>, public list_node<struct woken_pollers>, work {
  public:
    // `function` returns whether it found work; that is what counts as busy. Registers with the current thread.
    poller(std::string name, poller_kind kind, std::move_only_function<bool()> function, time_ns period = 0);
    ~poller();
    void pause() noexcept;
    void resume();
    // Runs it once in this turn or the next, whatever its kind. From its thread or a callback of its reactor's loop.
    void wake() noexcept;

    const std::string& name() const noexcept { return _name; }
    poller_kind kind() const noexcept { return _kind; }
    time_ns period() const noexcept { return _period; }
    uint64_t runs() const noexcept { return _runs; }
    uint64_t busy_runs() const noexcept { return _busy_runs; }
    bool paused() const noexcept { return _paused; }
    uint64_t id() const noexcept { return _id; }  // from 1, per thread

  private:
    friend class thread;
    void start();
    void stop() noexcept;

    thread& _owner;
    std::move_only_function<bool()> _function;
    uint64_t _runs = 0, _busy_runs = 0;
    const poller_kind _kind;
    bool _paused = false;
    bool _woken_while_paused = false;
    uint32_t _woken_in_round = 0;
    const time_ns _period;
    timer _timer;
    const uint64_t _id;
    const std::string _name;
};

struct thread_stats {
    time_ns busy = 0, idle = 0;  // together: the time since it was created
};

class thread {
  public:
    // The thread whose code is running on this OS thread; null outside of reactors, and in callbacks of a loop until
    // they enter one (see `entered` below).
    static thread* current() noexcept { return _current; }

    const std::string& name() const noexcept { return _name; }
    uint64_t id() const noexcept { return _id; }  // from 1, per runtime
    runtime& system() const noexcept { return _system; }
    thread_stats stats() const noexcept;  // any thread (relaxed)

    // Any OS thread. Lock-free; wakes the reactor if it sleeps. `w` belongs to the thread until it has run.
    void post(work& w) noexcept;
    // Allocating convenience for the control path.
    void post(std::move_only_function<void()> function);
    // Own thread (or a callback of its reactor's loop) only: runs later in this turn or in the next, in order. The
    // cheap way to avoid recursion.
    void defer(work& w) noexcept {
        if (_current != this) [[unlikely]]
            check_here();
        _deferred.push(w);
    }
    // The clock as read at the beginning of this turn: one reading per batch. Own thread only.
    time_ns now() const noexcept { return *_clock; }
    // The loop of the reactor that runs this thread. Whoever opens something on it holds a pin meanwhile. Own thread
    // only.
    env::loop& loop() const noexcept;
    void pin() noexcept;
    void unpin() noexcept;

    // For reports. Own thread only.
    list<poller>& pollers() noexcept { return _pollers; }
    list<channel_slot>& channels() noexcept { return _channels; }

  private:
    friend class buffer_pool;
    friend class entered;
    friend class io_device_base;
    friend class poller;
    friend class reactor;
    friend class runtime;
    friend class timer;
    struct control;  // the messages that start, move and end a thread

    thread(runtime& system, mailbox& mail, uint64_t id, std::string name, time_ns now);
    ~thread();
    thread(const thread&) = delete;

    // Runs what is ready. Returns whether there was anything. Called by the reactor, each turn.
    bool turn(time_ns now) noexcept {
        if (_mail.waiting() || !_deferred.empty() || !_busy.empty() || now >= _timers.next_deadline() ||
            !_woken.empty()) {
            return run_ready(now);
        }
        return false;
    }
    bool run_ready(time_ns now) noexcept;
    bool run_busy_pollers() noexcept;
    bool run_woken_pollers() noexcept;
    bool run_timers(time_ns now) noexcept;
    bool call(poller& p) noexcept;
    bool queued() const noexcept;         // something to run now
    bool holds_nothing() const noexcept;  // nothing queued, registered, pinned: may end
    void enter() noexcept;
    void check_here() const noexcept;  // this thread's reactor is running, or nothing is
    void check_mine() const noexcept;  // this thread is running, or nothing is

    static constinit thread_local thread* _current;

    mailbox& _mail;
    queue<work> _deferred;
    std::vector<poller*> _busy;  // null: destroyed or paused while they were being run
    timer_queue _timers;
    list<poller, struct woken_pollers> _woken;
    const time_ns* _clock;
    reactor* _reactor = nullptr;  // null until adopted
    poller* _polling = nullptr;   // the one whose function runs; null when that destroyed it
    bool _running_busy = false;
    bool _busy_has_holes = false;
    uint32_t _woken_round = 0;  // pollers woken in an earlier one are to run
    unsigned _ran_idle = 0;     // timed pollers that ran in this turn and found nothing

    std::atomic<time_ns> _busy_time{0};  // written by its reactor only
    const time_ns _created;
    list<poller> _pollers;
    list<channel_slot> _channels;
    std::unordered_map<const io_device_base*, channel_slot*> _channel_of;  // never iterated
    std::unique_ptr<buffer_pool> _buffers;                                 // made when first asked for
    uint64_t _next_poller_id = 1;
    std::atomic<unsigned> _pins{0};  // written here only; read for reports
    bool _ending = false;
    reactor* _destination = nullptr;  // where to move when no pin is left
    std::atomic<unsigned> _holds{0};  // others on their way here: it must not end
    const std::unique_ptr<control> _control;
    runtime& _system;
    const uint64_t _id;
    const std::string _name;
};

// A callback of the loop (env/loop.h) runs outside every thread. Before it touches anything it enters the thread it
// belongs to, which must be one of the same reactor's:
//   void connection::on_data(std::span<const std::byte> bytes) noexcept { entered in(_thread); ... }
class entered {
  public:
    explicit entered(thread& t) noexcept : _before(thread::_current) {
        if (_before != &t) t.enter();
    }
    entered(const entered&) = delete;
    ~entered() { thread::_current = _before; }

  private:
    thread* _before;
};

}  // namespace varve::thread
