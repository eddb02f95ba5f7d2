#include "server/instance.h"

#include <algorithm>

#include "server/framework.h"
#include "server/logging.h"
#include "server/old_names.h"
#include "server/threads.h"
#include "util/assert.h"

namespace varve::server {

instance::instance(thread::runtime& threads, log& system_log, options how)
    : _threads(threads), _log(system_log), _how(std::move(how)) {
    add_framework_methods(*this);
    add_thread_methods(*this);
    add_log_methods(*this);
    add_notification_methods(*this);
    _jobs.add_methods(_methods);
}

instance::~instance() = default;

void instance::add(std::unique_ptr<rpc::subsystem> part) {
    VARVE_ASSERT(_begun == 0);
    part->add_methods(_methods);
    _parts.push_back(std::move(part));
}

void instance::add_old_names() {
    for (const auto& [old_name, name] : old_names) {
        if (_methods.find(name) != nullptr && _methods.find(old_name) == nullptr) _methods.add_alias(old_name, name);
    }
}

const rpc::subsystem* instance::find(std::string_view name) const noexcept {
    for (const auto& part : _parts) {
        if (part->name() == name) return part.get();
    }
    return nullptr;
}

bool instance::may_be_called(std::string_view method) const noexcept {
    return _how.allowed_methods.empty() ||
           std::ranges::find(_how.allowed_methods, method) != _how.allowed_methods.end();
}

task<json::value> instance::call(std::string_view method, json::value params) {
    if (!may_be_called(method)) return rpc::detail::refuse(error(errc::rpc_method_not_found));
    return _methods.call(method, std::move(params), _state);
}

task<> instance::start_parts() {
    for (_begun = 0; _begun < _parts.size();) {
        rpc::subsystem& part = *_parts[_begun++];
        auto outcome = co_await as_result(part.start());
        if (!outcome) co_await fail(std::move(outcome).error().in(part.name()));
    }
}

task<> instance::start() {
    if (_starting) co_await fail(errc::rpc_invalid_state, "start-up has begun already");
    _starting = true;
    result<> outcome = co_await as_result(start_parts());
    if (outcome) _state = rpc::states::runtime;
    _start_outcome = outcome;
    _start_ended.set();
    co_await std::move(outcome);
}

task<> instance::wait_started() {
    co_await _start_ended.wait();
    co_await result<>(_start_outcome);
}

task<> instance::stop() {
    if (!_start_ended.is_set()) {
        _start_outcome = fail(errc::cancelled, "the system ends");
        _start_ended.set();
    }
    if (!co_await _jobs.stop()) _log.component("app").warning("jobs do not end; going on with what can be ended");
    while (_begun > 0) {
        rpc::subsystem& part = *_parts[--_begun];
        auto outcome = co_await as_result(part.stop());
        if (!outcome) _log.component("app").error(std::string(part.name()) + ": " + outcome.error().message());
    }
}

}  // namespace varve::server
