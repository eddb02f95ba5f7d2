#include "thread/runtime.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>

#include "env/system.h"
#include "thread/awaits.h"
#include "thread/reactor.h"

namespace varve::thread {

// Control path only: nothing that carries I/O takes this lock. Work may be posted under it.
struct runtime::registry {
    struct entry {
        thread* body;
        cpu_set cpus;
        unsigned first_cpu;
    };
    mutable std::mutex lock;
    std::condition_variable ended_or_mail;
    std::vector<std::unique_ptr<reactor>> reactors;  // by cpu; constant after make()
    cpu_set all_cpus;                                // constant after make()
    std::map<uint64_t, entry> threads;
    std::deque<mailbox> mailboxes;
    std::vector<mailbox*> unused_mailboxes;
    uint64_t next_id = 1;
    bool ended = false;
};

runtime::runtime(env::system& world, uint64_t buffer_limit)
    : _world(world), _buffers(buffer_limit), _registry(std::make_unique<registry>()) {}

result<std::unique_ptr<runtime>> runtime::make(env::system& world, runtime_options options) {
    std::vector<unsigned> usable = world.cpus();
    std::vector<unsigned> cpus = options.cpus ? options.cpus->list() : std::vector<unsigned>{usable.at(0)};
    if (cpus.empty()) return fail(errc::invalid, "the set of processors to run on is empty");
    std::unique_ptr<runtime> made(new runtime(world, options.buffer_limit));
    for (unsigned cpu : cpus) {
        if (std::ranges::find(usable, cpu) == usable.end()) {
            return fail(errc::invalid, fmt::format("this process may not use processor {}", cpu));
        }
        auto loop = world.make_loop();
        if (!loop) return fail(std::move(loop).error());
        made->_registry->all_cpus.add(cpu);
        made->_registry->reactors.push_back(std::make_unique<reactor>(
            *made, world, std::move(*loop), cpu, reactor::options{options.busy_poll, options.spin}));
    }
    auto first = made->create_thread("app_thread");
    if (!first) return fail(std::move(first).error());
    made->_app_thread = *first;
    return made;
}

runtime::~runtime() {
    VARVE_ASSERT(!running());
    for (auto& [id, entry] : _registry->threads) delete entry.body;
}

result<thread*> runtime::create_thread(std::string name, cpu_set cpus) {
    std::lock_guard guard(_registry->lock);
    reactor* on = pick_reactor(cpus);
    if (on == nullptr) {
        return fail(errc::invalid, fmt::format("no reactor runs on a processor of {}; reactors run on {}",
                                               cpus.to_mask(), _registry->all_cpus.to_mask()));
    }
    if (_registry->unused_mailboxes.empty()) {
        _registry->unused_mailboxes.push_back(&_registry->mailboxes.emplace_back());
    }
    mailbox& mail = *_registry->unused_mailboxes.back();
    _registry->unused_mailboxes.pop_back();
    mail.home.store(on, std::memory_order_seq_cst);
    uint64_t id = _registry->next_id++;
    auto* made = new thread(*this, mail, id, std::move(name), _world.now());
    _registry->threads.emplace(id,
                               registry::entry{made, cpus.empty() ? _registry->all_cpus : std::move(cpus), on->cpu()});
    ++on->assigned;
    on->post(made->_control->arrive);
    return made;
}

void runtime::destroy_thread(thread& t) {
    VARVE_ASSERT(&t != _app_thread);
    if (!t._control->end_sent.exchange(true)) t.post(t._control->end);
}

bool runtime::end(thread& t) noexcept {
    std::lock_guard guard(_registry->lock);
    if (t._holds.load(std::memory_order_relaxed) != 0) return false;
    --t._reactor->assigned;
    _registry->threads.erase(t.id());
    mailbox& mail = t._mail;
    delete &t;
    _registry->unused_mailboxes.push_back(&mail);
    return true;
}

void runtime::moved(reactor& from, reactor& to) noexcept {
    std::lock_guard guard(_registry->lock);
    --from.assigned;
    ++to.assigned;
}

reactor* runtime::pick_reactor(const cpu_set& cpus) noexcept {
    reactor* best = nullptr;
    for (auto& r : _registry->reactors) {
        if (!cpus.empty() && !cpus.contains(r->cpu())) continue;
        if (best == nullptr || r->assigned < best->assigned) best = r.get();
    }
    return best;
}

void runtime::send_to(thread& t, reactor& to) noexcept {
    t._control->wanted.store(&to, std::memory_order_seq_cst);
    if (!t._control->leave_sent.exchange(true, std::memory_order_seq_cst)) t.post(t._control->leave);
}

result<> runtime::set_cpus(uint64_t thread_id, cpu_set cpus) {
    std::lock_guard guard(_registry->lock);
    auto found = _registry->threads.find(thread_id);
    if (found == _registry->threads.end())
        return fail(errc::not_found, fmt::format("thread {} does not exist", thread_id));
    if (cpus.empty()) cpus = _registry->all_cpus;
    reactor* best = pick_reactor(cpus);
    if (best == nullptr) {
        return fail(errc::invalid, fmt::format("no reactor runs on a processor of {}; reactors run on {}",
                                               cpus.to_mask(), _registry->all_cpus.to_mask()));
    }
    thread& t = *found->second.body;
    if (!cpus.contains(t._mail.home.load()->cpu())) send_to(t, *best);
    found->second.cpus = std::move(cpus);
    return {};
}

result<> runtime::move_thread(uint64_t thread_id, unsigned cpu) {
    std::lock_guard guard(_registry->lock);
    auto found = _registry->threads.find(thread_id);
    if (found == _registry->threads.end())
        return fail(errc::not_found, fmt::format("thread {} does not exist", thread_id));
    for (auto& r : _registry->reactors) {
        if (r->cpu() != cpu) continue;
        if (!found->second.cpus.contains(cpu)) {
            return fail(errc::invalid,
                        fmt::format("thread {} may only run on {}", thread_id, found->second.cpus.to_mask()));
        }
        send_to(*found->second.body, *r);
        return {};
    }
    return fail(errc::invalid, fmt::format("no reactor runs on processor {}", cpu));
}

std::vector<runtime::thread_info> runtime::threads() const {
    std::lock_guard guard(_registry->lock);
    std::vector<thread_info> all;
    for (auto& [id, entry] : _registry->threads) {
        thread& t = *entry.body;
        bool pinned = t._pins.load(std::memory_order_relaxed) != 0;
        all.push_back({id, t.name(), t._mail.home.load()->cpu(), entry.first_cpu, entry.cpus, pinned, t.stats()});
    }
    return all;
}

std::vector<runtime::reactor_info> runtime::reactors() const {
    std::lock_guard guard(_registry->lock);
    std::vector<reactor_info> all;
    for (auto& r : _registry->reactors) {
        time_ns busy = r->busy_time();
        reactor_info info{r->cpu(), busy, std::max<time_ns>(_world.now() - r->created() - busy, 0), {}};
        for (auto& [id, entry] : _registry->threads) {
            if (entry.body->_mail.home.load() == r.get()) info.threads.push_back(id);
        }
        all.push_back(std::move(info));
    }
    return all;
}

cpu_set runtime::cpus() const { return _registry->all_cpus; }

thread* runtime::find_thread(uint64_t id) noexcept {
    std::lock_guard guard(_registry->lock);
    auto found = _registry->threads.find(id);
    return found == _registry->threads.end() ? nullptr : found->second.body;
}

thread* runtime::hold_next(uint64_t after) noexcept {
    std::lock_guard guard(_registry->lock);
    auto next = _registry->threads.upper_bound(after);
    if (next == _registry->threads.end()) return nullptr;
    hold(*next->second.body);
    return next->second.body;
}

void runtime::hold(thread& t) noexcept { t._holds.fetch_add(1, std::memory_order_relaxed); }

void runtime::release(thread& t) noexcept {
    VARVE_ASSERT(thread::current() == &t);
    t._holds.fetch_sub(1, std::memory_order_relaxed);
    if (t._ending) t._reactor->needs_tidying();
}

task<> runtime::for_each_thread(std::function<void(thread&)> f) {
    VARVE_ASSERT(thread::current() != nullptr);
    thread& home = *thread::current();
    hold(home);
    uint64_t after = 0;
    while (thread* t = hold_next(after)) {
        after = t->id();
        co_await switch_to(*t);
        f(*t);
        release(*t);
    }
    co_await switch_to(home);
    release(home);
}

void runtime::run() {
    std::vector<env::worker*> workers;
    for (auto& r : _registry->reactors) workers.push_back(r.get());
    _running.store(true, std::memory_order_seq_cst);
    _world.run(workers);
    _running.store(false, std::memory_order_seq_cst);
    while (_in_stop.load(std::memory_order_seq_cst) != 0) __builtin_ia32_pause();
}

void runtime::stop() noexcept {
    _in_stop.fetch_add(1, std::memory_order_seq_cst);
    _stopping.store(true, std::memory_order_seq_cst);
    for (auto& r : _registry->reactors) r->wake();
    _in_stop.fetch_sub(1, std::memory_order_seq_cst);
}

bool runtime::go_quiet(reactor& r) noexcept {
    std::lock_guard guard(_registry->lock);
    r.quiet = true;
    for (auto& other : _registry->reactors) {
        if (!other->quiet || other->has_mail()) return false;
    }
    _registry->ended = true;
    _registry->ended_or_mail.notify_all();
    return true;
}

bool runtime::leave_quiet(reactor& r) noexcept {
    std::lock_guard guard(_registry->lock);
    if (_registry->ended) {
        r.finish();
        return false;
    }
    if (!r.has_mail()) return false;
    r.leave_quiet();
    return true;
}

// Only while stopping, and only for as long as other reactors still have something to do.
void runtime::wait_for_others() noexcept {
    std::unique_lock guard(_registry->lock);
    if (!_registry->ended) _registry->ended_or_mail.wait_for(guard, std::chrono::milliseconds(1));
}

}  // namespace varve::thread
