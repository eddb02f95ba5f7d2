#include "jobs/job.h"

#include <algorithm>

#include "thread/awaits.h"

namespace varve::jobs {

namespace {
// How long a job sleeps before it looks whether it was cancelled or its limit changed.
constexpr time_ns nap = 50 * milliseconds;
}  // namespace

void job::limit_rate(uint64_t bytes_per_second) noexcept {
    _rate = bytes_per_second;
    _due = 0;
}

task<> job::turn(uint64_t bytes) {
    for (;;) {
        co_await _running.wait();
        co_await check();
        if (!_running.is_set()) continue;
        const time_ns now = thread::thread::current()->now();
        if (_rate == 0) co_return;
        if (_due <= now) {
            _due = now + static_cast<time_ns>(static_cast<double>(bytes) / static_cast<double>(_rate) * 1e9);
            co_return;
        }
        co_await sleep(std::min(nap, _due - now));
    }
}

}  // namespace varve::jobs
