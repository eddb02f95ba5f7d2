#include "jobs/registry.h"

#include <algorithm>
#include <limits>

#include "thread/thread.h"
#include "util/assert.h"

namespace varve::jobs {

registry::~registry() {
    for (const auto& [id, e] : _entries) VARVE_ASSERT(!e->running());
}

entry& registry::enter(description what) {
    auto made = std::make_unique<entry>();
    made->id = ++_last;
    made->what = std::move(what);
    made->started = thread::thread::current()->now();
    return *_entries.emplace(made->id, std::move(made)).first->second;
}

void registry::leave(entry& e, result<> outcome) {
    e.ended = thread::thread::current()->now();
    e.outcome = std::move(outcome);
    e.over.set();
    if (e.what.everyday && e.ended - e.started < at_once) {
        _entries.erase(uint64_t{e.id});
        return;
    }
    auto has_ended = [](const auto& p) { return !p.second->running(); };
    if (std::ranges::count_if(_entries, has_ended) <= static_cast<std::ptrdiff_t>(kept)) return;
    auto oldest = std::ranges::min_element(_entries, {}, [](const auto& p) {
        return p.second->running() ? std::numeric_limits<time_ns>::max() : p.second->ended;
    });
    _entries.erase(oldest);
}

task<> registry::run(description what, body operation) {
    auto inside = _tasks.enter();
    if (!inside) co_await fail(errc::cancelled, "the system ends");
    entry& e = enter(std::move(what));
    result<> outcome = co_await as_result(operation(e.progress));
    leave(e, outcome);
    co_await std::move(outcome);
}

result<uint64_t> registry::start(description what, body operation, std::function<void(const result<>&)> at_end) {
    if (_tasks.closed()) return fail(errc::cancelled, "the system ends");
    entry& e = enter(std::move(what));
    const uint64_t id = e.id;
    auto whole = [](registry& all, entry& of, body op, std::function<void(const result<>&)> told) -> task<> {
        result<> outcome = co_await as_result(op(of.progress));
        if (told) told(outcome);
        all.leave(of, std::move(outcome));
    };
    _tasks.spawn(whole(*this, e, std::move(operation), std::move(at_end)), [](const error&) {});
    return id;
}

entry* registry::find(uint64_t id) noexcept {
    auto at = _entries.find(id);
    return at == _entries.end() ? nullptr : at->second.get();
}

task<> registry::end_all_of(const void* owner) {
    for (;;) {
        auto at = std::ranges::find_if(
            _entries, [&](const auto& p) { return p.second->running() && p.second->what.owner == owner; });
        if (at == _entries.end()) co_return;
        for (auto& [id, e] : _entries) {
            if (e->what.owner == owner) e->progress.cancel();
        }
        co_await at->second->over.wait();
    }
}

task<bool> registry::wait(uint64_t id, time_ns at_most) {
    struct alarm : work {
        registry& all;
        const uint64_t of;
        bool rang = false;
        alarm(registry& r, uint64_t i) : all(r), of(i) {
            run = [](work& w) noexcept {
                auto& me = static_cast<alarm&>(w);
                me.rang = true;
                if (entry* e = me.all.find(me.of)) e->over.pulse();
            };
        }
    } clock(*this, id);
    thread::timer timer(clock);
    timer.start(std::max<time_ns>(at_most, 0));
    for (;;) {
        entry* e = find(id);
        if (e == nullptr || !e->running()) co_return true;
        if (clock.rang) co_return false;
        co_await e->over.wait();
    }
}

task<bool> registry::stop(time_ns at_most) {
    auto closing = _tasks.close();
    for (auto& [id, e] : _entries) e->progress.cancel();
    const time_ns until = thread::thread::current()->now() + at_most;
    for (;;) {
        auto at = std::ranges::find_if(_entries, [](const auto& p) { return p.second->running(); });
        if (at == _entries.end()) break;
        if (!co_await wait(at->first, until - thread::thread::current()->now())) co_return false;
    }
    co_await closing;
    co_return true;
}

}  // namespace varve::jobs
