#include "nvme/host/ns.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "nvme/text.h"
#include "util/units.h"

namespace varve::nvme::host {

namespace {

constexpr uint64_t command_blocks_max = 65536;

// Memory that the command only reads.
std::span<std::byte> as_data(std::span<const std::byte> memory) noexcept {
    return {const_cast<std::byte*>(memory.data()), memory.size()};  // NOLINT
}

void take_descriptors(ns& into, std::span<const std::byte> page) noexcept {
    while (page.size() > sizeof(namespace_descriptor)) {
        namespace_descriptor head;
        std::memcpy(&head, page.data(), sizeof head);
        page = page.subspan(sizeof head);
        if (head.length == 0 || head.length > page.size()) return;
        const auto take = [&](auto& field) {
            if (head.length == sizeof field) std::memcpy(field.data(), page.data(), sizeof field);
        };
        switch (static_cast<namespace_id_type>(head.type)) {
            case namespace_id_type::none:
                return;
            case namespace_id_type::eui64:
                take(into.eui64);
                break;
            case namespace_id_type::nguid:
                take(into.nguid);
                break;
            case namespace_id_type::uuid:
                take(into.uuid.bytes);
                break;
            case namespace_id_type::command_set:
                break;
        }
        page = page.subspan(head.length);
    }
}

}  // namespace

result<ns> ns::from(uint32_t id, const identify_namespace& data, std::span<const std::byte> descriptors,
                    uint32_t controller_transfer_max) {
    const lba_format format = data.lbaf[data.format_index()];
    if (format.data_shift < 9 || format.data_shift > 20)
        return varve::fail(errc::unsupported,
                           fmt::format("namespace {} has blocks of 2^{} bytes", id, format.data_shift));
    if (format.metadata_size != 0 && (data.flbas & flbas_metadata_extends_blocks) != 0)
        return varve::fail(errc::unsupported, fmt::format("namespace {} has metadata within its blocks", id));
    ns n;
    n.nsid = id;
    n.block_size = 1u << format.data_shift;
    n.blocks = data.nsze;
    if (n.blocks > UINT64_MAX >> format.data_shift)
        return varve::fail(errc::unsupported, fmt::format("namespace {} claims {} blocks", id, n.blocks));
    n.metadata_size = format.metadata_size;
    n.write_protected = (data.nsattr & nsattr_write_protected) != 0;
    n.ana_group = data.anagrpid;
    std::memcpy(n.nguid.data(), data.nguid, sizeof data.nguid);
    std::memcpy(n.eui64.data(), data.eui64, sizeof data.eui64);
    take_descriptors(n, descriptors);
    const uint64_t limit = std::min<uint64_t>(controller_transfer_max, command_blocks_max << format.data_shift);
    n.transfer_max = static_cast<uint32_t>(std::max<uint64_t>(limit >> format.data_shift, 1) << format.data_shift);
    return n;
}

task<> ns::transfer(queue_pair& on, nvm_opcode opcode, uint64_t lba, std::span<std::byte> memory,
                    uint32_t dword12) const {
    const ns self = *this;  // the caller's may go while we wait
    if (memory.size() % self.block_size != 0)
        co_await varve::fail(errc::invalid, fmt::format("{} bytes are not whole blocks", memory.size()));
    request r;
    while (!memory.empty()) {
        const std::size_t bytes = std::min<std::size_t>(memory.size(), self.transfer_max);
        const auto count = static_cast<uint32_t>(bytes / self.block_size);
        r.command = block_command(opcode, self.nsid, lba, count, dword12);
        r.set_data(memory.first(bytes));
        co_await execute(on, r);
        if (!r.ok()) co_await outcome_of(r, fmt::format("{} of {} blocks at {}", text_of(opcode), count, lba));
        memory = memory.subspan(bytes);
        lba += count;
    }
}

task<> ns::read(queue_pair& on, uint64_t lba, std::span<std::byte> into) const {
    return transfer(on, nvm_opcode::read, lba, into, 0);
}

task<> ns::write(queue_pair& on, uint64_t lba, std::span<const std::byte> from, bool force_unit_access) const {
    return transfer(on, nvm_opcode::write, lba, as_data(from), force_unit_access ? cdw12::force_unit_access : 0);
}

task<> ns::compare(queue_pair& on, uint64_t lba, std::span<const std::byte> with) const {
    return transfer(on, nvm_opcode::compare, lba, as_data(with), 0);
}

task<> ns::compare_and_write(queue_pair& on, uint64_t lba, std::span<const std::byte> expected,
                             std::span<const std::byte> replacement) const {
    if (expected.size() != replacement.size() || expected.empty() || expected.size() % block_size != 0 ||
        expected.size() > transfer_max)
        co_await varve::fail(errc::invalid, "compare-and-write takes two equal runs of whole blocks, of one command");
    const auto count = static_cast<uint32_t>(expected.size() / block_size);
    request first, second;
    first.command = block_command(nvm_opcode::compare, nsid, lba, count);
    first.set_data(as_data(expected));
    second.command = block_command(nvm_opcode::write, nsid, lba, count);
    second.set_data(as_data(replacement));
    co_await fused_execution(on, first, second);
    if (!first.ok()) co_await outcome_of(first, fmt::format("compare of {} blocks at {}", count, lba));
    if (!second.ok()) co_await outcome_of(second, fmt::format("write of {} blocks at {}", count, lba));
}

task<> ns::write_zeroes(queue_pair& on, uint64_t lba, uint64_t count, bool deallocate_too) const {
    const uint32_t id = nsid;
    request r;
    while (count != 0) {
        const auto now = static_cast<uint32_t>(std::min<uint64_t>(count, command_blocks_max));
        r.command = block_command(nvm_opcode::write_zeroes, id, lba, now, deallocate_too ? cdw12::deallocate : 0);
        co_await execute(on, r);
        if (!r.ok()) co_await outcome_of(r, fmt::format("write zeroes of {} blocks at {}", now, lba));
        lba += now;
        count -= now;
    }
}

task<> ns::deallocate(queue_pair& on, std::span<const dsm_range> ranges) const {
    const uint32_t id = nsid;
    request r;
    while (!ranges.empty()) {
        const std::size_t now = std::min<std::size_t>(ranges.size(), dsm::ranges_max);
        r.command = dsm_command(id, static_cast<uint32_t>(now), dsm::deallocate);
        r.set_data(as_data(std::as_bytes(ranges.first(now))));
        co_await execute(on, r);
        if (!r.ok()) co_await outcome_of(r, "dataset management");
        ranges = ranges.subspan(now);
    }
}

task<> ns::flush(queue_pair& on) const {
    request r;
    r.command = flush_command(nsid);
    co_await execute(on, r);
    if (!r.ok()) co_await outcome_of(r, "flush");
}

}  // namespace varve::nvme::host
