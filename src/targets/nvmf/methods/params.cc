#include "targets/nvmf/methods/params.h"

#include <arpa/inet.h>
#include <fmt/core.h>

#include <algorithm>
#include <charconv>

#include "nvme/fabrics.h"

namespace varve::targets::nvmf {

namespace {

bool same_text(std::string_view a, std::string_view b) { return std::ranges::equal(a, b, {}, ::toupper, ::toupper); }

std::unexpected<error> wrong(std::string_view what) { return fail(errc::rpc_invalid_params, what); }

}  // namespace

result<env::address> to_address(const listen_address& a) {
    if (!same_text(a.trtype, "TCP")) return wrong(fmt::format("trtype: must be TCP, not \"{}\"", a.trtype));
    env::address out;
    out.host = a.traddr;
    in6_addr scratch;
    bool is4 = ::inet_pton(AF_INET, a.traddr.c_str(), &scratch) == 1;
    bool is6 = ::inet_pton(AF_INET6, a.traddr.c_str(), &scratch) == 1;
    if (!is4 && !is6) return wrong(fmt::format("traddr: \"{}\" is not an IPv4 or IPv6 address", a.traddr));
    out.kind = is4 ? env::address::family::ipv4 : env::address::family::ipv6;
    if (a.adrfam) {
        bool fits = same_text(*a.adrfam, is4 ? "IPv4" : "IPv6");
        bool known = same_text(*a.adrfam, "IPv4") || same_text(*a.adrfam, "IPv6");
        if (!known) return wrong(fmt::format("adrfam: must be IPv4 or IPv6, not \"{}\"", *a.adrfam));
        if (!fits) return wrong(fmt::format("adrfam: {} is no {} address", a.traddr, *a.adrfam));
    }
    if (!a.trsvcid) return wrong("trsvcid: the port is missing");
    const char* end = a.trsvcid->data() + a.trsvcid->size();
    auto [rest, ec] = std::from_chars(a.trsvcid->data(), end, out.port);
    if (ec != std::errc() || rest != end || out.port == 0)
        return wrong(fmt::format("trsvcid: must be a port between 1 and 65535, not \"{}\"", *a.trsvcid));
    return out;
}

listen_address from_address(const env::address& a) {
    return {.trtype = "TCP",
            .traddr = a.host,
            .adrfam = a.kind == env::address::family::ipv6 ? "IPv6" : "IPv4",
            .trsvcid = std::to_string(a.port)};
}

result<> check_target_name(const target& t, const std::optional<std::string>& tgt_name) {
    if (!tgt_name || *tgt_name == t.name()) return {};
    return fail(error(errc::rpc_internal, fmt::format("Unable to find target {}", *tgt_name)));
}

result<subsystem*> subsystem_named(target& t, const in_subsystem& p) {
    VARVE_TRY(check_target_name(t, p.tgt_name));
    if (subsystem* found = t.find_subsystem(p.nqn == "discovery" ? nvme::discovery_nqn : p.nqn)) return found;
    return fail(error(errc::rpc_invalid_params, fmt::format("Subsystem with NQN '{}' not found", p.nqn)));
}

result<subsystem_hold> hold_subsystem(target& t, const in_subsystem& p) {
    auto found = subsystem_named(t, p);
    if (!found) return fail(std::move(found).error());
    subsystem_hold held{.of = *found, .inside = (*found)->users.enter()};
    if (!held.inside) return fail(errc::busy, fmt::format("{} is being deleted", p.nqn));
    return held;
}

std::vector<const subsystem*> in_order(const target& t) {
    std::vector<const subsystem*> all;
    for (auto& s : t.subsystems()) all.push_back(s.get());
    std::ranges::sort(all, {}, [](const subsystem* s) { return std::pair(!s->options().discovery, s->options().nqn); });
    return all;
}

error invalid(std::string_view what) {
    return {errc::rpc_invalid_params, fmt::format("{}: {}", text_of(errc::rpc_invalid_params), what)};
}

error invalid(error cause) {
    return cause.code() == errc::rpc_invalid_params ? std::move(cause) : invalid(cause.message());
}

error internal(std::string_view what) {
    return {errc::rpc_internal, fmt::format("{}: {}", text_of(errc::rpc_internal), what)};
}

result<> check_nqn(std::string_view nqn) {
    auto bad = [&](std::string_view why) {
        return fail(error(errc::invalid, fmt::format("\"{}\" is no NQN: {}", nqn, why)));
    };
    if (nqn.find('\0') != nqn.npos) return bad("a name ends at its first NUL");
    constexpr std::size_t shortest = 11;
    if (nqn.size() < shortest) return bad(fmt::format("it has less than {} characters", shortest));
    if (nqn.size() > nvme::nqn_length_max)
        return bad(fmt::format("it has more than {} characters", nvme::nqn_length_max));
    if (nqn == nvme::discovery_nqn) return {};
    if (nqn.starts_with(nvme::uuid_nqn_prefix)) {
        if (!uuid::parse(nqn.substr(nvme::uuid_nqn_prefix.size()))) return bad("what follows \"uuid:\" is no UUID");
        return {};
    }
    constexpr std::string_view pattern = "nqn.yyyy-mm.";
    auto digit = [](char c) { return c >= '0' && c <= '9'; };
    for (std::size_t i = 0; i < pattern.size(); ++i) {
        char p = pattern[i];
        bool fits = i < nqn.size() && (p == 'y' || (p == 'm' && i > 4) ? digit(nqn[i]) : nqn[i] == p);
        if (!fits) return bad("it does not begin with nqn.YYYY-MM.");
    }
    std::size_t colon = nqn.find(':');
    if (colon == nqn.npos || colon + 1 == nqn.size())
        return bad("a name chosen by the domain's owner must follow a ':'");
    std::string_view domain = nqn.substr(pattern.size(), colon - pattern.size());
    constexpr std::size_t label_max = 63;
    auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
    while (true) {
        std::string_view label = domain.substr(0, domain.find('.'));
        if (label.empty() || label.size() > label_max || !letter(label.front()) ||
            !(letter(label.back()) || digit(label.back())))
            return bad(fmt::format("\"{}\" is no label of a reversed domain name", label));
        if (!std::ranges::all_of(label, [&](char c) { return letter(c) || digit(c) || c == '-'; }))
            return bad(fmt::format("\"{}\" is no label of a reversed domain name", label));
        if (label.size() == domain.size()) return {};
        domain.remove_prefix(label.size() + 1);
    }
}

std::string to_hex(std::span<const uint8_t> bytes) {
    std::string text;
    for (uint8_t b : bytes) text += fmt::format("{:02X}", b);
    return text;
}

bool from_hex(std::string_view text, std::span<uint8_t> bytes) noexcept {
    if (text.size() != bytes.size() * 2) return false;
    for (std::size_t i = 0; i < bytes.size(); ++i) {
        auto [end, ec] = std::from_chars(text.data() + 2 * i, text.data() + 2 * i + 2, bytes[i], 16);
        if (ec != std::errc() || end != text.data() + 2 * i + 2) return false;
    }
    return true;
}

}  // namespace varve::targets::nvmf
