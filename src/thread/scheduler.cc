#include "thread/scheduler.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>

namespace varve::thread {

std::string_view name_of(scheduler_kind kind) noexcept {
    return kind == scheduler_kind::dynamic ? "dynamic" : "static";
}

result<scheduler_kind> scheduler_named(std::string_view name) {
    for (scheduler_kind kind : {scheduler_kind::fixed, scheduler_kind::dynamic}) {
        if (name == name_of(kind)) return kind;
    }
    return fail(errc::not_found, "there are the schedulers 'static' and 'dynamic'");
}

namespace scheduling {
namespace {

class planner {
  public:
    planner(const std::vector<load>& threads, const std::vector<unsigned>& cores, unsigned main,
            const scheduler_settings& settings)
        : _main(main), _settings(settings) {
        for (unsigned cpu : cores) _cores[cpu];
        for (const load& t : threads) {
            core& c = _cores[t.cpu];
            c.percent += t.percent;
            c.active += active(t);
            ++c.threads;
        }
    }

    void consider(const load& t) {
        if (!t.movable) return;
        if (!active(t)) {
            if (t.cpu != _main && fits(t, _main)) move(t, _main);
            return;
        }
        const core& here = _cores[t.cpu];
        if (here.percent >= _settings.core_busy && here.threads > 1) {
            relieve(t);
        } else if (t.cpu != _main && here.active == 1) {
            pack(t);
        }
    }

    std::vector<relocation> take() { return std::move(_moves); }

  private:
    struct core {
        unsigned percent = 0;
        unsigned active = 0;  // threads that do more than a little
        unsigned threads = 0;
    };
    bool active(const load& t) const { return t.percent >= _settings.load_limit; }
    bool fits(const load& t, unsigned cpu) const {
        return t.cpus.contains(cpu) && _cores.at(cpu).percent + t.percent <= _settings.core_limit;
    }
    void move(const load& t, unsigned to) {
        core &from = _cores[t.cpu], &target = _cores[to];
        from.percent -= t.percent;
        from.active -= active(t);
        target.percent += t.percent;
        target.active += active(t);
        --from.threads;
        ++target.threads;
        _moves.push_back({t.thread_id, to});
    }
    // Off a crowded core. What it would use if it had one for itself is not known, so busy threads are counted: there
    // must be two more here than there, or it would come back in the next period. A single one leaves those that do
    // little to themselves if it finds fewer of those elsewhere.
    void relieve(const load& t) {
        const core& here = _cores[t.cpu];
        const core* best = nullptr;
        unsigned to = 0;
        for (auto& [cpu, c] : _cores) {
            if (cpu == t.cpu || !t.cpus.contains(cpu)) continue;
            if (best != nullptr && std::pair(c.active, c.percent) >= std::pair(best->active, best->percent)) continue;
            best = &c;
            to = cpu;
        }
        if (best == nullptr) return;
        const bool calmer = best->active == 0 && (best->threads == 0 || best->percent < here.percent - t.percent);
        if (here.active > 1 ? best->active + 1 < here.active : calmer) move(t, to);
    }
    // Alone on its core: joins another that is in use and has room, so that its own may sleep.
    void pack(const load& t) {
        for (auto& [cpu, c] : _cores) {
            if (cpu == t.cpu || (c.active == 0 && cpu != _main) || !fits(t, cpu)) continue;
            return move(t, cpu);
        }
    }

    std::map<unsigned, core> _cores;
    const unsigned _main;
    const scheduler_settings& _settings;
    std::vector<relocation> _moves;
};

}  // namespace

std::vector<relocation> plan(const std::vector<load>& threads, const std::vector<unsigned>& cores, unsigned main,
                             const scheduler_settings& settings) {
    planner p(threads, cores, main, settings);
    std::vector<load> heaviest_first = threads;
    std::ranges::sort(heaviest_first, [](const load& a, const load& b) {
        return a.percent != b.percent ? a.percent > b.percent : a.thread_id < b.thread_id;
    });
    for (const load& t : heaviest_first) p.consider(t);
    return p.take();
}

}  // namespace scheduling

scheduler::scheduler(runtime& of) : _runtime(of) {}

scheduler::~scheduler() = default;

result<> scheduler::set(const scheduler_settings& settings) {
    if (settings.load_limit > 100 || settings.core_limit > 100 || settings.core_busy > 100) {
        return fail(errc::invalid, "load_limit, core_limit and core_busy are percentages");
    }
    if (settings.period < 0) return fail(errc::invalid, "the period of a scheduler cannot be negative");
    bool was_dynamic = _poller != nullptr;
    _poller.reset();
    _settings = settings;
    if (_settings.kind == scheduler_kind::dynamic) {
        if (_settings.period == 0) _settings.period = usual_period;
        _last.clear();
        _poller = std::make_unique<poller>(
            "scheduler", poller_kind::timed,
            [this] {
                balance();
                return true;
            },
            _settings.period);
    } else if (was_dynamic) {
        for (auto& t : _runtime.threads()) {
            if (t.cpu != t.first_cpu) (void)_runtime.move_thread(t.id, t.first_cpu);  // not if it has ended, or may not
        }
    }
    return {};
}

void scheduler::balance() {
    const time_ns now = thread::current()->now();
    const time_ns elapsed = std::max<time_ns>(now - std::exchange(_last_at, now), 1);
    std::vector<unsigned> cores;
    for (unsigned cpu : _runtime.cpus().list()) {
        if (!_settings.isolated.contains(cpu)) cores.push_back(cpu);
    }
    if (cores.empty()) return;
    unsigned main = cores.front();
    std::vector<scheduling::load> loads;
    std::vector<sample> samples;
    for (auto& t : _runtime.threads()) {
        samples.push_back({t.id, t.stats.busy});
        if (_settings.isolated.contains(t.cpu)) continue;
        const bool is_app_thread = t.id == _runtime.app_thread().id();
        if (is_app_thread) main = t.cpu;
        auto before = std::ranges::lower_bound(_last, t.id, {}, &sample::thread_id);
        if (before == _last.end() || before->thread_id != t.id) continue;  // new: not known well enough yet
        time_ns busy = (t.stats.busy - before->busy) * 100 / elapsed;
        loads.push_back({t.id, t.cpu, static_cast<unsigned>(std::clamp<time_ns>(busy, 0, 100)),
                         !t.pinned && !is_app_thread, t.cpus});
    }
    _last = std::move(samples);
    if (_settings.main_core && std::ranges::find(cores, *_settings.main_core) != cores.end())
        main = *_settings.main_core;
    for (auto& move : scheduling::plan(loads, cores, main, _settings)) {
        (void)_runtime.move_thread(move.thread_id, move.to);  // it may have ended meanwhile
    }
}

result<> scheduler::place(std::string_view mappings) {
    std::vector<scheduling::relocation> moves;
    auto known = _runtime.threads();
    while (!mappings.empty()) {
        std::string_view one = mappings.substr(0, mappings.find(','));
        mappings.remove_prefix(std::min(one.size() + 1, mappings.size()));
        scheduling::relocation move{};
        const char* end = one.data() + one.size();
        auto id = std::from_chars(one.data(), end, move.thread_id);
        bool good = id.ec == std::errc() && id.ptr != end && *id.ptr == ':';
        if (good) {
            auto cpu = std::from_chars(id.ptr + 1, end, move.to);
            good = cpu.ec == std::errc() && cpu.ptr == end;
        }
        if (!good) return fail(errc::invalid, "mappings are written THREAD:CORE,THREAD:CORE");
        auto t = std::ranges::find(known, move.thread_id, &runtime::thread_info::id);
        if (t == known.end()) return fail(errc::invalid, fmt::format("thread {} does not exist", move.thread_id));
        if (!_runtime.cpus().contains(move.to) || !t->cpus.contains(move.to)) {
            return fail(errc::invalid, fmt::format("thread {} cannot run on core {}", move.thread_id, move.to));
        }
        moves.push_back(move);
    }
    for (auto& move : moves) (void)_runtime.move_thread(move.thread_id, move.to);  // checked above
    return {};
}

}  // namespace varve::thread
