// Where subsystems listen, and the ANA states of the paths through there.
#include <fmt/core.h>

#include <algorithm>
#include <ranges>

#include "targets/nvmf/methods/params.h"
#include "targets/nvmf/methods/service.h"

namespace varve::targets::nvmf {

namespace {

struct add_params : in_subsystem {
    listen_address at;
    bool secure_channel = false;
    ana_state ana = ana_state::optimized;
    std::optional<std::string> sock_impl;
    std::optional<int32_t> numa_id;
    static constexpr auto fields =
        rpc::extend(in_subsystem::fields, rpc::required(&add_params::at, "listen_address", "Where to listen"),
                    rpc::optional(&add_params::secure_channel, "secure_channel", "Require TLS; not offered yet"),
                    rpc::optional(&add_params::ana, "ana_state", "ANA state of this path, for all groups"),
                    rpc::optional(&add_params::sock_impl, "sock_impl",
                                  "Kept for SPDK's clients; one kind of socket is used", rpc::choice("posix", "uring")),
                    rpc::optional(&add_params::numa_id, "numa_id", "vfio-user: without effect"));
};

task<> add(target& t, add_params p) {
    subsystem_hold s = co_await hold_subsystem(t, p);
    listener_entry entry;
    entry.at = co_await to_address(p.at);
    if (p.secure_channel) co_await fail(invalid("secure_channel: TLS is not offered yet"));
    entry.ana.assign(s->options().max_namespaces, p.ana);
    if (auto added = co_await as_result(s->add_listener(std::move(entry))); !added)
        co_await fail(invalid(std::move(added).error()));
}

struct remove_params : in_subsystem {
    listen_address at;
    static constexpr auto fields = rpc::extend(
        in_subsystem::fields, rpc::required(&remove_params::at, "listen_address", "Where to listen no more"));
};

task<> remove(target& t, remove_params p) {
    subsystem_hold s = co_await hold_subsystem(t, p);
    env::address at = co_await to_address(p.at);
    if (auto removed = co_await as_result(s->remove_listener(at)); !removed)
        co_await fail(invalid(std::move(removed).error()));
}

struct ana_params : in_subsystem {
    listen_address at;
    ana_state state = ana_state::optimized;
    std::optional<uint32_t> anagrpid;
    static constexpr auto fields = rpc::extend(
        in_subsystem::fields, rpc::required(&ana_params::at, "listen_address", "Listener whose paths are meant"),
        rpc::required(&ana_params::state, "ana_state", "The new state"),
        rpc::optional(&ana_params::anagrpid, "anagrpid", "ANA group; without: all"));
};

task<> set_ana_state(target& t, ana_params p) {
    subsystem_hold s = co_await hold_subsystem(t, p);
    env::address at = co_await to_address(p.at);
    std::optional<uint32_t> group = p.anagrpid;
    if (group == 0u) group.reset();  // SPDK's clients say "all" so, too
    if (auto set = co_await as_result(s->set_ana_state(at, group, p.state)); !set)
        co_await fail(error(errc::rpc_internal, "error setting ANA state: -22: " + set.error().message()));
}

// The newest first, as SPDK does.
result<json::value> get(target& t, in_subsystem p) {
    auto s = subsystem_named(t, p);
    if (!s) return fail(std::move(s).error());
    json::array list;
    for (const listener_entry& entry : std::views::reverse((*s)->listeners)) {
        json::object one{{"address", rpc::encode(from_address(entry.at))}};
        if ((*s)->options().ana_reporting) {
            json::array states;
            for (std::size_t i = 0; i < entry.ana.size(); ++i)
                states.push_back(json::object{{"ana_group", i + 1}, {"ana_state", rpc::encode(entry.ana[i])}});
            one.add("ana_states", std::move(states));
        }
        list.push_back(std::move(one));
    }
    return list;
}

}  // namespace

void add_listener_methods(rpc::registry& methods, target& t) {
    methods.add(rpc::make_method("nvmf_subsystem_add_listener", "Listen for a subsystem's hosts", add).bind(t));
    methods.add(rpc::make_method("nvmf_subsystem_remove_listener",
                                 "Stop listening there, and disconnect those who came in so", remove)
                    .bind(t));
    methods.add(rpc::make_method("nvmf_subsystem_listener_set_ana_state",
                                 "Set the ANA state of the paths through a listener", set_ana_state)
                    .bind(t));
    methods.add(rpc::make_method("nvmf_subsystem_get_listeners", "Where a subsystem listens", get).bind(t));
}

namespace {

// SPDK does not save these. All groups at once where they agree, else those that are not optimized.
void add_ana_config(std::vector<rpc::call>& to, const std::string& nqn, const listener_entry& entry) {
    auto set = [&](ana_state state, std::optional<uint32_t> group) {
        json::object params{
            {"nqn", nqn}, {"listen_address", rpc::encode(from_address(entry.at))}, {"ana_state", rpc::encode(state)}};
        if (group) params.add("anagrpid", *group);
        to.push_back({"nvmf_subsystem_listener_set_ana_state", std::move(params)});
    };
    if (entry.ana.empty()) return;
    bool alike = std::ranges::all_of(entry.ana, [&](ana_state s) { return s == entry.ana.front(); });
    if (alike && entry.ana.front() == ana_state::optimized) return;
    if (alike) return set(entry.ana.front(), std::nullopt);
    for (uint32_t i = 0; i < entry.ana.size(); ++i)
        if (entry.ana[i] != ana_state::optimized) set(entry.ana[i], i + 1);
}

}  // namespace

void add_listener_config(std::vector<rpc::call>& to, const target& t) {
    for (const subsystem* s : in_order(t)) {
        const std::string& nqn = s->options().nqn;
        for (const listener_entry& entry : s->listeners) {
            to.push_back(
                {"nvmf_subsystem_add_listener", json::object{{"nqn", nqn},
                                                             {"listen_address", rpc::encode(from_address(entry.at))},
                                                             {"secure_channel", entry.secure_channel}}});
            if (s->options().ana_reporting) add_ana_config(to, nqn, entry);
        }
    }
}

}  // namespace varve::targets::nvmf
