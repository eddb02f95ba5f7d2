// The discovery log page (Base 5.16.1.23): where the subsystems a host may connect to can be reached.
#include <array>
#include <cstring>
#include <vector>

#include "nvme/log_page.h"
#include "nvme/text.h"
#include "targets/nvmf/admin.h"
#include "targets/nvmf/admin_commands.h"
#include "targets/nvmf/poll_group.h"
#include "targets/nvmf/subsystem.h"
#include "targets/nvmf/target.h"
#include "thread/awaits.h"

namespace varve::targets::nvmf {

namespace {

constexpr uint16_t admin_queue_entries = 128;

nvme::discovery_entry entry_for(const std::string& nqn, nvme::subsystem_type type, const listener_entry& at) {
    nvme::discovery_entry e{};
    e.trtype = nvme::raw(nvme::transport_type::tcp);
    e.adrfam =
        nvme::raw(at.at.kind == env::address::family::ipv6 ? nvme::address_family::ipv6 : nvme::address_family::ipv4);
    e.subtype = nvme::raw(type);
    e.treq = nvme::raw(at.secure_channel ? nvme::secure_channel::required : nvme::secure_channel::not_required);
    e.portid = at.id;
    e.cntlid = nvme::controller_id_dynamic;
    e.asqsz = admin_queue_entries;
    if (type == nvme::subsystem_type::current_discovery)
        e.eflags = nvme::discovery_flags::duplicate_information | nvme::discovery_flags::persistent_connection;
    nvme::pad_with_spaces(e.trsvcid, sizeof e.trsvcid, std::to_string(at.at.port));
    nvme::pad_with_spaces(e.traddr, sizeof e.traddr, at.at.host);
    (void)nvme::pad_with_zeroes(e.subnqn, sizeof e.subnqn, nqn);
    if (at.secure_channel) e.tsas[0] = nvme::raw(nvme::tcp_security::tls_1_3);
    return e;
}

// App thread. What this host may see, as the target's filter says.
std::vector<std::byte> make_log(const controller& c) {
    target& t = c.of->owner();
    std::vector<nvme::discovery_entry> entries;
    auto matches = [&](const listener_entry& at) {
        if ((t.settings.discovery_filter & filter_address) != 0 && at.at.host != c.listener.host) return false;
        return (t.settings.discovery_filter & filter_service) == 0 || at.at.port == c.listener.port;
    };
    for (auto& s : t.subsystems()) {
        if (s->stopping || !s->host_allowed(c.hostnqn)) continue;
        auto type = s->options().discovery ? nvme::subsystem_type::current_discovery : nvme::subsystem_type::nvm;
        for (auto& at : s->listeners)
            if (matches(at)) entries.push_back(entry_for(s->options().nqn, type, at));
    }
    for (auto& referral : t.referrals)
        entries.push_back(entry_for(referral.subnqn, nvme::subsystem_type::referral, referral.at));
    nvme::discovery_header header{};
    header.generation = t.discovery_generation;
    header.record_count = entries.size();
    std::vector<std::byte> page(sizeof header + entries.size() * sizeof(nvme::discovery_entry));
    std::memcpy(page.data(), &header, sizeof header);
    if (!entries.empty())
        std::memcpy(page.data() + sizeof header, entries.data(), entries.size() * sizeof(nvme::discovery_entry));
    return page;
}

}  // namespace

task<> discovery_log(request& r, nvme::log_request asked) {
    controller& c = *r.queue->ctrl;
    auto page = co_await call_on(c.of->owner().system().app_thread(),
                                 [&]() -> task<std::vector<std::byte>> { co_return make_log(c); });
    if (!asked.retain_event && asked.offset <= page.size()) notice_read(c, nvme::log_page::discovery);
    answer_with(r, page, asked.offset);
}

}  // namespace varve::targets::nvmf
