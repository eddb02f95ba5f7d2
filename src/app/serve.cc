// varve serve
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include "app/commands.h"
#include "app/daemon.h"
#include "app/log_sink.h"
#include "app/modules.h"
#include "app/serve_options.h"
#include "env/linux/make_system.h"
#include "thread/runtime.h"

namespace varve::app {

namespace {

int complain(const error& e) {
    fmt::print(stderr, "varve serve: {}\n", e.message());
    return exit_failed;
}

void send_to_self(std::string_view signal) {
    constexpr std::pair<std::string_view, int> signals[] = {{"SIGINT", SIGINT},   {"SIGTERM", SIGTERM},
                                                            {"SIGQUIT", SIGQUIT}, {"SIGHUP", SIGHUP},
                                                            {"SIGKILL", SIGKILL}, {"SIGUSR1", SIGUSR1}};
    for (const auto& [name, number] : signals) {
        if (name == signal) ::kill(::getpid(), number);
    }
}

result<> set_up_log(log& lines, const serve_options& o) {
    if (o.silence_notices) lines.set_print_level(log_level::warning);
    for (const std::string& flag : o.log_flags) {
        if (!lines.set_flag(flag, true)) return fail(errc::invalid, fmt::format("there is no log flag '{}'", flag));
        lines.set_print_level(log_level::debug);
    }
    return {};
}

result<thread::runtime_options> runtime_options_of(const serve_options& o) {
    thread::runtime_options out;
    out.busy_poll = o.busy_poll;
    if (!o.cpus.empty()) {
        auto cpus = thread::cpu_set::parse(o.cpus);
        if (!cpus) return std::unexpected(std::move(cpus).error());
        out.cpus = std::move(*cpus);
    }
    return out;
}

int serve(const serve_options& o) {
    block_signals();
    auto world = env::os_linux::make_system({.hugepages = !o.no_huge});
    log lines(make_log_sink(*world));

    auto options = runtime_options_of(o);
    if (!options) return complain(options.error());
    auto threads = thread::runtime::make(*world, std::move(*options));
    if (!threads) return complain(threads.error());

    logger& out = lines.component("app");
    result<> outcome;
    {
        server::instance system(**threads, lines,
                                {.process_id = ::getpid(), .kill = send_to_self, .allowed_methods = o.allowed_methods});
        add_modules(system);
        if (auto ok = set_up_log(lines, o); !ok) return complain(ok.error());
        if (!o.pid_file.empty()) {
            if (auto ok = world->write_text(o.pid_file, fmt::format("{}\n", ::getpid())); !ok)
                return complain(ok.error());
        }
        daemon d(o, system, out);
        (*threads)->app_thread().post([&] {
            start_detached(d.live(), [&](result<> ended) {
                outcome = std::move(ended);
                (*threads)->stop();
            });
        });
        (*threads)->run();
    }
    return outcome ? exit_ok : complain(outcome.error());
}

}  // namespace

int serve_command(const arguments& args) {
    int status = exit_ok;
    auto options = parse_serve_options(args, status);
    return options ? serve(*options) : status;
}

}  // namespace varve::app
