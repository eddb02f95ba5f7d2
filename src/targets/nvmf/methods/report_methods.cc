// What there is: subsystems, their controllers and queue pairs, statistics.
#include <fmt/core.h>

#include <algorithm>
#include <ranges>

#include "targets/nvmf/methods/params.h"
#include "targets/nvmf/methods/service.h"
#include "targets/nvmf/poll_group.h"
#include "thread/awaits.h"

namespace varve::targets::nvmf {

namespace {

struct get_params {
    std::optional<std::string> nqn, tgt_name;
    static constexpr auto fields = std::tuple{
        rpc::optional(&get_params::nqn, "nqn", "Only this subsystem"),
        rpc::optional(&get_params::tgt_name, "tgt_name", "Target; there is nvmf_tgt"),
    };
};

json::object describe(const exported_namespace& ns, bool ana_reporting) {
    const namespace_options& o = ns.options;
    auto given = [](auto& bytes) { return std::ranges::any_of(bytes, [](uint8_t b) { return b != 0; }); };
    // "name" is what clients of long ago read.
    json::object out{{"nsid", o.nsid}, {"bdev_name", ns.device->name()}, {"name", ns.device->name()}};
    if (given(o.nguid)) out.add("nguid", to_hex(o.nguid));
    if (given(o.eui64)) out.add("eui64", to_hex(o.eui64));
    if (!o.id.is_nil()) out.add("uuid", o.id.to_string());
    if (ana_reporting) out.add("anagrpid", o.anagrpid);
    return out;
}

json::object describe(const subsystem& s) {
    const subsystem_options& o = s.options();
    json::array addresses, hosts, namespaces;
    for (const listener_entry& entry : std::views::reverse(s.listeners))
        addresses.push_back(rpc::encode(from_address(entry.at)));
    for (const std::string& host : s.hosts) hosts.push_back(json::object{{"nqn", host}});
    json::object out{{"nqn", o.nqn},
                     {"subtype", o.discovery ? "Discovery" : "NVMe"},
                     {"listen_addresses", std::move(addresses)},
                     {"allow_any_host", o.allow_any_host},
                     {"hosts", std::move(hosts)}};
    if (o.discovery) return out;
    out.add("serial_number", o.serial_number);
    out.add("model_number", o.model_number);
    if (!o.admin_label.empty()) out.add("admin_label", o.admin_label);
    out.add("max_namespaces", o.max_namespaces);
    out.add("passthrough", false);
    out.add("min_cntlid", o.min_cntlid);
    out.add("max_cntlid", o.max_cntlid);
    out.add("dmrsl", o.dmrsl);
    out.add("wzsl", o.wzsl);
    for (auto& ns : s.namespaces)
        if (ns) namespaces.push_back(describe(*ns, o.ana_reporting));
    out.add("namespaces", std::move(namespaces));
    return out;
}

result<json::value> get_subsystems(target& t, get_params p) {
    VARVE_TRY(check_target_name(t, p.tgt_name));
    json::array list;
    if (p.nqn) {
        auto s = subsystem_named(t, {*p.nqn, p.tgt_name});
        if (!s) return fail(std::move(s).error());
        list.push_back(describe(**s));
        return list;
    }
    for (const subsystem* s : in_order(t)) list.push_back(describe(*s));
    return list;
}

result<json::value> get_controllers(target& t, in_subsystem p) {
    auto s = subsystem_named(t, p);
    if (!s) return fail(std::move(s).error());
    json::array list;
    for (auto& c : (*s)->controllers) {
        auto io_queues = std::ranges::count_if(c->queues, [](auto& entry) { return entry.qid != 0; });
        list.push_back(json::object{{"cntlid", c->id},
                                    {"cntrltype", c->discovery ? "discovery" : "io"},
                                    {"hostnqn", c->hostnqn},
                                    {"hostid", uuid{c->hostid}.to_string()},
                                    {"num_io_qpairs", static_cast<uint64_t>(io_queues)}});
    }
    return list;
}

result<json::value> get_qpairs(target& t, in_subsystem p) {
    auto s = subsystem_named(t, p);
    if (!s) return fail(std::move(s).error());
    json::array list;
    for (auto& c : (*s)->controllers) {
        for (auto& entry : c->queues) {
            list.push_back(json::object{{"cntlid", c->id},
                                        {"qid", entry.qid},
                                        {"state", "enabled"},
                                        {"thread", entry.on->name()},
                                        {"hostnqn", c->hostnqn},
                                        {"listen_address", rpc::encode(from_address(c->listener))},
                                        {"peer_address", rpc::encode(from_address(entry.peer))}});
        }
    }
    return list;
}

struct stats_params {
    std::optional<std::string> tgt_name;
    static constexpr auto fields = std::tuple{
        rpc::optional(&stats_params::tgt_name, "tgt_name", "Target; there is nvmf_tgt"),
    };
};

// On the poll group's thread.
task<poll_group_stats> stats_of(poll_group& group) {
    poll_group_stats s = group.stats;
    s.current_unassociated_qpairs = group.connections.size() - s.current_admin_qpairs - s.current_io_qpairs;
    co_return s;
}

task<json::value> get_stats(target& t, stats_params p) {
    co_await check_target_name(t, p.tgt_name);
    auto inside = t.calls.enter();
    if (!inside) co_return fail(errc::busy, "the target is stopping");
    json::array transports, groups;
    for (auto& each : t.transports) transports.push_back(json::object{{"trtype", each->options().trtype}});
    for (auto& group : t.groups()) {
        poll_group_stats s = co_await call_on(group->thread(), [&] { return stats_of(*group); });
        groups.push_back(json::object{{"name", group->name()},
                                      {"admin_qpairs", s.admin_qpairs},
                                      {"io_qpairs", s.io_qpairs},
                                      {"current_admin_qpairs", s.current_admin_qpairs},
                                      {"current_io_qpairs", s.current_io_qpairs},
                                      {"current_unassociated_qpairs", s.current_unassociated_qpairs},
                                      {"pending_bdev_io", s.pending_bdev_io},
                                      {"completed_nvme_io", s.completed_nvme_io},
                                      {"transports", transports}});
    }
    constexpr uint64_t ticks_per_second = 1'000'000'000;
    co_return json::value(json::object{{"tick_rate", ticks_per_second}, {"poll_groups", std::move(groups)}});
}

}  // namespace

void add_report_methods(rpc::registry& methods, target& t) {
    methods.add(rpc::make_method("nvmf_subsystem_get_controllers", "Controllers of a subsystem: hosts connected",
                                 get_controllers)
                    .bind(t));
    methods.add(
        rpc::make_method("nvmf_subsystem_get_qpairs", "Queue pairs of a subsystem's controllers", get_qpairs).bind(t));
    methods.add(rpc::make_method("nvmf_get_stats", "Counters of each poll group", get_stats).bind(t));
    methods.add(
        rpc::make_method("nvmf_get_subsystems", "Subsystems with their namespaces, hosts and listeners", get_subsystems)
            .bind(t));
}

}  // namespace varve::targets::nvmf
