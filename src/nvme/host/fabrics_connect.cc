#include "nvme/host/fabrics_connect.h"

#include <fmt/format.h>

#include <cstring>

#include "nvme/host/commands.h"
#include "nvme/text.h"

namespace varve::nvme::host {

namespace {

constexpr bool eight_bytes(property p) noexcept { return p == property::cap; }

error refused(const cqe& completion, const identity& who) {
    const auto answer = view_as<connect_response>(completion);
    std::string why;
    errc code = errc::refused;
    switch (completion.code()) {
        case status::connect_incompatible_format:
            why = "it does not know this format of connect";
            break;
        case status::connect_controller_busy:
            why = "the controller is in use";
            code = errc::busy;
            break;
        case status::connect_invalid_parameters:
            why = fmt::format("it does not take the parameter at byte {} of the {}",
                              answer.invalid.parameter_offset.get(), answer.invalid.in_data != 0 ? "data" : "command");
            if (answer.invalid.in_data != 0) {
                if (answer.invalid.parameter_offset == offsetof(connect_data, subnqn)) why += " (the subsystem's NQN)";
                if (answer.invalid.parameter_offset == offsetof(connect_data, hostnqn)) why += " (the host's NQN)";
            }
            code = errc::invalid;
            break;
        case status::connect_restart_discovery:
            why = "its discovery information has changed";
            break;
        case status::connect_invalid_host:
            why = fmt::format("it does not allow host {}", who.hostnqn);
            code = errc::access;
            break;
        default:
            why = describe(completion.code());
            code = errc_of(completion.code());
    }
    return fail(code, fmt::format("connecting to {}: {}", who.subnqn, why)).error();
}

}  // namespace

task<uint16_t> fabrics_connect(queue_pair& on, const identity& who, connect_request what) {
    connect_data data{};
    static_assert(sizeof data.host_id == sizeof who.host_id.bytes);
    std::memcpy(data.host_id, who.host_id.bytes.data(), sizeof data.host_id);
    data.controller_id = what.controller_id;
    if (who.subnqn.size() > nqn_length_max || !pad_with_zeroes(data.subnqn, sizeof data.subnqn, who.subnqn))
        co_await fail(errc::invalid, "the subsystem's NQN is too long");
    if (who.hostnqn.size() > nqn_length_max || !pad_with_zeroes(data.hostnqn, sizeof data.hostnqn, who.hostnqn))
        co_await fail(errc::invalid, "the host's NQN is too long");

    connect_command command{};
    command.opcode = raw(admin_opcode::fabrics);
    command.type = raw(fabrics_type::connect);
    command.qid = on.qid();
    command.sqsize = static_cast<uint16_t>(what.entries - 1);
    command.attributes = what.disable_flow_control ? connect_attribute::disable_sq_flow_control : 0;
    command.keep_alive_ms = what.keep_alive_ms;

    request r;
    r.command = view_as<sqe>(command);
    r.set_data(std::as_writable_bytes(std::span(&data, 1)));
    co_await execute(on, r);
    if (!r.ok()) {
        if (on.failure()) co_await fail(*on.failure());
        co_await fail(refused(r.completion, who));
    }
    const auto answer = view_as<connect_response>(r.completion);
    if (answer.ok.authentication != 0)
        co_await fail(errc::unsupported, fmt::format("connecting to {}: it requires authentication", who.subnqn));
    co_return answer.ok.controller_id.get();
}

task<uint64_t> get_property(queue_pair& on, property which) {
    property_get_command command{};
    command.opcode = raw(admin_opcode::fabrics);
    command.type = raw(fabrics_type::property_get);
    command.attributes = eight_bytes(which) ? 1 : 0;
    command.offset = raw(which);
    request r;
    r.command = view_as<sqe>(command);
    co_await execute(on, r);
    co_await outcome_of(r, fmt::format("reading property {:02x}h", raw(which)));
    const uint64_t value = view_as<property_get_response>(r.completion).value;
    co_return eight_bytes(which) ? value : value & 0xffffffff;
}

task<> set_property(queue_pair& on, property which, uint64_t value) {
    property_set_command command{};
    command.opcode = raw(admin_opcode::fabrics);
    command.type = raw(fabrics_type::property_set);
    command.attributes = eight_bytes(which) ? 1 : 0;
    command.offset = raw(which);
    command.value = value;
    request r;
    r.command = view_as<sqe>(command);
    co_await execute(on, r);
    co_await outcome_of(r, fmt::format("writing property {:02x}h", raw(which)));
}

}  // namespace varve::nvme::host
