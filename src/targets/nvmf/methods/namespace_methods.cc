// Namespaces of a subsystem, who sees them, and their ANA groups.
#include <fmt/core.h>

#include <algorithm>

#include "targets/nvmf/methods/params.h"
#include "targets/nvmf/methods/service.h"

namespace varve::targets::nvmf {

namespace {

struct namespace_params {
    std::optional<uint32_t> nsid;
    std::string bdev_name;
    std::optional<std::string> nguid, eui64, ptpl_file;
    std::optional<varve::uuid> uuid;
    std::optional<uint32_t> anagrpid;
    bool no_auto_visible = false, hide_metadata = false;
    static constexpr auto fields = std::tuple{
        rpc::optional(&namespace_params::nsid, "nsid", "Namespace identifier; without one, or 0: the lowest free"),
        rpc::required(&namespace_params::bdev_name, "bdev_name", "Bdev to offer"),
        rpc::optional(&namespace_params::nguid, "nguid", "32 hexadecimal digits; without: the bdev's uuid"),
        rpc::optional(&namespace_params::eui64, "eui64", "16 hexadecimal digits"),
        rpc::optional(&namespace_params::uuid, "uuid", "Without: the bdev's"),
        rpc::optional(&namespace_params::ptpl_file, "ptpl_file", "Kept; there are no reservations yet"),
        rpc::optional(&namespace_params::anagrpid, "anagrpid", "ANA group; without: the namespace identifier"),
        rpc::optional(&namespace_params::no_auto_visible, "no_auto_visible",
                      "Show it only to hosts named with nvmf_ns_add_host"),
        rpc::optional(&namespace_params::hide_metadata, "hide_metadata", "Without effect: there is no metadata"),
    };
};

struct add_params : in_subsystem {
    namespace_params ns;
    static constexpr auto fields =
        rpc::extend(in_subsystem::fields, rpc::required(&add_params::ns, "namespace", "What to offer"));
};

result<namespace_options> to_options(namespace_params p) {
    namespace_options o{.nsid = p.nsid.value_or(0),
                        .bdev_name = std::move(p.bdev_name),
                        .id = p.uuid.value_or(uuid{}),
                        .anagrpid = p.anagrpid.value_or(0),
                        .no_auto_visible = p.no_auto_visible,
                        .ptpl_file = p.ptpl_file.value_or("")};
    auto wrong = [](std::string_view name, std::size_t digits, const std::string& text) {
        return fail(error(errc::rpc_invalid_params,
                          fmt::format("Invalid {}: must be {} hexadecimal digits, not \"{}\"", name, digits, text)));
    };
    if (p.nguid && !from_hex(*p.nguid, o.nguid)) return wrong("nguid", o.nguid.size() * 2, *p.nguid);
    if (p.eui64 && !from_hex(*p.eui64, o.eui64)) return wrong("eui64", o.eui64.size() * 2, *p.eui64);
    return o;
}

task<uint32_t> add(target& t, add_params p) {
    subsystem_hold s = co_await hold_subsystem(t, p);
    if (s->options().discovery) co_return fail(invalid("nqn: the discovery subsystem has no namespaces"));
    namespace_options options = co_await to_options(std::move(p.ns));
    co_return co_await s->add_namespace(std::move(options));
}

struct one_params : in_subsystem {
    uint32_t nsid = 0;
    static constexpr auto fields =
        rpc::extend(in_subsystem::fields, rpc::required(&one_params::nsid, "nsid", "Namespace identifier"));
};

task<> remove(target& t, one_params p) {
    subsystem_hold s = co_await hold_subsystem(t, p);
    co_await s->remove_namespace(p.nsid);
}

struct group_params : in_subsystem {
    uint32_t nsid = 0, anagrpid = 0;
    static constexpr auto fields =
        rpc::extend(in_subsystem::fields, rpc::required(&group_params::nsid, "nsid", "Namespace identifier"),
                    rpc::required(&group_params::anagrpid, "anagrpid", "ANA group it is to belong to"));
};

task<> set_ana_group(target& t, group_params p) {
    subsystem_hold s = co_await hold_subsystem(t, p);
    co_await s->set_ana_group(p.nsid, p.anagrpid);
}

struct host_params : in_subsystem {
    uint32_t nsid = 0;
    std::string host;
    static constexpr auto fields =
        rpc::extend(in_subsystem::fields,
                    rpc::required(&host_params::nsid, "nsid", "Namespace that was added with no_auto_visible"),
                    rpc::required(&host_params::host, "host", "Host (NQN)"));
};

result<> show(target& t, const host_params& p, bool visible) {
    auto s = subsystem_named(t, p);
    if (!s) return fail(std::move(s).error());
    if (auto named = check_nqn(p.host); !named) return fail(invalid("host: " + named.error().message()));
    if (auto shown = (*s)->show(p.nsid, p.host, visible); !shown) return fail(invalid(std::move(shown).error()));
    return {};
}
result<> add_host(target& t, host_params p) { return show(t, p, true); }
result<> remove_host(target& t, host_params p) { return show(t, p, false); }

rpc::call addition_of(const std::string& nqn, bool ana_reporting, const exported_namespace& ns) {
    const namespace_options& o = ns.options;
    auto given = [](auto& bytes) { return std::ranges::any_of(bytes, [](uint8_t b) { return b != 0; }); };
    json::object entry{{"nsid", o.nsid}, {"bdev_name", ns.device->name()}};
    if (!o.ptpl_file.empty()) entry.add("ptpl_file", o.ptpl_file);
    if (given(o.nguid)) entry.add("nguid", to_hex(o.nguid));
    if (given(o.eui64)) entry.add("eui64", to_hex(o.eui64));
    if (!o.id.is_nil()) entry.add("uuid", o.id.to_string());
    if (ana_reporting) entry.add("anagrpid", o.anagrpid);
    entry.add("no_auto_visible", o.no_auto_visible);
    return {"nvmf_subsystem_add_ns", json::object{{"nqn", nqn}, {"namespace", std::move(entry)}}};
}

}  // namespace

void add_namespace_methods(rpc::registry& methods, target& t) {
    methods.add(rpc::make_method("nvmf_subsystem_add_ns", "Offer a bdev as a namespace of a subsystem", add).bind(t));
    methods.add(rpc::make_method("nvmf_subsystem_remove_ns", "Take a namespace away", remove).bind(t));
    methods.add(
        rpc::make_method("nvmf_subsystem_set_ns_ana_group", "Move a namespace to another ANA group", set_ana_group)
            .bind(t));
    methods.add(rpc::make_method("nvmf_ns_add_host", "Show a namespace to a host", add_host).bind(t));
    methods.add(rpc::make_method("nvmf_ns_remove_host", "Hide a namespace from a host", remove_host).bind(t));
}

void add_namespace_config(std::vector<rpc::call>& to, const target& t) {
    for (const subsystem* s : in_order(t)) {
        const std::string& nqn = s->options().nqn;
        for (auto& ns : s->namespaces) {
            if (!ns) continue;
            to.push_back(addition_of(nqn, s->options().ana_reporting, *ns));
            for (const std::string& host : ns->hosts)
                to.push_back(
                    {"nvmf_ns_add_host", json::object{{"nqn", nqn}, {"nsid", ns->options.nsid}, {"host", host}}});
        }
    }
}

}  // namespace varve::targets::nvmf
