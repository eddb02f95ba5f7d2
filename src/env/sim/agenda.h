// What is to happen at which virtual time, in order of time and then of entry.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <utility>

#include "util/units.h"

namespace varve::env::sim {

constexpr time_ns never = std::numeric_limits<time_ns>::max();

class agenda {
  public:
    using event_id = std::pair<time_ns, uint64_t>;

    event_id add(time_ns at, std::move_only_function<void()> what) {
        event_id id{at, _next++};
        _events.emplace(id, std::move(what));
        return id;
    }
    // Nothing happens when it has happened already.
    void cancel(event_id id) { _events.erase(id); }
    time_ns next() const noexcept { return _events.empty() ? never : _events.begin()->first.first; }
    bool empty() const noexcept { return _events.empty(); }
    // Runs what is due, and what becomes due by that. Returns whether anything was.
    bool run_due(time_ns now) {
        bool any = false;
        while (next() <= now) {
            auto due = _events.extract(_events.begin());
            due.mapped()();
            any = true;
        }
        return any;
    }

  private:
    std::map<event_id, std::move_only_function<void()>> _events;
    uint64_t _next = 0;
};

}  // namespace varve::env::sim
