// Get Log Page (Base 5.16), but for the discovery log, which is discovery.cc's.
#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <vector>

#include "nvme/log_page.h"
#include "nvme/text.h"
#include "targets/nvmf/admin.h"
#include "targets/nvmf/admin_commands.h"
#include "targets/nvmf/poll_group.h"
#include "targets/nvmf/subsystem.h"
#include "targets/nvmf/target.h"
#include "thread/awaits.h"
#include "util/version.h"

namespace varve::targets::nvmf {

using nvme::admin_opcode;
using nvme::log_page;
using nvme::nvm_opcode;

namespace {

template <class T>
std::span<const std::byte> bytes_of(const T& value) noexcept {
    return std::as_bytes(std::span(&value, 1));
}

void error_log(request& r, const nvme::log_request& asked) {
    std::array<nvme::error_log_entry, error_log_entries> page{};
    std::ranges::copy(r.queue->ctrl->state->errors, page.begin());
    answer_with(r, std::as_bytes(std::span(page)), asked.offset);
}

void health_log(request& r, const nvme::log_request& asked) {
    constexpr uint16_t room_temperature_kelvin = 300;
    nvme::health_log page{};
    page.temperature_kelvin = room_temperature_kelvin;
    page.available_spare = 100;
    page.error_log_entries[0] = r.queue->ctrl->state->error_count;
    answer_with(r, bytes_of(page), asked.offset);
}

void firmware_log(request& r, const nvme::log_request& asked) {
    nvme::firmware_log page{};
    page.active_slots = 1;
    nvme::pad_with_spaces(page.revisions[0], sizeof page.revisions[0], version());
    answer_with(r, bytes_of(page), asked.offset);
}

// Reading it arms the notice again, unless the host says that it is to be retained.
void changed_namespaces(request& r, const nvme::log_request& asked) {
    controller::admin_state& s = *r.queue->ctrl->state;
    nvme::changed_namespaces_log page{};
    if (s.changed_namespaces.size() > std::size(page.ids)) {
        page.ids[0] = nvme::nsid_all;
    } else {
        std::ranges::copy(s.changed_namespaces, page.ids);
    }
    if (!asked.retain_event && asked.offset <= sizeof page) {
        s.changed_namespaces.clear();
        notice_read(*r.queue->ctrl, log_page::changed_namespaces);
    }
    answer_with(r, bytes_of(page), asked.offset);
}

void command_effects(request& r, const nvme::log_request& asked) {
    constexpr uint32_t plain = nvme::command_effect::supported;
    constexpr uint32_t writes = plain | nvme::command_effect::changes_blocks;
    nvme::command_effects_log page{};
    for (admin_opcode o :
         {admin_opcode::get_log_page, admin_opcode::identify, admin_opcode::abort, admin_opcode::set_features,
          admin_opcode::get_features, admin_opcode::async_event_request, admin_opcode::keep_alive})
        page.admin[nvme::raw(o)] = plain;
    for (nvm_opcode o : {nvm_opcode::flush, nvm_opcode::read, nvm_opcode::compare}) page.io[nvme::raw(o)] = plain;
    for (nvm_opcode o : {nvm_opcode::write, nvm_opcode::write_zeroes, nvm_opcode::dataset_management, nvm_opcode::copy})
        page.io[nvme::raw(o)] = writes;
    answer_with(r, bytes_of(page), asked.offset);
}

void supported_pages(request& r, const nvme::log_request& asked) {
    constexpr uint32_t supported = 1;
    nvme::supported_log_pages page{};
    const controller& c = *r.queue->ctrl;
    page.pages[nvme::raw(log_page::supported)] = supported;
    if (c.discovery) {
        page.pages[nvme::raw(log_page::discovery)] = supported;
        return answer_with(r, bytes_of(page), asked.offset);
    }
    for (log_page p : {log_page::error_information, log_page::health, log_page::firmware_slot,
                       log_page::changed_namespaces, log_page::command_effects})
        page.pages[nvme::raw(p)] = supported;
    if (c.of->options().ana_reporting) page.pages[nvme::raw(log_page::ana)] = supported;
    answer_with(r, bytes_of(page), asked.offset);
}

// App thread. Base 5.16.1.13: groups that have namespaces this host sees, with their state on the path it came by.
std::vector<std::byte> make_ana_log(const controller& c, bool groups_only) {
    subsystem& s = *c.of;
    std::vector<std::byte> page(sizeof(nvme::ana_log_header));
    auto append = [&](auto& value) {
        auto bytes = bytes_of(value);
        page.insert(page.end(), bytes.begin(), bytes.end());
    };
    struct members {
        ana_state state;
        std::vector<le32> nsids;
    };
    std::map<uint32_t, members> groups;
    for (auto& ns : s.namespaces) {
        if (!ns || (ns->options.no_auto_visible && !ns->hosts.contains(c.hostnqn))) continue;
        members& group = groups[ns->options.anagrpid];
        group.state = s.ana_state_of(*ns, c.listener);
        group.nsids.push_back(le32(ns->options.nsid));
    }
    for (auto& [id, of] : groups) {
        nvme::ana_group group{};
        group.group_id = id;
        group.state = static_cast<uint8_t>(of.state);
        group.namespace_count = groups_only ? 0 : static_cast<uint32_t>(of.nsids.size());
        group.change_count = s.ana_changes;
        append(group);
        if (!groups_only)
            for (le32& nsid : of.nsids) append(nsid);
    }
    nvme::ana_log_header header{};
    header.change_count = s.ana_changes;
    header.group_count = static_cast<uint16_t>(groups.size());
    std::memcpy(page.data(), &header, sizeof header);
    return page;
}

task<> ana_log(request& r, nvme::log_request asked) {
    controller& c = *r.queue->ctrl;
    auto page = co_await call_on(c.of->owner().system().app_thread(), [&]() -> task<std::vector<std::byte>> {
        co_return make_ana_log(c, (asked.specific & nvme::ana_log_groups_only) != 0);
    });
    if (!asked.retain_event && asked.offset <= page.size()) notice_read(c, log_page::ana);
    answer_with(r, page, asked.offset);
}

}  // namespace

void get_log_page(request& r) noexcept {
    controller& c = *r.queue->ctrl;
    auto asked = nvme::log_request::decode(r.command);
    if (asked.offset % 4 != 0 || r.data_length == 0 || asked.length > r.data_length)
        return answer(r, nvme::status::invalid_field);
    r.data_length = static_cast<uint32_t>(asked.length);
    if (asked.id == log_page::supported) return supported_pages(r, asked);
    if (c.discovery) {
        if (asked.id != log_page::discovery) return answer(r, nvme::status::invalid_log_page);
        return r.queue->group.spawn("discovery log", discovery_log(r, asked));
    }
    switch (asked.id) {
        case log_page::error_information:
            return error_log(r, asked);
        case log_page::health:
            return health_log(r, asked);
        case log_page::firmware_slot:
            return firmware_log(r, asked);
        case log_page::changed_namespaces:
            return changed_namespaces(r, asked);
        case log_page::command_effects:
            return command_effects(r, asked);
        case log_page::ana:
            if (!c.of->options().ana_reporting) break;
            return r.queue->group.spawn("ANA log", ana_log(r, asked));
        default:
            break;
    }
    answer(r, nvme::status::invalid_log_page);
}

}  // namespace varve::targets::nvmf
