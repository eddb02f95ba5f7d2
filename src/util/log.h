// The log of one system: lines with a level from components with names, given to a sink. Not for the data path.
//
//   logger& _log;                                            // from log.component("nvmf_tcp"), kept
//   _log.warning("connection refused: too many");            // where the failure is handled, and only there
//   if (_log.debugging()) _log.debug(fmt::format(...));      // costs two loads when off
//
// A line stays one line: control characters, which a disk or a client may have chosen, are written out (util/escape.h).
// Two thresholds as in SPDK: what is printed (stderr) and what is recorded (syslog). A component's flag turns its debug
// lines on (`-L nvmf_tcp`, log_set_flag). Any thread may write; components are added before other threads run.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace varve {

class log;

enum class log_level : int { disabled = -1, error, warning, notice, info, debug };

// "ERROR", "WARNING", "NOTICE", "INFO", "DEBUG"; "DISABLED" for disabled.
std::string_view name_of(log_level level) noexcept;
std::optional<log_level> log_level_from(std::string_view name) noexcept;

// One component's end of the log.
class logger {
  public:
    logger(log& owner, std::string name) : _owner(owner), _name(std::move(name)) {}
    logger(const logger&) = delete;
    logger& operator=(const logger&) = delete;

    void error(std::string_view text) const { write(log_level::error, text); }
    void warning(std::string_view text) const { write(log_level::warning, text); }
    void notice(std::string_view text) const { write(log_level::notice, text); }
    void info(std::string_view text) const { write(log_level::info, text); }
    void debug(std::string_view text) const {
        if (flag()) write(log_level::debug, text);
    }
    bool debugging() const noexcept;

    const std::string& name() const noexcept { return _name; }
    bool flag() const noexcept { return _flag.load(std::memory_order_relaxed); }
    void set_flag(bool on) noexcept { _flag.store(on, std::memory_order_relaxed); }

  private:
    void write(log_level level, std::string_view text) const;

    log& _owner;
    const std::string _name;
    std::atomic<bool> _flag = false;
};

class log {
  public:
    struct line {
        log_level level;
        std::string_view component;
        std::string_view text;
        bool print;   // it passed the threshold for printing,
        bool record;  // and for the system's log
        bool timed;   // when printed, it begins with the time
    };
    // Called on the thread that writes; must bear being called on several at the same time.
    using sink = std::move_only_function<void(const line&) const>;
    using loggers = std::map<std::string, std::unique_ptr<logger>, std::less<>>;

    explicit log(sink to) : _sink(std::move(to)) {}

    // The component of that name, added if it is not there. Stays where it is for the life of the log.
    logger& component(std::string_view name);
    const loggers& components() const noexcept { return _components; }
    // One flag, or with "all" every flag. False when there is no such component.
    bool set_flag(std::string_view name, bool on) noexcept;

    log_level print_level() const noexcept { return _print.load(std::memory_order_relaxed); }
    void set_print_level(log_level level) noexcept { _print.store(level, std::memory_order_relaxed); }
    log_level record_level() const noexcept { return _record.load(std::memory_order_relaxed); }
    void set_timestamps(bool on) noexcept { _timestamps.store(on, std::memory_order_relaxed); }
    void set_record_level(log_level level) noexcept { _record.store(level, std::memory_order_relaxed); }

  private:
    friend class logger;
    sink _sink;
    loggers _components;
    std::atomic<log_level> _print = log_level::info;
    std::atomic<log_level> _record = log_level::notice;
    std::atomic<bool> _timestamps = true;
};

}  // namespace varve
