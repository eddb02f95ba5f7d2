// Identify (Base 5.17, NVM 4.1.5). What the subsystem is made of belongs to the app thread, so the answer is made there
// and sent from here.
#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>
#include <vector>

#include "bdev/device.h"
#include "nvme/identify.h"
#include "nvme/text.h"
#include "targets/nvmf/admin.h"
#include "targets/nvmf/admin_commands.h"
#include "targets/nvmf/poll_group.h"
#include "targets/nvmf/subsystem.h"
#include "targets/nvmf/target.h"
#include "thread/awaits.h"
#include "util/version.h"

namespace varve::targets::nvmf {

namespace {

using page = std::array<std::byte, nvme::identify_size>;

struct identify_answer {
    nvme::status code = nvme::status::success;
    std::unique_ptr<page> data = std::make_unique<page>();

    template <class T>
    T& as() noexcept {
        static_assert(sizeof(T) == nvme::identify_size);
        return *reinterpret_cast<T*>(data->data());
    }
};

// What the command asks for, taken out of it on the admin queue's thread.
struct question {
    controller& ctrl;
    nvme::cns what;
    uint32_t nsid;
    uint16_t controller_id;
    nvme::command_set set;
};

bool visible(const question& q, const exported_namespace& ns) noexcept {
    return !ns.options.no_auto_visible || ns.hosts.contains(q.ctrl.hostnqn);
}

exported_namespace* namespace_of(const question& q) noexcept {
    exported_namespace* ns = q.ctrl.of->find_namespace(q.nsid);
    return ns != nullptr && visible(q, *ns) ? ns : nullptr;
}

// Whether a namespace has a cache that forgets, or one may come that has (Base 5.17.2.1, VWC): hosts do not ask again.
bool maybe_write_cache(const subsystem& s) noexcept {
    if (s.namespaces.empty()) return true;
    return std::ranges::any_of(s.namespaces, [](auto& ns) { return ns && ns->device->props().write_cache; });
}

void fill_controller(const question& q, nvme::identify_controller& id) {
    const controller& c = q.ctrl;
    const subsystem_options& s = c.of->options();
    constexpr uint16_t pci_vendor = 0x8086;  // what hosts know SPDK's controllers by
    constexpr uint8_t organization[3] = {0xe4, 0xd2, 0x5c};
    id.vid = id.ssvid = pci_vendor;
    nvme::pad_with_spaces(id.sn, sizeof id.sn, s.serial_number);
    nvme::pad_with_spaces(id.mn, sizeof id.mn, s.model_number);
    nvme::pad_with_spaces(id.fr, sizeof id.fr, version());
    std::memcpy(id.ieee, organization, sizeof organization);
    id.mdts = static_cast<uint8_t>(std::bit_width(c.max_io_size / 4096) - 1);
    id.cntlid = c.id;
    id.ver = controller_version;
    id.cntrltype = nvme::raw(c.discovery ? nvme::controller_type::discovery : nvme::controller_type::io);
    id.ctratt = nvme::ctratt::host_id_128;
    id.aerl = async_event_limit - 1;
    id.elpe = error_log_entries - 1;
    id.lpa = nvme::lpa::command_effects | nvme::lpa::extended_data;
    std::ranges::copy(c.of->owner().settings.command_retry_delays, id.crdt);
    id.kas = static_cast<uint16_t>(c.keep_alive_ms_step / keep_alive_step_unit_ms);
    id.maxcmd = c.max_queue_entries;
    id.sgls = nvme::sgls::supported | nvme::sgls::offset | nvme::sgls::transport_data_block;
    (void)nvme::pad_with_zeroes(id.subnqn, sizeof id.subnqn, s.nqn);
    uint32_t capsule_data = c.discovery ? 0 : c.in_capsule_data_size;
    id.ioccsz = static_cast<uint32_t>((sizeof(nvme::sqe) + capsule_data) / 16);
    id.iorcsz = sizeof(nvme::cqe) / 16;
    id.msdbd = 1;
    if (c.discovery) {
        id.oaes = nvme::event_mask::discovery_change;
        return;
    }
    id.oaes = nvme::event_mask::namespace_attribute | (s.ana_reporting ? nvme::event_mask::ana_change : 0);
    id.cmic = nvme::cmic::multiple_ports | nvme::cmic::multiple_controllers |
              (s.ana_reporting ? nvme::cmic::ana_reporting : uint8_t{0});
    id.rab = 6;
    id.acl = 3;
    id.frmw = 0x03;  // one slot, read-only
    id.sqes = 0x66;
    id.cqes = 0x44;
    id.nn = s.max_namespaces;
    id.mnan = s.max_namespaces;
    id.oncs = nvme::oncs::compare | nvme::oncs::dataset_management | nvme::oncs::write_zeroes | nvme::oncs::copy;
    id.fuses = nvme::fuses::compare_and_write;
    id.vwc = nvme::vwc::flush_all_unsupported;
    q.ctrl.told_no_write_cache = !maybe_write_cache(*c.of);
    if (!q.ctrl.told_no_write_cache) id.vwc |= nvme::vwc::present;
    id.ocfs = 1;  // copy descriptors of format 0
    if (s.ana_reporting) {
        id.anatt = 10;
        id.anacap = nvme::anacap::optimized | nvme::anacap::non_optimized | nvme::anacap::inaccessible |
                    nvme::anacap::persistent_loss | nvme::anacap::change;
        id.anagrpmax = s.max_namespaces;
        id.nanagrpid = s.max_namespaces;
    }
}

void fill_namespace(const question& q, const exported_namespace& ns, nvme::identify_namespace& id) {
    const bdev::device& device = *ns.device;
    id.nsze = device.num_blocks();
    id.ncap = device.num_blocks();
    id.nuse = device.num_blocks();
    id.nsfeat = nvme::nsfeat::optimal_io;
    if (device.offers(bdev::op::unmap)) id.nsfeat |= nvme::nsfeat::thin;
    id.dlfeat = nvme::dlfeat::reads_unreported;
    id.nmic = nvme::nmic_shared;
    id.lbaf[0].data_shift = static_cast<uint8_t>(std::countr_zero(device.block_size()));
    if (uint32_t boundary = device.props().optimal_io_boundary; boundary <= UINT16_MAX)
        id.noiob = static_cast<uint16_t>(boundary);
    id.mssrl = static_cast<uint16_t>(copy_blocks_max);
    id.mcl = copy_total_blocks_max;
    id.msrc = copy_ranges_max - 1;
    if (q.ctrl.of->options().ana_reporting) id.anagrpid = ns.options.anagrpid;
    if (!device.supports(bdev::op::write)) id.nsattr = nvme::nsattr_write_protected;
    std::memcpy(id.nguid, ns.options.nguid.data(), sizeof id.nguid);
    std::memcpy(id.eui64, ns.options.eui64.data(), sizeof id.eui64);
}

nvme::status fill_descriptors(const exported_namespace& ns, page& out) {
    std::size_t at = 0;
    auto add = [&](nvme::namespace_id_type type, const void* value, std::size_t length) {
        nvme::namespace_descriptor d{.type = nvme::raw(type), .length = static_cast<uint8_t>(length), .reserved2 = {}};
        std::memcpy(out.data() + at, &d, sizeof d);
        std::memcpy(out.data() + at + sizeof d, value, length);
        at += sizeof d + length;
    };
    auto given = [](auto& bytes) { return std::ranges::any_of(bytes, [](uint8_t b) { return b != 0; }); };
    if (given(ns.options.eui64)) add(nvme::namespace_id_type::eui64, ns.options.eui64.data(), 8);
    if (given(ns.options.nguid)) add(nvme::namespace_id_type::nguid, ns.options.nguid.data(), 16);
    if (given(ns.options.id.bytes)) add(nvme::namespace_id_type::uuid, ns.options.id.bytes.data(), 16);
    constexpr uint8_t nvm = nvme::raw(nvme::command_set::nvm);
    add(nvme::namespace_id_type::command_set, &nvm, 1);
    return nvme::status::success;
}

// Namespaces this host sees after the one named, ascending: every allocated one is active.
void fill_list(const question& q, nvme::namespace_list& list) {
    std::size_t n = 0;
    for (auto& ns : q.ctrl.of->namespaces) {
        if (!ns || ns->options.nsid <= q.nsid || !visible(q, *ns)) continue;
        if (n == std::size(list.ids)) break;
        list.ids[n++] = ns->options.nsid;
    }
}

void fill_controllers(const question& q, nvme::controller_list& list) {
    std::vector<uint16_t> ids;
    for (auto& c : q.ctrl.of->controllers)
        if (c->id >= q.controller_id) ids.push_back(c->id);
    std::ranges::sort(ids);
    ids.resize(std::min(ids.size(), std::size(list.ids)));
    list.count = static_cast<uint16_t>(ids.size());
    std::ranges::copy(ids, list.ids);
}

// Names of namespaces and what follows from them. Discovery controllers have none.
void identify_one(const question& q, identify_answer& a) {
    exported_namespace* ns = namespace_of(q);
    bool known = q.nsid != 0 && q.nsid <= q.ctrl.of->options().max_namespaces;
    if (!known) {
        a.code = nvme::status::invalid_namespace_or_format;
        return;
    }
    switch (q.what) {
        case nvme::cns::active_namespace:
        case nvme::cns::allocated_namespace:
            if (ns != nullptr) fill_namespace(q, *ns, a.as<nvme::identify_namespace>());
            return;  // an inactive one is all zeroes (Base 5.17.2.2)
        case nvme::cns::namespace_descriptors:
            a.code = ns == nullptr ? nvme::status::invalid_namespace_or_format : fill_descriptors(*ns, *a.data);
            return;
        case nvme::cns::command_set_namespace:
            if (q.set != nvme::command_set::nvm) a.code = nvme::status::invalid_field;
            return;  // no extended formats: all zeroes
        case nvme::cns::independent_namespace: {
            if (ns == nullptr) return;
            auto& id = a.as<nvme::independent_identify_namespace>();
            id.nmic = nvme::nmic_shared;
            if (q.ctrl.of->options().ana_reporting) id.anagrpid = ns->options.anagrpid;
            if (!ns->device->supports(bdev::op::write)) id.nsattr = nvme::nsattr_write_protected;
            id.nstat = 1;
            return;
        }
        default:
            a.code = nvme::status::invalid_field;
            return;
    }
}

identify_answer make_answer(const question& q) {
    identify_answer a;
    if (q.what == nvme::cns::controller) {
        fill_controller(q, a.as<nvme::identify_controller>());
        return a;
    }
    if (q.ctrl.discovery) {
        a.code = nvme::status::invalid_field;
        return a;
    }
    constexpr uint32_t list_limit = 0xfffffffd;  // FFFFFFFEh and FFFFFFFFh are not to be listed after (Base 5.17.2.2)
    switch (q.what) {
        case nvme::cns::active_namespace_list:
        case nvme::cns::allocated_namespace_list:
        case nvme::cns::command_set_active_list:
        case nvme::cns::command_set_allocated_list:
            if (q.nsid > list_limit) {
                a.code = nvme::status::invalid_namespace_or_format;
            } else if (q.set != nvme::command_set::nvm) {
                a.code = nvme::status::invalid_field;
            } else {
                fill_list(q, a.as<nvme::namespace_list>());
            }
            return a;
        case nvme::cns::controller_list:
            fill_controllers(q, a.as<nvme::controller_list>());
            return a;
        case nvme::cns::command_set_controller: {
            if (q.set != nvme::command_set::nvm) {
                a.code = nvme::status::invalid_field;
                return a;
            }
            auto& id = a.as<nvme::nvm_identify_controller>();
            id.dmrl = 255;  // ranges a Dataset Management command may have; 256 are taken, this counts in a byte
            id.dmrsl = q.ctrl.of->options().dmrsl;
            id.wzsl = q.ctrl.of->options().wzsl;
            return a;
        }
        case nvme::cns::command_sets:
            a.as<nvme::command_set_vectors>().vectors[0] = 1;
            return a;
        case nvme::cns::active_namespace:
        case nvme::cns::allocated_namespace:
        case nvme::cns::namespace_descriptors:
        case nvme::cns::command_set_namespace:
        case nvme::cns::independent_namespace:
            identify_one(q, a);
            return a;
        default:
            a.code = nvme::status::invalid_field;
            return a;
    }
}

task<> identify_task(request& r) {
    controller& c = *r.queue->ctrl;
    question q{.ctrl = c,
               .what = static_cast<nvme::cns>(r.command.cdw10.get() & 0xff),
               .nsid = r.command.nsid,
               .controller_id = static_cast<uint16_t>(r.command.cdw10.get() >> 16),
               .set = static_cast<nvme::command_set>(r.command.cdw11.get() >> 24)};
    if (r.data_length < nvme::identify_size) co_return answer(r, nvme::status::invalid_field);
    identify_answer a = co_await call_on(c.of->owner().system().app_thread(),
                                         [&]() -> task<identify_answer> { co_return make_answer(q); });
    if (a.code != nvme::status::success) co_return answer(r, a.code);
    answer_with(r, *a.data);
}

}  // namespace

void identify(request& r) noexcept { r.queue->group.spawn("identify", identify_task(r)); }

}  // namespace varve::targets::nvmf
