// A long operation, as it sees itself and as whoever watches it does. App thread.
//
//   task<> copy(..., jobs::job& j) {
//       j.expect(clusters);
//       for (each cluster) {
//           co_await j.turn(cluster_size);      waits while it is paused or too fast; errc::cancelled. Right before the
//           co_await ...;                       step: nothing else is waited for between them
//           j.did();
//       }
//   }
#pragma once

#include <cstdint>

#include "thread/sync.h"
#include "thread/task.h"
#include "util/units.h"

namespace varve::jobs {

class job {
  public:
    job() { _running.set(); }
    job(const job&) = delete;

    // Steps; what one is, the operation's description says. Before expect() both are 0.
    uint64_t done() const noexcept { return _done; }
    uint64_t total() const noexcept { return _total; }
    bool paused() const noexcept { return !_running.is_set(); }
    bool cancelled() const noexcept { return _cancelled; }
    void pause() noexcept {
        if (!_cancelled) _running.reset();
    }
    void resume() noexcept { _running.set(); }
    // It ends with errc::cancelled at its next step, unless that was the last.
    void cancel() noexcept {
        _cancelled = true;
        _running.set();
    }
    // Bytes a second; 0: as fast as it can.
    uint64_t rate_limit() const noexcept { return _rate; }
    void limit_rate(uint64_t bytes_per_second) noexcept;

    // --- for the operation
    void expect(uint64_t total) noexcept { _total = total; }
    void did(uint64_t steps = 1) noexcept { _done += steps; }
    // Before a step that moves so many bytes. Several steps may be under way at once.
    task<> turn(uint64_t bytes = 0);
    result<> check() const {
        if (_cancelled) return fail(errc::cancelled);
        return {};
    }

  private:
    uint64_t _done = 0, _total = 0, _rate = 0;
    time_ns _due = 0;  // when the next step may begin
    bool _cancelled = false;
    event _running;
};

}  // namespace varve::jobs
