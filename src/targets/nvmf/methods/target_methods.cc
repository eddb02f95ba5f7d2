// The target as a whole: what is set before it starts, and referrals to other discovery services.
#include <fmt/format.h>

#include <algorithm>

#include "nvme/fabrics.h"
#include "targets/nvmf/methods/params.h"
#include "targets/nvmf/methods/service.h"

namespace varve::targets::nvmf {

namespace {

json::value get_targets(target& t) { return json::array{t.name()}; }

struct create_params {
    std::string name;
    std::optional<uint32_t> max_subsystems;
    std::optional<json::value> discovery_filter;
    std::optional<std::string> dup_host_policy;
    static constexpr auto fields = std::tuple{
        rpc::required(&create_params::name, "name", "Name of the new target"),
        rpc::optional(&create_params::max_subsystems, "max_subsystems", "Subsystems it may have"),
        rpc::optional(&create_params::discovery_filter, "discovery_filter", "What its discovery log shows"),
        rpc::optional(&create_params::dup_host_policy, "dup_host_policy", "Whether a host may connect twice"),
    };
};

result<> create_target(target& t, create_params p) {
    if (p.name == t.name()) return fail(error(errc::rpc_invalid_params, "Target already exists."));
    return fail(internal(fmt::format("name: {} is the one target there is; more are not offered yet", t.name())));
}

struct delete_params {
    std::string name;
    static constexpr auto fields = std::tuple{rpc::required(&delete_params::name, "name", "Target")};
};

result<> delete_target(target& t, delete_params p) {
    if (p.name != t.name())
        return fail(error(errc::rpc_invalid_params, "The specified target doesn't exist, cannot delete it."));
    return fail(internal("name: the only target cannot be deleted"));
}

// --- before the start

enum class host_policy : uint8_t { allow, restrict_per_listener };
constexpr auto names_of(host_policy) {
    return std::to_array<rpc::named<host_policy>>(
        {{"allow", host_policy::allow}, {"restrict_per_listener", host_policy::restrict_per_listener}});
}

// Handing commands to an NVMe device is not offered yet; what was asked for is saved.
struct passthrough_params {
    bool identify_ctrlr = false, identify_uuid_list = false, get_log_page = false, get_set_features = false,
         sanitize = false, security_send_recv = false, fw_update = false, nvme_mi = false, vendor_specific = false;
    static constexpr auto fields = std::tuple{
        rpc::optional(&passthrough_params::identify_ctrlr, "identify_ctrlr", "Identify of the controller"),
        rpc::optional(&passthrough_params::identify_uuid_list, "identify_uuid_list", "Identify of the UUID list"),
        rpc::optional(&passthrough_params::get_log_page, "get_log_page", "Get Log Page"),
        rpc::optional(&passthrough_params::get_set_features, "get_set_features", "Get and Set Features"),
        rpc::optional(&passthrough_params::sanitize, "sanitize", "Sanitize"),
        rpc::optional(&passthrough_params::security_send_recv, "security_send_recv", "Security Send and Receive"),
        rpc::optional(&passthrough_params::fw_update, "fw_update", "Firmware download and commit"),
        rpc::optional(&passthrough_params::nvme_mi, "nvme_mi", "NVMe-MI"),
        rpc::optional(&passthrough_params::vendor_specific, "vendor_specific", "Vendor specific commands"),
    };
    bool any() const {
        return identify_ctrlr || identify_uuid_list || get_log_page || get_set_features || sanitize ||
               security_send_recv || fw_update || nvme_mi || vendor_specific;
    }
};

constexpr std::array filter_names{"transport", "address", "svcid"};  // bit i: filter_names[i]
constexpr std::array digest_names{"sha256", "sha384", "sha512"};
constexpr std::array group_names{"null", "ffdhe2048", "ffdhe3072", "ffdhe4096", "ffdhe6144", "ffdhe8192"};

// A list of names, or names in one string with commas between them, as bits.
template <std::size_t N>
result<uint32_t> bits_of(std::string_view name, const json::value& v, const std::array<const char*, N>& names) {
    std::vector<std::string_view> given;
    if (const json::array* items = v.items()) {
        for (const json::value& item : *items) {
            if (item.string() == nullptr) return fail(invalid(fmt::format("{}: must be a list of names", name)));
            given.emplace_back(*item.string());
        }
    } else if (const std::string* text = v.string()) {
        std::string_view rest = *text;
        while (!rest.empty()) {
            std::size_t comma = std::min(rest.find(','), rest.size());
            given.push_back(rest.substr(0, comma));
            rest.remove_prefix(std::min(comma + 1, rest.size()));
        }
    } else {
        return fail(invalid(fmt::format("{}: must be a list of names", name)));
    }
    uint32_t bits = 0;
    for (std::string_view one : given) {
        if (one == "match_any") continue;  // the old name of "no filter"
        auto found = std::ranges::find(names, one);
        if (found == names.end())
            return fail(invalid(fmt::format("{}: \"{}\" is none of {}", name, one, fmt::join(names, ", "))));
        bits |= 1u << (found - names.begin());
    }
    return bits;
}

template <std::size_t N>
json::array names_in(uint32_t bits, const std::array<const char*, N>& names) {
    json::array out;
    for (std::size_t i = 0; i < N; ++i)
        if ((bits >> i & 1) != 0) out.push_back(names[i]);
    return out;
}

struct config_params {
    std::optional<passthrough_params> admin_cmd_passthru;
    std::optional<std::string> poll_groups_mask;
    std::optional<json::value> discovery_filter, discovery_filters, dhchap_digests, dhchap_dhgroups;
    std::optional<host_policy> dup_host_policy;
    static constexpr auto fields = std::tuple{
        rpc::optional(&config_params::admin_cmd_passthru, "admin_cmd_passthru", "Not offered yet"),
        rpc::optional(&config_params::poll_groups_mask, "poll_groups_mask", "Processors that serve hosts"),
        rpc::optional(&config_params::discovery_filter, "discovery_filter", "Old form of discovery_filters"),
        rpc::optional(&config_params::discovery_filters, "discovery_filters",
                      "Show hosts only listeners of the same transport, address, svcid as theirs"),
        rpc::optional(&config_params::dhchap_digests, "dhchap_digests", "Kept; authentication is not offered yet"),
        rpc::optional(&config_params::dhchap_dhgroups, "dhchap_dhgroups", "Kept; authentication is not offered yet"),
        rpc::optional(&config_params::dup_host_policy, "dup_host_policy",
                      "Whether a host may have several controllers by way of one listener"),
    };
};

result<> set_config(target& t, config_params p) {
    if (p.admin_cmd_passthru && p.admin_cmd_passthru->any())
        t.log().warning("nvmf_set_config: admin_cmd_passthru has no effect yet");
    thread::cpu_set cpus;
    if (p.poll_groups_mask) {
        auto given = thread::cpu_set::parse(*p.poll_groups_mask);
        if (!given) return fail(invalid("poll_groups_mask: " + given.error().message()));
        for (unsigned cpu : given->list())
            if (!t.system().cpus().contains(cpu))
                return fail(invalid(fmt::format("poll_groups_mask: processor {} is not one of this program's", cpu)));
        if (given->empty()) return fail(invalid("poll_groups_mask: names no processor"));
        cpus = std::move(*given);
    }
    target_settings next = t.settings;
    auto take = [](std::string_view name, const std::optional<json::value>& v, auto& names,
                   uint32_t& into) -> result<> {
        if (!v) return {};
        auto bits = bits_of(name, *v, names);
        if (!bits) return fail(std::move(bits).error());
        into = *bits;
        return {};
    };
    VARVE_TRY(take("discovery_filter", p.discovery_filter, filter_names, next.discovery_filter));
    VARVE_TRY(take("discovery_filters", p.discovery_filters, filter_names, next.discovery_filter));
    VARVE_TRY(take("dhchap_digests", p.dhchap_digests, digest_names, next.dhchap_digests));
    VARVE_TRY(take("dhchap_dhgroups", p.dhchap_dhgroups, group_names, next.dhchap_groups));
    if (p.dup_host_policy) next.one_controller_per_listener = *p.dup_host_policy == host_policy::restrict_per_listener;
    if (p.poll_groups_mask) next.poll_group_cpus = std::move(cpus);
    t.settings = std::move(next);
    return {};
}

struct max_params {
    uint32_t max_subsystems = 0;
    static constexpr auto fields = std::tuple{
        rpc::required(&max_params::max_subsystems, "max_subsystems", "Subsystems the target may have", rpc::positive)};
};

void set_max_subsystems(target& t, max_params p) { t.settings.max_subsystems = p.max_subsystems; }

struct crdt_params {
    uint16_t crdt1 = 0, crdt2 = 0, crdt3 = 0;
    static constexpr auto fields = std::tuple{
        rpc::optional(&crdt_params::crdt1, "crdt1", "First command retry delay in 100 ms"),
        rpc::optional(&crdt_params::crdt2, "crdt2", "Second"),
        rpc::optional(&crdt_params::crdt3, "crdt3", "Third"),
    };
};

void set_crdt(target& t, crdt_params p) { t.settings.command_retry_delays = {p.crdt1, p.crdt2, p.crdt3}; }

// --- referrals

struct add_referral_params {
    std::optional<std::string> tgt_name;
    listen_address address;
    bool secure_channel = false;
    std::string subnqn = std::string(nvme::discovery_nqn);
    static constexpr auto fields = std::tuple{
        rpc::optional(&add_referral_params::tgt_name, "tgt_name", "Target; there is nvmf_tgt"),
        rpc::required(&add_referral_params::address, "address", "Where the other discovery service listens"),
        rpc::optional(&add_referral_params::secure_channel, "secure_channel", "Hosts must use TLS there"),
        rpc::optional(&add_referral_params::subnqn, "subnqn", "Its name"),
    };
};

auto the_one(target& t, const env::address& at, const std::string& subnqn) {
    return std::ranges::find_if(t.referrals, [&](auto& r) { return r.at.at == at && r.subnqn == subnqn; });
}

std::string full_name(const std::string& subnqn) {
    return subnqn == "discovery" ? std::string(nvme::discovery_nqn) : subnqn;
}

result<> add_referral(target& t, add_referral_params p) {
    VARVE_TRY(check_target_name(t, p.tgt_name));
    auto at = to_address(p.address);
    if (!at) return fail(std::move(at).error());
    std::string subnqn = full_name(p.subnqn);
    if (auto named = check_nqn(subnqn); !named) return fail(invalid("subnqn: " + named.error().message()));
    if (the_one(t, *at, subnqn) != t.referrals.end()) return {};  // once is enough
    referral r{.subnqn = std::move(subnqn), .at = {.at = std::move(*at), .secure_channel = p.secure_channel}};
    r.at.id = t.next_port_id();
    t.referrals.push_back(std::move(r));
    t.discovery_changed();
    return {};
}

struct remove_referral_params {
    std::optional<std::string> tgt_name;
    listen_address address;
    std::string subnqn = std::string(nvme::discovery_nqn);
    static constexpr auto fields = std::tuple{
        rpc::optional(&remove_referral_params::tgt_name, "tgt_name", "Target; there is nvmf_tgt"),
        rpc::required(&remove_referral_params::address, "address", "Where the other discovery service listens"),
        rpc::optional(&remove_referral_params::subnqn, "subnqn", "Its name"),
    };
};

result<> remove_referral(target& t, remove_referral_params p) {
    VARVE_TRY(check_target_name(t, p.tgt_name));
    auto at = to_address(p.address);
    if (!at) return fail(std::move(at).error());
    auto found = the_one(t, *at, full_name(p.subnqn));
    if (found == t.referrals.end())
        return fail(error(errc::rpc_internal, fmt::format("Unable to remove a referral. There is none to {} at {}",
                                                          full_name(p.subnqn), at->to_string())));
    t.referrals.erase(found);
    t.discovery_changed();
    return {};
}

json::object describe(const referral& r) {
    return {
        {"address", rpc::encode(from_address(r.at.at))}, {"secure_channel", r.at.secure_channel}, {"subnqn", r.subnqn}};
}

struct get_referrals_params {
    std::optional<std::string> tgt_name;
    static constexpr auto fields = std::tuple{
        rpc::optional(&get_referrals_params::tgt_name, "tgt_name", "Target; there is nvmf_tgt"),
    };
};

// The newest first, as SPDK does.
result<json::value> get_referrals(target& t, get_referrals_params p) {
    VARVE_TRY(check_target_name(t, p.tgt_name));
    json::array list;
    for (auto r = t.referrals.rbegin(); r != t.referrals.rend(); ++r) list.push_back(describe(*r));
    return list;
}

}  // namespace

void add_target_methods(rpc::registry& methods, target& t) {
    constexpr auto before_start = rpc::states::startup;
    methods.add(rpc::make_method("nvmf_set_config", "Settings of the whole target", set_config, before_start).bind(t));
    methods.add(rpc::make_method("nvmf_set_max_subsystems", "How many subsystems there may be", set_max_subsystems,
                                 before_start)
                    .bind(t));
    methods.add(
        rpc::make_method("nvmf_set_crdt", "Command retry delays that hosts are told", set_crdt, before_start).bind(t));
    methods.add(rpc::make_method("nvmf_get_targets", "Names of the targets", get_targets).bind(t));
    methods.add(rpc::make_method("nvmf_create_target", "Not offered yet: there is one target", create_target).bind(t));
    methods.add(rpc::make_method("nvmf_delete_target", "Not offered yet: there is one target", delete_target).bind(t));
    methods.add(rpc::make_method("nvmf_discovery_add_referral", "Tell hosts of another discovery service", add_referral)
                    .bind(t));
    methods.add(rpc::make_method("nvmf_discovery_remove_referral", "Tell them of it no more", remove_referral).bind(t));
    methods.add(rpc::make_method("nvmf_discovery_get_referrals", "Other discovery services that hosts are told of",
                                 get_referrals)
                    .bind(t));
}

void add_target_config(std::vector<rpc::call>& to, const target& t) {
    const target_settings& s = t.settings;
    json::object params{
        {"discovery_filters", names_in(s.discovery_filter, filter_names)},
        {"admin_cmd_passthru", rpc::encode(passthrough_params{})},
        {"dhchap_digests", names_in(s.dhchap_digests, digest_names)},
        {"dhchap_dhgroups", names_in(s.dhchap_groups, group_names)},
        {"dup_host_policy",
         rpc::encode(s.one_controller_per_listener ? host_policy::restrict_per_listener : host_policy::allow)}};
    if (!s.poll_group_cpus.empty()) params.add("poll_groups_mask", "0x" + s.poll_group_cpus.to_mask());
    to.push_back({"nvmf_set_config", std::move(params)});
    to.push_back({"nvmf_set_max_subsystems", json::object{{"max_subsystems", s.max_subsystems}}});
    to.push_back({"nvmf_set_crdt", json::object{{"crdt1", s.command_retry_delays[0]},
                                                {"crdt2", s.command_retry_delays[1]},
                                                {"crdt3", s.command_retry_delays[2]}}});
}

void add_referral_config(std::vector<rpc::call>& to, const target& t) {
    for (const referral& r : t.referrals) to.push_back({"nvmf_discovery_add_referral", describe(r)});
}

}  // namespace varve::targets::nvmf
