// One system's reactors and lightweight threads. Two runtimes fit in one process.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "thread/buffer_budget.h"
#include "thread/cpu_set.h"
#include "thread/task.h"
#include "thread/thread.h"
#include "util/result.h"

namespace varve::thread {

struct runtime_options {
    std::optional<cpu_set> cpus;                // default: the first processor this process may use
    bool busy_poll = false;                     // never sleep
    time_ns spin = 20 * microseconds;           // how long a reactor with nothing to do polls before it sleeps
    uint64_t buffer_limit = 512 * 1024 * 1024;  // bytes that the I/O buffers of all threads may take
};

class runtime {
  public:
    static result<std::unique_ptr<runtime>> make(env::system& world, runtime_options options);
    ~runtime();  // after run() has returned; nothing may be registered with any thread any more

    env::system& world() noexcept { return _world; }
    // What the buffer pools of all threads share. Any thread.
    buffer_budget& buffers() noexcept { return _buffers; }

    // Any thread. Placed on the reactor with the fewest threads among `cpus` (all when empty).
    result<thread*> create_thread(std::string name, cpu_set cpus = {});
    // Asks the thread to end once it has run what is queued and owns no pollers, channels, pins or timers any more. Any
    // thread; nobody may post to it or name it afterwards.
    void destroy_thread(thread& t);
    // The first thread, made by make(): configuration and RPC live here ("app_thread").
    thread& app_thread() noexcept { return *_app_thread; }

    struct thread_info {
        uint64_t id;
        std::string name;
        unsigned cpu;        // where it is (or is being moved to)
        unsigned first_cpu;  // where it was put when created
        cpu_set cpus;        // where it may run
        bool pinned;
        thread_stats stats;
    };
    std::vector<thread_info> threads() const;  // any thread; by id
    struct reactor_info {
        unsigned cpu;
        time_ns busy, idle;  // together: the time since it was created
        std::vector<uint64_t> threads;
    };
    std::vector<reactor_info> reactors() const;  // any thread; by cpu
    cpu_set cpus() const;                        // of all reactors
    // Null when there is none. Any thread; the pointer is valid until the thread is destroyed.
    thread* find_thread(uint64_t id) noexcept;
    // Runs f on every thread, one after another by id, and comes back. From a thread.
    task<> for_each_thread(std::function<void(thread&)> f);

    // Any thread. Where the thread may run from now on (everywhere when empty); it moves as soon as it holds no pin.
    result<> set_cpus(uint64_t thread_id, cpu_set cpus);
    // Any thread. Moves it to the reactor of `cpu` as soon as it holds no pin; its set of processors stays as it is.
    result<> move_thread(uint64_t thread_id, unsigned cpu);

    // Runs until stop(); on the calling OS thread and one more per further reactor. Once.
    void run();
    bool running() const noexcept { return _running.load(std::memory_order_relaxed); }
    // Any thread, also a signal handler. Threads run what is queued, then the reactors end. Pollers and timers are not
    // waited for; operations in flight in the loops are, for up to `linger`.
    void stop() noexcept;
    bool stopping() const noexcept { return _stopping.load(std::memory_order_relaxed); }
    static constexpr time_ns linger = 100 * milliseconds;

  private:
    friend class io_device_base;
    friend class reactor;
    friend class thread;
    struct registry;

    runtime(env::system& world, uint64_t buffer_limit);
    // Keeps the thread with the lowest id above `after` from ending until release(), on that thread. Null: there is
    // none.
    thread* hold_next(uint64_t after) noexcept;
    static void hold(thread& t) noexcept;  // for a thread that cannot end just now
    static void release(thread& t) noexcept;
    // By a reactor: forgets and deletes a thread that holds nothing, unless somebody is on the way to it.
    bool end(thread& t) noexcept;
    void moved(reactor& from, reactor& to) noexcept;
    void send_to(thread& t, reactor& to) noexcept;        // under the registry's lock
    reactor* pick_reactor(const cpu_set& cpus) noexcept;  // under the registry's lock; null when there is none
    // The end of everything: see reactor::wind_down().
    bool go_quiet(reactor& r) noexcept;     // whether that was the end
    bool leave_quiet(reactor& r) noexcept;  // false: nothing to do; finishes the reactor when all have ended
    void wait_for_others() noexcept;
    bool stopping_before_sleep() const noexcept { return _stopping.load(std::memory_order_seq_cst); }

    env::system& _world;
    std::atomic<bool> _stopping{false};
    std::atomic<bool> _running{false};
    std::atomic<unsigned> _in_stop{0};  // OS threads inside stop(): run() does not return before they have left
    buffer_budget _buffers;
    const std::unique_ptr<registry> _registry;
    thread* _app_thread = nullptr;
};

}  // namespace varve::thread
