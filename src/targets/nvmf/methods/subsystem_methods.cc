// nvmf_create_subsystem, nvmf_delete_subsystem, and the hosts that may connect.
#include <fmt/core.h>

#include <algorithm>

#include "targets/nvmf/methods/params.h"
#include "targets/nvmf/methods/service.h"

namespace varve::targets::nvmf {

namespace {

constexpr std::size_t serial_length_max = 20, model_length_max = 40;  // Base 5.17.2.1
constexpr uint16_t controller_id_max = 0xffef;

struct create_params {
    std::string nqn;
    std::optional<std::string> tgt_name;
    std::string serial_number = subsystem_options{}.serial_number, model_number = subsystem_options{}.model_number;
    std::string admin_label;
    uint32_t max_namespaces = subsystem_options{}.max_namespaces;
    bool allow_any_host = false, ana_reporting = false;
    uint16_t min_cntlid = subsystem_options{}.min_cntlid, max_cntlid = subsystem_options{}.max_cntlid;
    uint32_t dmrsl = subsystem_options{}.dmrsl;
    uint8_t wzsl = subsystem_options{}.wzsl;
    bool passthrough = false, enable_nssr = false;
    std::optional<uint64_t> max_discard_size_kib, max_write_zeroes_size_kib;
    static constexpr auto fields = std::tuple{
        rpc::required(&create_params::nqn, "nqn", "Name of the new subsystem (NQN)"),
        rpc::optional(&create_params::tgt_name, "tgt_name", "Target; there is nvmf_tgt"),
        rpc::optional(&create_params::serial_number, "serial_number", "Up to 20 printable characters"),
        rpc::optional(&create_params::model_number, "model_number", "Up to 40 printable characters"),
        rpc::optional(&create_params::admin_label, "admin_label", "Kept; not shown to hosts yet", rpc::max_length<256>),
        rpc::optional(&create_params::max_namespaces, "max_namespaces", "Highest namespace identifier; 0: 32",
                      rpc::range<0u, max_namespaces_limit>),
        rpc::optional(&create_params::allow_any_host, "allow_any_host", "Let every host connect"),
        rpc::optional(&create_params::ana_reporting, "ana_reporting", "Report asymmetric namespace access"),
        rpc::optional(&create_params::min_cntlid, "min_cntlid", "Lowest controller identifier"),
        rpc::optional(&create_params::max_cntlid, "max_cntlid", "Highest controller identifier"),
        rpc::optional(&create_params::dmrsl, "dmrsl", "Blocks that hosts should unmap in one range at most"),
        rpc::optional(&create_params::wzsl, "wzsl", "Hosts should zero at most 4 KiB * 2^wzsl in one command"),
        rpc::optional(&create_params::passthrough, "passthrough", "Hand commands to an NVMe device; not offered yet"),
        rpc::optional(&create_params::enable_nssr, "enable_nssr", "Let hosts reset the subsystem; not offered yet"),
        rpc::optional(&create_params::max_discard_size_kib, "max_discard_size_kib", "Old form of dmrsl"),
        rpc::optional(&create_params::max_write_zeroes_size_kib, "max_write_zeroes_size_kib", "Old form of wzsl"),
    };
};

result<> check_text(std::string_view name, std::string_view text, std::size_t most) {
    if (text.size() > most)
        return fail(invalid(fmt::format("{}: has {} characters, more than {}", name, text.size(), most)));
    if (!std::ranges::all_of(text, [](char c) { return c >= 0x20 && c <= 0x7e; }))
        return fail(invalid(fmt::format("{}: must be printable ASCII characters", name)));
    return {};
}

result<> check(const create_params& p) {
    if (auto named = check_nqn(p.nqn); !named)
        return fail(error(errc::rpc_internal,
                          fmt::format("Unable to create subsystem {}: {}", p.nqn, named.error().message())));
    VARVE_TRY(check_text("serial_number", p.serial_number, serial_length_max));
    VARVE_TRY(check_text("model_number", p.model_number, model_length_max));
    VARVE_TRY(check_text("admin_label", p.admin_label, 256));
    if (p.min_cntlid == 0 || p.min_cntlid > p.max_cntlid || p.max_cntlid > controller_id_max)
        return fail(
            error(errc::rpc_invalid_params, fmt::format("Invalid cntlid range [{}-{}]: must lie between 1 and {}",
                                                        p.min_cntlid, p.max_cntlid, controller_id_max)));
    if (p.passthrough) return fail(invalid("passthrough: not offered yet"));
    if (p.enable_nssr) return fail(invalid("enable_nssr: not offered yet"));
    return {};
}

// The last power of two of 4 KiB that is not above the size.
uint8_t zeroes_limit(uint64_t kib) {
    uint8_t log2 = 0;
    while (log2 < 31 && (uint64_t{8} << log2) <= kib) ++log2;
    return log2;
}

task<> create(target& t, create_params p) {
    co_await check_target_name(t, p.tgt_name);
    co_await check(p);
    subsystem_options o{.nqn = std::move(p.nqn),
                        .serial_number = std::move(p.serial_number),
                        .model_number = std::move(p.model_number),
                        .allow_any_host = p.allow_any_host,
                        .ana_reporting = p.ana_reporting,
                        .min_cntlid = p.min_cntlid,
                        .max_cntlid = p.max_cntlid,
                        .dmrsl = p.dmrsl,
                        .wzsl = p.wzsl,
                        .admin_label = std::move(p.admin_label)};
    if (p.max_namespaces != 0) o.max_namespaces = p.max_namespaces;
    constexpr uint64_t blocks_per_kib = 2;
    if (p.max_discard_size_kib)
        o.dmrsl = static_cast<uint32_t>(std::min<uint64_t>(*p.max_discard_size_kib, UINT32_MAX / 2) * blocks_per_kib);
    if (p.max_write_zeroes_size_kib) o.wzsl = zeroes_limit(*p.max_write_zeroes_size_kib);
    co_await t.create_subsystem(std::move(o));
}

task<> remove(target& t, in_subsystem p) {
    subsystem* s = co_await subsystem_named(t, p);
    co_await t.delete_subsystem(s->options().nqn);
}

struct add_host_params : in_subsystem {
    std::string host;
    std::optional<std::string> psk, dhchap_key, dhchap_ctrlr_key;
    static constexpr auto fields = rpc::extend(
        in_subsystem::fields, rpc::required(&add_host_params::host, "host", "Host that may connect (NQN)"),
        rpc::optional(&add_host_params::psk, "psk", "Key for TLS; not offered yet"),
        rpc::optional(&add_host_params::dhchap_key, "dhchap_key", "Key for authentication; not offered yet"),
        rpc::optional(&add_host_params::dhchap_ctrlr_key, "dhchap_ctrlr_key",
                      "Key for authentication; not offered yet"));
};

task<> add_host(target& t, add_host_params p) {
    subsystem_hold s = co_await hold_subsystem(t, p);
    if (auto named = check_nqn(p.host); !named) co_await fail(internal("host: " + named.error().message()));
    if (p.psk) co_await fail(invalid("psk: TLS is not offered yet"));
    if (p.dhchap_key) co_await fail(invalid("dhchap_key: authentication is not offered yet"));
    if (p.dhchap_ctrlr_key) co_await fail(invalid("dhchap_ctrlr_key: authentication is not offered yet"));
    if (auto added = s->add_host(p.host); !added)
        co_await fail(internal(fmt::format("host: {} may connect to {} already", p.host, p.nqn)));
}

struct remove_host_params : in_subsystem {
    std::string host;
    std::optional<uint64_t> timeout_ms;
    static constexpr auto fields = rpc::extend(
        in_subsystem::fields, rpc::required(&remove_host_params::host, "host", "Host that may connect no more (NQN)"),
        rpc::optional(&remove_host_params::timeout_ms, "timeout_ms",
                      "Without effect: commands under way are waited for"));
};

task<> remove_host(target& t, remove_host_params p) {
    subsystem_hold s = co_await hold_subsystem(t, p);
    if (!s->hosts.contains(p.host))
        co_await fail(internal(fmt::format("host: {} is not among the hosts of {}", p.host, p.nqn)));
    co_await s->remove_host(p.host);
}

struct allow_any_params : in_subsystem {
    bool allow_any_host = false;
    static constexpr auto fields =
        rpc::extend(in_subsystem::fields,
                    rpc::required(&allow_any_params::allow_any_host, "allow_any_host", "Let every host connect"));
};

result<> allow_any_host(target& t, allow_any_params p) {
    auto s = subsystem_named(t, p);
    if (!s) return fail(std::move(s).error());
    (*s)->allow_any_host(p.allow_any_host);
    return {};
}

struct set_keys_params : in_subsystem {
    std::string host;
    std::optional<std::string> dhchap_key, dhchap_ctrlr_key;
    static constexpr auto fields = rpc::extend(
        in_subsystem::fields, rpc::required(&set_keys_params::host, "host", "Host (NQN)"),
        rpc::optional(&set_keys_params::dhchap_key, "dhchap_key", "Key for authentication; not offered yet"),
        rpc::optional(&set_keys_params::dhchap_ctrlr_key, "dhchap_ctrlr_key",
                      "Key for authentication; not offered yet"));
};

// Without keys it takes away those a host has, which are none.
result<> set_keys(target& t, set_keys_params p) {
    auto s = subsystem_named(t, p);
    if (!s) return fail(std::move(s).error());
    if (p.dhchap_key || p.dhchap_ctrlr_key) return fail(invalid("dhchap_key: authentication is not offered yet"));
    if (!(*s)->hosts.contains(p.host))
        return fail(invalid(fmt::format("host: {} is not among the hosts of {}", p.host, p.nqn)));
    return {};
}

rpc::call creation_of(const subsystem_options& o) {
    json::object params{{"nqn", o.nqn},
                        {"allow_any_host", o.allow_any_host},
                        {"serial_number", o.serial_number},
                        {"model_number", o.model_number},
                        {"max_namespaces", o.max_namespaces},
                        {"min_cntlid", o.min_cntlid},
                        {"max_cntlid", o.max_cntlid},
                        {"ana_reporting", o.ana_reporting},
                        {"dmrsl", o.dmrsl},
                        {"wzsl", o.wzsl},
                        {"passthrough", false},
                        {"enable_nssr", false}};
    if (!o.admin_label.empty()) params.add("admin_label", o.admin_label);
    return {"nvmf_create_subsystem", std::move(params)};
}

}  // namespace

void add_subsystem_methods(rpc::registry& methods, target& t) {
    methods.add(
        rpc::make_method("nvmf_create_subsystem", "Make a subsystem that hosts can connect to", create).bind(t));
    methods.add(
        rpc::make_method("nvmf_delete_subsystem", "Disconnect a subsystem's hosts and delete it", remove).bind(t));
    methods.add(rpc::make_method("nvmf_subsystem_add_host", "Let a host connect to a subsystem", add_host).bind(t));
    methods.add(
        rpc::make_method("nvmf_subsystem_remove_host", "Disconnect a host and let it connect no more", remove_host)
            .bind(t));
    methods.add(rpc::make_method("nvmf_subsystem_allow_any_host", "Let every host connect, or those listed only",
                                 allow_any_host)
                    .bind(t));
    methods.add(
        rpc::make_method("nvmf_subsystem_set_keys", "Set the keys of a host; not offered yet", set_keys).bind(t));
}

void add_subsystem_config(std::vector<rpc::call>& to, const target& t) {
    for (const subsystem* s : in_order(t)) {
        if (s->options().discovery) continue;
        to.push_back(creation_of(s->options()));
        for (const std::string& host : s->hosts)
            to.push_back({"nvmf_subsystem_add_host", json::object{{"nqn", s->options().nqn}, {"host", host}}});
    }
}

}  // namespace varve::targets::nvmf
