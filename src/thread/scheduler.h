// Where threads run. "static": where they were put. "dynamic": every period, threads that do little are gathered on the
// reactor of the app thread, and those that do much are spread over the others, as far as their sets of processors and
// their pins allow; a reactor left without threads sleeps.
//
// plan() decides and knows nothing of running threads; the scheduler measures, asks it, and moves. App thread only.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "thread/cpu_set.h"
#include "thread/runtime.h"
#include "util/result.h"
#include "util/units.h"

namespace varve::thread {

enum class scheduler_kind : uint8_t { fixed, dynamic };
std::string_view name_of(scheduler_kind kind) noexcept;  // "static", "dynamic"
result<scheduler_kind> scheduler_named(std::string_view name);

// Percentages are of one processor.
struct scheduler_settings {
    scheduler_kind kind = scheduler_kind::fixed;
    time_ns period = 0;
    unsigned load_limit = 20;           // a thread below does little
    unsigned core_limit = 80;           // a reactor is filled up to here
    unsigned core_busy = 95;            // a reactor above is relieved
    cpu_set isolated;                   // reactors here are left out: nothing comes, nothing goes
    std::optional<unsigned> main_core;  // where threads that do little are gathered; default: the app thread's
};

namespace scheduling {

struct load {
    uint64_t thread_id;
    unsigned cpu;      // where it runs
    unsigned percent;  // how much of its processor it used lately
    bool movable;
    cpu_set cpus;  // where it may run
};
struct relocation {
    uint64_t thread_id;
    unsigned to;
    bool operator==(const relocation&) const = default;
};
// `cores`: those with reactors, ascending; `main` is one of them. The same input gives the same plan.
std::vector<relocation> plan(const std::vector<load>& threads, const std::vector<unsigned>& cores, unsigned main,
                             const scheduler_settings& settings);

}  // namespace scheduling

class scheduler {
  public:
    static constexpr time_ns usual_period = 1 * seconds;

    explicit scheduler(runtime& of);
    ~scheduler();

    const scheduler_settings& settings() const noexcept { return _settings; }
    // From now on. Static brings every thread back to where it was first put. errc::invalid for impossible values.
    result<> set(const scheduler_settings& settings);
    // "1:0,4:2": thread 1 to processor 0, thread 4 to 2. All or nothing is accepted; pinned threads move when they can.
    result<> place(std::string_view mappings);

  private:
    struct sample {
        uint64_t thread_id;
        time_ns busy;
    };
    void balance();

    runtime& _runtime;
    scheduler_settings _settings;
    std::vector<sample> _last;  // by id
    time_ns _last_at = 0;
    unsigned _main = 0;               // where the app thread runs
    std::unique_ptr<poller> _poller;  // while dynamic
};

}  // namespace varve::thread
