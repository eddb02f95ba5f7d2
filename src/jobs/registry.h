// The jobs of one system: those that run and the last that ended. App thread.
//
//   co_await all.run({.kind = "inflate", .object = "lvs/vol", .unit = "clusters", .owner = &store},
//                    [&](jobs::job& j) { return store.inflate(blob, j); });
//   uint64_t id = co_await all.start({...}, [&](jobs::job& j) { ... });
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "jobs/job.h"
#include "thread/gate.h"

namespace varve::rpc {
class registry;
}

namespace varve::jobs {

struct description {
    std::string kind;             // what it does: "inflate"
    std::string object;           // to what, as users name it: "lvs/volume"
    std::string unit = "steps";   // what done() and total() count
    const void* owner = nullptr;  // for end_all_of()
    const void* about = nullptr;  // for whoever wants to find it; must outlive the job
    bool everyday = false;        // when it was over at once it is not among the last that ended
};

struct entry {
    uint64_t id = 0;
    description what;
    job progress;
    time_ns started = 0, ended = 0;  // the system's clock; 0: not yet
    std::optional<result<>> outcome;
    event over;
    bool running() const noexcept { return !outcome.has_value(); }
};

class registry {
  public:
    using body = std::move_only_function<task<>(job&)>;
    static constexpr std::size_t kept = 64;  // of those that ended
    static constexpr time_ns at_once = 1 * seconds;

    ~registry();

    // Listed while it runs; its outcome is the caller's. errc::cancelled after stop().
    task<> run(description what, body operation);
    // In the background. The number is never given again. `at_end` is called when it has ended, however.
    result<uint64_t> start(description what, body operation, std::function<void(const result<>&)> at_end = {});
    // Null when there is none, or it ended long ago.
    entry* find(uint64_t id) noexcept;
    // By number, ascending.
    const std::map<uint64_t, std::unique_ptr<entry>>& all() const noexcept { return _entries; }
    // Cancels what works for this owner and waits until it has ended.
    task<> end_all_of(const void* owner);
    // Whether it has ended when it has or that time has passed.
    task<bool> wait(uint64_t id, time_ns at_most);
    // Cancels everything, and everything that is asked for later. False: some have not ended when that time has passed,
    // which wait for something that does not come.
    task<bool> stop(time_ns at_most = patience);
    static constexpr time_ns patience = 10 * seconds;

    // job_get_jobs, job_pause, job_resume, job_cancel, job_set_rate_limit
    void add_methods(rpc::registry& to);

  private:
    entry& enter(description what);
    void leave(entry& e, result<> outcome);

    std::map<uint64_t, std::unique_ptr<entry>> _entries;
    uint64_t _last = 0;
    gate _tasks;
};

}  // namespace varve::jobs
