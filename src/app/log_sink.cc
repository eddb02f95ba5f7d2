#include "app/log_sink.h"

#include <fmt/format.h>
#include <syslog.h>
#include <unistd.h>

#include <ctime>

#include "env/system.h"

namespace varve::app {

namespace {

std::string time_text(int64_t wall_clock_ns) {
    constexpr int64_t second = 1'000'000'000;
    std::time_t seconds = wall_clock_ns / second;
    std::tm local{};
    ::localtime_r(&seconds, &local);
    char text[32];
    std::size_t size = std::strftime(text, sizeof text, "%F %T", &local);
    return fmt::format("[{}.{:06}] ", std::string_view(text, size), wall_clock_ns % second / 1000);
}

int syslog_priority(log_level level) noexcept {
    switch (level) {
        case log_level::error:
            return LOG_ERR;
        case log_level::warning:
            return LOG_WARNING;
        case log_level::notice:
            return LOG_NOTICE;
        case log_level::info:
            return LOG_INFO;
        default:
            return LOG_DEBUG;
    }
}

}  // namespace

log::sink make_log_sink(env::system& world) {
    ::openlog("varve", LOG_PID, LOG_LOCAL7);
    return [&world](const log::line& l) {
        if (l.print) {
            std::string text = fmt::format("{}{}: *{}*: {}\n", l.timed ? time_text(world.wall_clock_ns()) : "",
                                           l.component, name_of(l.level), l.text);
            [[maybe_unused]] auto written = ::write(STDERR_FILENO, text.data(), text.size());
        }
        if (l.record) {
            ::syslog(syslog_priority(l.level), "%.*s: %.*s", static_cast<int>(l.component.size()), l.component.data(),
                     static_cast<int>(l.text.size()), l.text.data());
        }
    };
}

}  // namespace varve::app
