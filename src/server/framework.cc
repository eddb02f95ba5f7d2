#include "server/framework.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "server/instance.h"
#include "server/threads.h"
#include "thread/runtime.h"
#include "util/version.h"

namespace varve::server {

namespace {

using rpc::states;

struct methods_params {
    bool current = false;
    bool include_aliases = false;
    static constexpr auto fields =
        std::tuple{rpc::optional(&methods_params::current, "current", "Only those that may be called now"),
                   rpc::optional(&methods_params::include_aliases, "include_aliases", "Names of the past as well")};
};

std::vector<std::string> get_methods(instance& i, methods_params p) {
    std::vector<std::string> out;
    auto wanted = [&](const std::string& name, const rpc::method& m) {
        return i.may_be_called(name) && (!p.current || rpc::allowed_in(m.allowed, i.state()));
    };
    for (const auto& m : i.methods().methods()) {
        if (wanted(m->name, *m)) out.push_back(m->name);
    }
    if (!p.include_aliases) return out;
    for (const auto& [name, m] : i.methods().aliases()) {
        if (wanted(name, *m)) out.push_back(name);
    }
    return out;
}

// SPDK's shape, which clients take apart; the numbers are ours.
json::value get_version() {
    uint64_t numbers[3] = {};
    std::string_view rest = version();
    for (uint64_t& n : numbers) {
        auto [end, ec] = std::from_chars(rest.data(), rest.data() + rest.size(), n);
        rest.remove_prefix(static_cast<std::size_t>(end - rest.data()));
        if (rest.starts_with('.')) rest.remove_prefix(1);
    }
    return json::object{
        {"version", fmt::format("Varve v{}", version())},
        {"fields",
         json::object{
             {"major", numbers[0]}, {"minor", numbers[1]}, {"patch", numbers[2]}, {"suffix", std::string(rest)}}}};
}

// Names, because numbers of signals differ between systems.
struct kill_params {
    std::string sig_name;
    static constexpr auto fields = std::tuple{rpc::required(
        &kill_params::sig_name, "sig_name", "Signal the program sends itself; SIGTERM and SIGINT end it in order",
        rpc::choice("SIGINT", "SIGTERM", "SIGQUIT", "SIGHUP", "SIGKILL", "SIGUSR1"))};
};

result<> kill(instance& i, kill_params p) {
    if (!i.how().kill) return fail(errc::unsupported, "nobody is there to take the signal");
    i.how().kill(p.sig_name);
    return {};
}

json::value get_reactors(instance& i) {
    const auto threads = i.threads().threads();
    json::array reactors;
    for (const auto& r : i.threads().reactors()) {
        json::array on_it;
        for (const auto& t : threads) {
            if (std::ranges::find(r.threads, t.id) == r.threads.end()) continue;
            on_it.push_back(json::object{{"name", t.name},
                                         {"id", t.id},
                                         {"cpumask", t.cpus.to_mask()},
                                         {"elapsed", t.stats.busy + t.stats.idle}});
        }
        reactors.push_back(json::object{{"lcore", r.cpu},
                                        {"numa_id", 0},
                                        {"tid", i.how().process_id},
                                        {"busy", r.busy},
                                        {"idle", r.idle},
                                        {"in_interrupt", false},
                                        {"irq", 0},
                                        {"sys", 0},
                                        {"usr", 0},
                                        {"lw_threads", std::move(on_it)}});
    }
    return json::object{{"tick_rate", tick_rate}, {"pid", i.how().process_id}, {"reactors", std::move(reactors)}};
}

json::value get_subsystems(instance& i) {
    json::array out;
    for (const auto& part : i.subsystems()) {
        out.push_back(json::object{{"subsystem", part->name()}, {"depends_on", rpc::encode(part->depends_on())}});
    }
    return out;
}

struct monitor_params {
    std::optional<bool> enabled;
    static constexpr auto fields = std::tuple{
        rpc::optional(&monitor_params::enabled, "enabled", "Whether to watch; without it the present state is told")};
};

}  // namespace

void add_framework_methods(instance& to) {
    using rpc::make_method;
    auto add = [&](auto m) { to.methods().add(m.bind(to)); };
    add(make_method("spdk_get_version", "The version of this program", get_version, states::any));
    add(make_method("rpc_get_methods", "The methods there are", get_methods, states::any));
    add(make_method("spdk_kill_instance", "Sends the program a signal", kill, states::any));
    add(make_method(
        "framework_start_init", "Ends start-up: starts every subsystem with the options set so far",
        [](instance& i) { return i.start(); }, states::startup));
    add(make_method(
        "framework_wait_init", "Answers when every subsystem has started", [](instance& i) { return i.wait_started(); },
        states::any));
    add(make_method("framework_get_subsystems", "The subsystems in the order in which they started", get_subsystems));
    add(make_method("framework_get_reactors", "The processors in use and the threads on each", get_reactors));
    add(make_method("framework_get_pci_devices", "The PCI devices attached to this program",
                    [] { return json::value(json::array{}); }));
    // Nothing is pinned to be disturbed: reactors sleep when idle, so switches are part of normal life.
    add(make_method("framework_monitor_context_switch", "Whether context switches of reactors are watched",
                    [watched = false](monitor_params p) mutable -> json::value {
                        return json::object{{"enabled", watched = p.enabled.value_or(watched)}};
                    }));
    add(make_method(
        "framework_enable_cpumask_locks", "Accepted: processors are shared with others, nothing is locked", [] {},
        states::any));
    add(make_method(
        "framework_disable_cpumask_locks", "Accepted: processors are shared with others, nothing is locked", [] {},
        states::any));
    add_config_methods(to);
}

}  // namespace varve::server
