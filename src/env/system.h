// The world a Varve system lives in. Two of them in one process do not see each other.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "env/file.h"
#include "env/loop.h"
#include "env/memory.h"
#include "util/result.h"
#include "util/units.h"
#include "util/uuid.h"

namespace varve::env {

// Something that runs on an OS thread of its own (a reactor).
class worker {
  public:
    virtual ~worker() = default;
    // One turn: runs what is ready, never blocks. Returns whether there was anything.
    virtual bool turn() noexcept = 0;
    // When the next timer is due; max when none. Asked between turns.
    virtual time_ns next_deadline() const noexcept = 0;
    virtual bool finished() const noexcept = 0;
    // Turns, spinning and sleeping as it sees fit, until finished(). The simulation calls turn() instead.
    virtual void run() noexcept = 0;
    virtual unsigned cpu() const noexcept = 0;
};

class system {
  public:
    virtual ~system() = default;

    virtual time_ns now() noexcept = 0;            // monotonic; any thread
    virtual int64_t wall_clock_ns() noexcept = 0;  // since 1970, UTC; for people
    virtual uint64_t random() noexcept = 0;        // any thread
    uuid make_uuid() noexcept {
        uint64_t high = random(), low = random();
        return uuid::from_random(high, low);
    }
    virtual memory& mem() noexcept = 0;
    virtual std::vector<unsigned> cpus() const = 0;  // those this process may use, ascending

    virtual result<std::unique_ptr<loop>> make_loop() = 0;
    // Blocking, for the control path. The file may be used with every loop of this system.
    virtual result<std::unique_ptr<file>> open(const std::string& path, const open_options& options) = 0;
    virtual result<std::string> read_text(const std::string& path) = 0;
    // Replaces the file in one step (temporary file, fsync, rename).
    virtual result<> write_text(const std::string& path, std::string_view text) = 0;

    // Runs every worker until all are finished. Linux: each on an OS thread bound to its cpu, the first on the calling
    // thread. Simulation: turns interleaved by the seed, and time jumps when all are idle.
    virtual void run(std::span<worker* const> workers) = 0;
};

}  // namespace varve::env
