// Get Features and Set Features (Base 5.15, 5.27).
#include <algorithm>
#include <cstring>

#include "targets/nvmf/admin.h"
#include "targets/nvmf/admin_commands.h"
#include "targets/nvmf/poll_group.h"

namespace varve::targets::nvmf {

using nvme::feature;

namespace {

// What a host may be told of an event it asked for: only what the controller can send.
uint32_t offered_events(const controller& c) noexcept {
    return nvme::event_mask::health |
           (c.discovery ? nvme::event_mask::discovery_change
                        : nvme::event_mask::namespace_attribute | nvme::event_mask::ana_change);
}

uint32_t granted_queues(const controller& c) noexcept {
    return nvme::number_of_queues(c.max_io_queues, c.max_io_queues);
}

bool for_discovery(feature f) noexcept { return f == feature::async_event_config || f == feature::keep_alive_timer; }

}  // namespace

// Hosts that ask for events without choosing hear of changes, as of SPDK; of discovery's when they mean to stay.
controller::admin_state::feature_values default_features(const controller& c) noexcept {
    controller::admin_state::feature_values values;
    if (!c.discovery) {
        values.async_event_config = nvme::event_mask::namespace_attribute;
        if (c.path_states) values.async_event_config |= nvme::event_mask::ana_change;
    } else if (c.state->asked_to_stay) {
        values.async_event_config = nvme::event_mask::discovery_change;
    }
    return values;
}

void get_features(request& r) noexcept {
    controller& c = *r.queue->ctrl;
    controller::admin_state& s = *c.state;
    auto which = static_cast<feature>(r.command.cdw10.get() & 0xff);
    auto select = static_cast<nvme::feature_select>(r.command.cdw10.get() >> 8 & 7);
    if (select == nvme::feature_select::saved) return answer(r, nvme::status::invalid_field);
    if (c.discovery && !for_discovery(which)) return answer(r, nvme::status::invalid_field);
    if (select == nvme::feature_select::supported) {
        bool changeable = which != feature::volatile_write_cache && which != feature::number_of_queues;
        return answer(r, nvme::status::success, changeable ? 4 : 0);
    }
    using values = controller::admin_state::feature_values;
    const values shown = select == nvme::feature_select::initial ? default_features(c) : s.features;
    auto value = [&](uint32_t values::* which_value) { answer(r, nvme::status::success, shown.*which_value); };
    switch (which) {
        case feature::arbitration:
            return value(&values::arbitration);
        case feature::power_management:
            return value(&values::power_management);
        case feature::temperature_threshold:
            return value(&values::temperature_threshold);
        case feature::error_recovery:
            return value(&values::error_recovery);
        case feature::volatile_write_cache:
            return answer(r, nvme::status::success, 1);
        case feature::number_of_queues:
            return answer(r, nvme::status::success, granted_queues(c));
        case feature::interrupt_coalescing:
        case feature::interrupt_vector_config:
            return answer(r, nvme::status::success, 0);
        case feature::write_atomicity:
            return value(&values::write_atomicity);
        case feature::async_event_config:
            return value(&values::async_event_config);
        case feature::keep_alive_timer:
            return answer(r, nvme::status::success,
                          select == nvme::feature_select::initial ? s.keep_alive_ms_connected : s.keep_alive_ms);
        case feature::host_behavior: {
            constexpr std::size_t behaviour_size = 512;
            if (r.data_length < behaviour_size) return answer(r, nvme::status::invalid_field);
            std::array<std::byte, behaviour_size> behaviour{};
            behaviour[0] = std::byte{shown.advanced_retry};
            return answer_with(r, behaviour);
        }
        case feature::host_identifier: {
            if ((r.command.cdw11.get() & 1) == 0 || r.data_length < c.hostid.size())  // 128 bits only
                return answer(r, nvme::status::invalid_field);
            return answer_with(r, std::as_bytes(std::span(c.hostid)));
        }
        default:
            return answer(r, nvme::status::invalid_field);
    }
}

void set_features(request& r) noexcept {
    controller& c = *r.queue->ctrl;
    controller::admin_state& s = *c.state;
    auto which = static_cast<feature>(r.command.cdw10.get() & 0xff);
    uint32_t value = r.command.cdw11;
    if ((r.command.cdw10.get() & nvme::feature_save) != 0) return answer(r, nvme::status::feature_not_saveable);
    if (c.discovery && !for_discovery(which)) return answer(r, nvme::status::invalid_field);
    auto take = [&](uint32_t& into) {
        into = value;
        answer(r, nvme::status::success);
    };
    switch (which) {
        case feature::arbitration:
            return take(s.features.arbitration);
        case feature::power_management:
            if ((value & 0x1f) != 0) return answer(r, nvme::status::invalid_field);  // there is state 0 only
            return take(s.features.power_management);
        case feature::temperature_threshold:
            return take(s.features.temperature_threshold);
        case feature::error_recovery:
            if ((value & 1u << 16) != 0) return answer(r, nvme::status::invalid_field);  // DULBE is not offered
            return take(s.features.error_recovery);
        case feature::volatile_write_cache:
            // The cache is the device's; it cannot be switched off from here.
            return answer(r, (value & 1) != 0 ? nvme::status::success : nvme::status::feature_not_changeable);
        case feature::number_of_queues:
            if ((value & 0xffff) == 0xffff || value >> 16 == 0xffff) return answer(r, nvme::status::invalid_field);
            return answer(r, nvme::status::success, granted_queues(c));
        case feature::write_atomicity:
            return take(s.features.write_atomicity);
        case feature::async_event_config:
            if ((value & ~offered_events(c)) != 0) value &= offered_events(c);
            return take(s.features.async_event_config);
        case feature::keep_alive_timer:
            // Fabrics do not do without (Base 5.27.1.11), though a Connect may.
            if (value == 0) return answer(r, nvme::status::keep_alive_invalid);
            s.keep_alive_ms = granted_keep_alive(c, value);
            start_keep_alive(c);
            return answer(r, nvme::status::success, s.keep_alive_ms);
        case feature::host_behavior:
            if (r.data_length < 1) return answer(r, nvme::status::invalid_field);
            s.features.advanced_retry = *static_cast<const uint8_t*>(r.data.iov_base);
            if (s.features.advanced_retry > 1) {
                s.features.advanced_retry = 0;
                return answer(r, nvme::status::invalid_field);
            }
            return answer(r, nvme::status::success);
        case feature::host_identifier:
            return answer(r, nvme::status::command_sequence_error);  // Connect has set it
        default:
            return answer(r, nvme::status::invalid_field);
    }
}

}  // namespace varve::targets::nvmf
