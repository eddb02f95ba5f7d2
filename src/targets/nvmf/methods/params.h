// Parameters that several nvmf_* methods share, and how what they name is found.
#pragma once

#include <optional>
#include <string>

#include "rpc/field.h"
#include "targets/nvmf/subsystem.h"
#include "targets/nvmf/target.h"

namespace varve::targets::nvmf {

// What SPDK calls a transport id.
struct listen_address {
    std::string trtype, traddr;
    std::optional<std::string> adrfam, trsvcid;
    static constexpr auto fields = std::tuple{
        rpc::required(&listen_address::trtype, "trtype", "Transport: TCP"),
        rpc::optional(&listen_address::adrfam, "adrfam", "Address family: IPv4 or IPv6"),
        rpc::required(&listen_address::traddr, "traddr", "Address"),
        rpc::optional(&listen_address::trsvcid, "trsvcid", "Port"),
    };
};

// errc::rpc_invalid_params, naming the member that is wrong.
result<env::address> to_address(const listen_address& a);
listen_address from_address(const env::address& a);

constexpr auto names_of(ana_state) {
    return std::to_array<rpc::named<ana_state>>({{"optimized", ana_state::optimized},
                                                 {"non_optimized", ana_state::non_optimized},
                                                 {"inaccessible", ana_state::inaccessible}});
}

// What most methods take: the subsystem that is meant.
struct in_subsystem {
    std::string nqn;
    std::optional<std::string> tgt_name;
    static constexpr auto fields = std::tuple{
        rpc::required(&in_subsystem::nqn, "nqn", "Subsystem; \"discovery\" means the discovery subsystem"),
        rpc::optional(&in_subsystem::tgt_name, "tgt_name", "Target; there is nvmf_tgt"),
    };
};

result<> check_target_name(const target& t, const std::optional<std::string>& tgt_name);
// errc::rpc_invalid_params with SPDK's text when there is none. "discovery" names the discovery subsystem.
result<subsystem*> subsystem_named(target& t, const in_subsystem& p);

// For calls that wait: the subsystem is not deleted while this is held. errc::busy when it is being deleted.
struct subsystem_hold {
    subsystem* of = nullptr;
    gate::holder inside;
    subsystem* operator->() const noexcept { return of; }
};
result<subsystem_hold> hold_subsystem(target& t, const in_subsystem& p);
// All of them, discovery first, then by name.
std::vector<const subsystem*> in_order(const target& t);

// "Invalid parameters: WHAT", also for errors of other codes that are the caller's fault.
error invalid(std::string_view what);
error invalid(error cause);
// "Internal error: WHAT", where SPDK says no more.
error internal(std::string_view what);

// Base 4.5 as far as hosts and SPDK check it. The message says what is wrong with the name.
result<> check_nqn(std::string_view nqn);

// Hexadecimal digits, upper case, of a fixed number of bytes, and back.
std::string to_hex(std::span<const uint8_t> bytes);
bool from_hex(std::string_view text, std::span<uint8_t> bytes) noexcept;

}  // namespace varve::targets::nvmf
