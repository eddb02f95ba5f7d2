#include "server/scheduler.h"

#include "thread/runtime.h"
#include "thread/scheduler.h"

namespace varve::thread {
constexpr auto names_of(scheduler_kind) {
    return std::to_array<rpc::named<scheduler_kind>>(
        {{"static", scheduler_kind::fixed}, {"dynamic", scheduler_kind::dynamic}});
}
}  // namespace varve::thread

namespace varve::server {

namespace {

using rpc::states;
using thread::scheduler_kind;

struct set_params {
    scheduler_kind name = scheduler_kind::fixed;
    uint64_t period = 0;
    uint8_t load_limit = 20, core_limit = 80, core_busy = 95;
    std::string mappings;
    static constexpr auto fields = std::tuple{
        rpc::required(&set_params::name, "name", "static leaves threads where they are, dynamic moves them by load"),
        rpc::optional(&set_params::period, "period",
                      "Microseconds between decisions; 0 leaves it as it is or was at first",
                      rpc::range<0, 3'600'000'000u>),
        rpc::optional(&set_params::load_limit, "load_limit", "dynamic: percent below which a thread does little",
                      rpc::range<0, 100>),
        rpc::optional(&set_params::core_limit, "core_limit", "dynamic: percent up to which a processor is filled",
                      rpc::range<0, 100>),
        rpc::optional(&set_params::core_busy, "core_busy", "dynamic: percent above which a processor is relieved",
                      rpc::range<0, 100>),
        rpc::optional(&set_params::mappings, "mappings", "static: thread:processor pairs, separated by commas")};
};

struct options_params {
    uint32_t scheduling_core = 0;
    std::string isolated_core_mask = "0";
    static constexpr auto fields = std::tuple{
        rpc::optional(&options_params::scheduling_core, "scheduling_core",
                      "Processor that takes threads that do little"),
        rpc::optional(&options_params::isolated_core_mask, "isolated_core_mask", "Processors left out of decisions")};
};

class part final : public rpc::subsystem {
  public:
    explicit part(thread::runtime& threads) : _threads(threads), _scheduler(threads) {}

    std::string_view name() const noexcept override { return "scheduler"; }
    void add_methods(rpc::registry& to) override {
        using rpc::make_method;
        auto add = [&](auto m) { to.add(m.bind(*this)); };
        add(make_method("framework_set_scheduler", "Chooses how threads are spread over processors", &part::set,
                        states::any));
        add(make_method("framework_get_scheduler", "How threads are spread over processors", &part::get, states::any));
        add(make_method("framework_get_governor", "What changes the frequency of processors: nothing",
                        [] { return json::value(json::object{}); }));
        add(make_method("scheduler_set_options", "Sets what every policy keeps to", &part::set_options,
                        states::startup));
    }
    std::optional<std::vector<rpc::call>> config() const override {
        std::vector<rpc::call> out;
        if (_options) out.push_back({"scheduler_set_options", rpc::encode(*_options)});
        const auto& s = _scheduler.settings();
        json::object params{{"name", rpc::encode(s.kind)}};
        if (s.period != 0) params.add("period", s.period / microseconds);
        if (s.kind == scheduler_kind::dynamic) add_limits(params);
        out.push_back({"framework_set_scheduler", std::move(params)});
        return out;
    }
    task<> stop() override {
        co_await _scheduler.set({});  // leaves nothing running
    }

  private:
    static result<> set(part& p, rpc::update<set_params> given) {
        thread::scheduler_settings s = p._scheduler.settings();
        const set_params wanted = given.onto({.period = static_cast<uint64_t>(s.period / microseconds),
                                              .load_limit = static_cast<uint8_t>(s.load_limit),
                                              .core_limit = static_cast<uint8_t>(s.core_limit),
                                              .core_busy = static_cast<uint8_t>(s.core_busy)});
        s.kind = wanted.name;
        if (wanted.period != 0) s.period = static_cast<time_ns>(wanted.period) * microseconds;
        if (s.period == 0 && s.kind == scheduler_kind::dynamic) s.period = thread::scheduler::usual_period;
        s.load_limit = wanted.load_limit;
        s.core_limit = wanted.core_limit;
        s.core_busy = wanted.core_busy;
        VARVE_TRY(p._scheduler.set(s));
        return wanted.mappings.empty() ? result<>() : p._scheduler.place(wanted.mappings);
    }
    static json::value get(part& p) {
        const auto& s = p._scheduler.settings();
        const auto cpus = p._threads.cpus().list();
        json::object out{{"scheduler_name", rpc::encode(s.kind)},
                         {"scheduler_period", s.period / microseconds},
                         {"isolated_core_mask", s.isolated.to_mask()},
                         {"scheduling_core", s.main_core.value_or(cpus.empty() ? 0 : cpus.front())}};
        if (s.kind == scheduler_kind::dynamic) p.add_limits(out);
        return out;
    }
    static result<> set_options(part& p, rpc::update<options_params> given) {
        options_params wanted = given.onto(p._options.value_or(options_params{}));
        auto isolated = thread::cpu_set::parse(wanted.isolated_core_mask);
        if (!isolated) return std::unexpected(std::move(isolated).error());
        if (isolated->contains(wanted.scheduling_core)) {
            return fail(errc::invalid, "scheduling_core must not be isolated");
        }
        wanted.isolated_core_mask = isolated->to_mask();
        thread::scheduler_settings s = p._scheduler.settings();
        s.isolated = std::move(*isolated);
        s.main_core = wanted.scheduling_core;
        VARVE_TRY(p._scheduler.set(s));
        p._options = std::move(wanted);
        return {};
    }
    void add_limits(json::object& to) const {
        const auto& s = _scheduler.settings();
        to.add("load_limit", s.load_limit);
        to.add("core_limit", s.core_limit);
        to.add("core_busy", s.core_busy);
    }

    thread::runtime& _threads;
    thread::scheduler _scheduler;
    std::optional<options_params> _options;  // when set
};

}  // namespace

std::unique_ptr<rpc::subsystem> make_scheduler(thread::runtime& threads) { return std::make_unique<part>(threads); }

}  // namespace varve::server
