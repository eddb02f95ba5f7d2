// A long operation as whoever started it sees it. Store's thread.
#pragma once

#include <cstdint>

#include "thread/sync.h"
#include "util/result.h"

namespace varve::blob {

class job {
  public:
    job() { _running.set(); }

    uint64_t done() const noexcept { return _done; }  // steps; clusters for most
    uint64_t total() const noexcept { return _total; }
    bool paused() const noexcept { return !_running.is_set(); }
    void pause() noexcept { _running.reset(); }
    void resume() noexcept { _running.set(); }
    // It ends with errc::cancelled soon; what it has done so far stays done, and starting it again goes on from there.
    void cancel() noexcept {
        _cancelled = true;
        _running.set();
    }

    // --- for the operation
    void expect(uint64_t total) noexcept { _total = total; }
    void did(uint64_t steps = 1) noexcept { _done += steps; }
    event::awaiter turn() noexcept { return _running.wait(); }
    result<> check() const {
        if (_cancelled) return fail(errc::cancelled);
        return {};
    }

  private:
    uint64_t _done = 0, _total = 0;
    bool _cancelled = false;
    event _running;
};

}  // namespace varve::blob
