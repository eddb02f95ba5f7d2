#include "app/daemon.h"

#include <fmt/format.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>

#include "env/system.h"
#include "server/saved_config.h"
#include "thread/runtime.h"
#include "util/version.h"

namespace varve::app {

namespace {

sigset_t our_signals() noexcept {
    sigset_t set;
    sigemptyset(&set);
    for (int number : {SIGTERM, SIGINT, SIGQUIT, SIGHUP}) sigaddset(&set, number);
    return set;
}

}  // namespace

void block_signals() noexcept {
    sigset_t set = our_signals();
    ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
    ::signal(SIGPIPE, SIG_IGN);
}

struct daemon::on_signal : work {
    explicit on_signal(daemon& of) : owner(of) {
        run = [](work& self) noexcept { static_cast<on_signal&>(self).owner.take_signals(); };
    }
    daemon& owner;
};

daemon::daemon(const serve_options& how, server::instance& system, logger& out)
    : _how(how),
      _system(system),
      _out(out),
      _home(system.threads().app_thread()),
      _memory(system.threads()),
      _server(_home, system.system_log().component("rpc"), [this](std::string_view method, json::value params) {
          _memory.put_off();
          return _system.call(method, std::move(params));
      }) {}

daemon::~daemon() {
    if (_signals >= 0) ::close(_signals);
}

result<> daemon::watch_signals() {
    sigset_t set = our_signals();
    _signals = ::signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (_signals < 0) return fail(from_errno(errno), "signalfd");
    _on_signal = std::make_unique<on_signal>(*this);
    auto watch = _home.loop().watch_readable(_signals, *_on_signal);
    if (!watch) return std::unexpected(std::move(watch).error());
    _home.pin();
    _watch = std::move(*watch);
    return {};
}

void daemon::take_signals() noexcept {
    thread::entered in(_home);
    signalfd_siginfo info{};
    while (::read(_signals, &info, sizeof info) == sizeof info) {
        if (info.ssi_signo == SIGHUP) continue;
        if (++_ends_asked > 1) {
            _out.warning("asked to end a second time: ending at once");
            ::_exit(128 + static_cast<int>(info.ssi_signo));
        }
        _end.set();
    }
}

task<> daemon::load() {
    auto text = _system.threads().world().read_text(_how.config_file);
    if (!text) co_await fail(std::move(text).error().in("configuration"));
    auto config = server::read_config(*text);
    if (!config) co_await fail(std::move(config).error().in(_how.config_file));
    auto outcome = co_await as_result(server::load_all(_system, std::move(*config), _how.ignore_config_errors));
    if (!outcome) co_await fail(std::move(outcome).error().in(_how.config_file));
}

task<> daemon::begin() {
    co_await watch_signals();
    if (!_how.no_rpc_server) {
        auto listening = _server.listen(_how.rpc_socket);
        if (!listening && listening.error().code() == errc::address_in_use) {
            co_await fail(std::move(listening).error().in("another server is there; choose another socket with -r"));
        }
        if (!listening) {
            co_await fail(std::move(listening).error().in("cannot listen for JSON-RPC; choose another socket with -r"));
        }
    }
    if (_how.wait_for_rpc) co_return;
    _server.hold();
    if (_how.config_file.empty()) {
        co_await _system.start();
    } else {
        co_await load();
    }
    _server.release();
}

task<> daemon::drain() {
    _server.stop_reading();
    co_await _system.stop();
    co_await _server.stop();
    co_await _memory.end();
    if (_watch) _home.unpin();
    _watch.reset();
}

task<> daemon::live() {
    result<> outcome = co_await as_result(begin());
    if (outcome) {
        _out.notice(fmt::format("varve {} serves {} (process {}, {} loop)", version(),
                                _how.no_rpc_server ? "without JSON-RPC" : "JSON-RPC on " + _how.rpc_socket, ::getpid(),
                                _home.loop().kind()));
        co_await _end.wait();
        _out.notice("ending");
    }
    co_await drain();
    co_await std::move(outcome);
}

}  // namespace varve::app
