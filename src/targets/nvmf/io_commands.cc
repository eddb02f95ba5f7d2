// NVM commands (NVM Command Set Specification 1.0, 3) to block requests, and their outcome back to NVMe status. The hot
// path: what reads and writes need comes first and nothing here allocates.
#include <cstring>
#include <optional>

#include "targets/nvmf/controller.h"
#include "targets/nvmf/poll_group.h"
#include "targets/nvmf/subsystem.h"
#include "util/units.h"

namespace varve::targets::nvmf {

using nvme::nvm_opcode;

namespace {

void finish(request& r, nvme::status code, bool dnr = true) noexcept {
    if (is_fused(r)) [[unlikely]]
        fused_half_ended(r);
    r.status = code;
    r.dnr = dnr && code != nvme::status::success;
    r.queue->complete(r);
}

// What a host may find useful to know of a failed block request; retrying helps only where the cause may pass.
struct outcome {
    nvme::status code;
    bool dnr;
};

outcome outcome_of(bdev::status s, bdev::op operation) noexcept {
    using enum bdev::status;
    bool reading = operation == bdev::op::read || operation == bdev::op::compare;
    switch (s) {
        case ok:
            return {nvme::status::success, false};
        case invalid:
            return {nvme::status::invalid_field, true};
        case unsupported:
            return {nvme::status::invalid_opcode, true};
        case out_of_range:
            return {nvme::status::lba_out_of_range, true};
        case read_only:
            return {nvme::status::namespace_write_protected, true};
        case no_space:
            return {nvme::status::capacity_exceeded, true};
        case media_error:
            return {reading ? nvme::status::unrecovered_read_error : nvme::status::write_fault, false};
        case compare_failed:
            return {nvme::status::compare_failure, true};
        case aborted:
            return {nvme::status::aborted_by_request, false};
        case no_device:
            return {nvme::status::invalid_namespace_or_format, true};
        case conflict:
            return {nvme::status::reservation_conflict, true};
        case failed:
        case no_memory:
            break;
    }
    auto value = static_cast<uint16_t>(s);
    if ((value & 0x8000) != 0) return {static_cast<nvme::status>(value & 0x7ff), false};
    return {nvme::status::internal_error, false};
}

void leave_view(namespace_view& view) noexcept {
    if (--view.outstanding == 0 && view.drained) [[unlikely]]
        std::exchange(view.drained, {}).resume();
}

void io_finished(bdev::io& io, void* context) noexcept {
    request& r = *static_cast<request*>(context);
    ++r.queue->group.stats.completed_nvme_io;
    namespace_view& view = *r.view;
    r.view = nullptr;
    if (io.status == bdev::status::ok) [[likely]] {
        if (io.operation == bdev::op::read) r.transfer_length = static_cast<uint32_t>(r.data.iov_len);
    } else {
        auto [code, dnr] = outcome_of(io.status, io.operation);
        r.status = code;
        r.dnr = dnr;
    }
    if (r.fused != nullptr) [[unlikely]] {  // the pair succeeds or fails together (Base 3.4.2)
        request& first = *std::exchange(r.fused, nullptr);
        first.status = r.status;
        first.dnr = r.dnr;
        if (r.status != nvme::status::success && r.status != nvme::status::compare_failure) {
            first.status = nvme::status::aborted_failed_fused;
        } else if (r.status == nvme::status::compare_failure) {
            r.status = nvme::status::aborted_failed_fused;
        }
        first.queue->complete(first);
    }
    r.queue->complete(r);
    leave_view(view);
}

void start(request& r, namespace_view& view) noexcept {
    ++view.outstanding;
    r.view = &view;
    r.io.depth = 0;
    r.io.status = bdev::status::ok;
    r.io.push(io_finished, &r);
    view.channel->submit(r.io);
}

// Takes first block and count, and checks the buffer against them. False: answered.
bool set_range(request& r, const namespace_view& view, bdev::op operation) noexcept {
    uint32_t blocks = r.command.blocks();
    uint64_t first = r.command.slba();
    if (!range_inside(first, blocks, view.num_blocks)) [[unlikely]] {
        finish(r, nvme::status::lba_out_of_range);
        return false;
    }
    uint64_t bytes = static_cast<uint64_t>(blocks) << view.block_shift;
    if (bytes != r.data_length) [[unlikely]] {
        finish(r, nvme::status::data_sgl_length_invalid);
        return false;
    }
    r.io.operation = operation;
    r.io.lba = first;
    r.io.blocks = blocks;
    r.io.iov = &r.data;
    r.io.iov_count = 1;
    r.io.flags = (r.command.cdw12.get() & nvme::cdw12::force_unit_access) != 0 ? bdev::io::fua : uint8_t{0};
    return true;
}

void write_zeroes(request& r, namespace_view& view) noexcept {
    uint32_t blocks = r.command.blocks();
    if (!range_inside(r.command.slba(), blocks, view.num_blocks)) return finish(r, nvme::status::lba_out_of_range);
    r.io.operation = bdev::op::write_zeroes;
    r.io.lba = r.command.slba();
    r.io.blocks = blocks;
    r.io.iov = nullptr;
    r.io.iov_count = 0;
    r.io.flags = (r.command.cdw12.get() & nvme::cdw12::force_unit_access) != 0 ? bdev::io::fua : uint8_t{0};
    start(r, view);
}

// Everything the view's device has acknowledged is on stable media when this succeeds (NVM 3.2, Flush).
void flush(request& r, namespace_view& view) noexcept {
    r.io.operation = bdev::op::flush;
    r.io.lba = 0;
    r.io.blocks = 0;
    r.io.iov = nullptr;
    r.io.iov_count = 0;
    r.io.flags = 0;
    start(r, view);
}

// --- dataset management and copy: several ranges, one after another; the request itself is reused for each

// data: the ranges; result: how many are done.
void next_unmap(request& r) noexcept;
void unmap_finished(bdev::io& io, void* context) noexcept {
    request& r = *static_cast<request*>(context);
    if (io.status != bdev::status::ok) {
        auto [code, dnr] = outcome_of(io.status, io.operation);
        r.status = code;
        r.dnr = dnr;
    }
    ++r.result;
    next_unmap(r);
}

void end_of_ranges(request& r) noexcept {
    namespace_view& view = *r.view;
    r.view = nullptr;
    ++r.queue->group.stats.completed_nvme_io;
    r.queue->complete(r);
    leave_view(view);
}

// NVM 3.2.3; every range was checked before the first was begun.
void next_unmap(request& r) noexcept {
    auto* ranges = static_cast<const nvme::dsm_range*>(r.data.iov_base);
    uint32_t count = (r.command.cdw10.get() & 0xff) + 1;
    while (r.result < count && ranges[r.result].blocks == 0) ++r.result;
    if (r.result >= count || r.status != nvme::status::success) {
        r.result = 0;
        return end_of_ranges(r);
    }
    const nvme::dsm_range& range = ranges[r.result];
    r.io.operation = bdev::op::unmap;
    r.io.lba = range.slba;
    r.io.blocks = range.blocks;
    r.io.iov = nullptr;
    r.io.iov_count = 0;
    r.io.flags = 0;
    r.io.depth = 0;
    r.io.status = bdev::status::ok;
    r.io.push(unmap_finished, &r);
    r.view->held->submit(r.io);  // not `channel`, which is null once the namespace is on its way out
}

void dataset_management(request& r, namespace_view& view) noexcept {
    uint32_t count = (r.command.cdw10.get() & 0xff) + 1;
    if (r.data_length < count * sizeof(nvme::dsm_range)) return finish(r, nvme::status::data_sgl_length_invalid);
    // The other attributes are hints, which this target takes and forgets.
    if ((r.command.cdw11.get() & nvme::dsm::deallocate) == 0) return finish(r, nvme::status::success);
    auto* ranges = static_cast<const nvme::dsm_range*>(r.data.iov_base);
    for (uint32_t i = 0; i < count; ++i)
        if (!range_inside(ranges[i].slba, ranges[i].blocks, view.num_blocks))
            return finish(r, nvme::status::lba_out_of_range);
    ++view.outstanding;
    r.view = &view;
    r.result = 0;
    next_unmap(r);
}

// NVM 3.2.2, descriptor format 0: source ranges, one after another, to consecutive destination blocks.
void next_copy(request& r) noexcept;
void copy_finished(bdev::io& io, void* context) noexcept {
    request& r = *static_cast<request*>(context);
    r.copied_blocks += io.blocks;
    if (io.status != bdev::status::ok) {
        auto [code, dnr] = outcome_of(io.status, io.operation);
        r.status = code;
        r.dnr = dnr;
    } else {
        ++r.result;
    }
    next_copy(r);
}

void next_copy(request& r) noexcept {
    auto* ranges = static_cast<const nvme::copy_range*>(r.data.iov_base);
    if (r.result >= nvme::copy_range_count(r.command.cdw12) || r.status != nvme::status::success) {
        if (r.status == nvme::status::success) r.result = 0;  // otherwise: the first range that was not copied
        return end_of_ranges(r);
    }
    const nvme::copy_range& range = ranges[r.result];
    r.io.operation = bdev::op::copy;
    r.io.lba = r.command.slba() + r.copied_blocks;
    r.io.source_lba = range.slba;
    r.io.blocks = range.blocks + 1u;
    r.io.iov_count = 0;
    r.io.flags = 0;
    r.io.depth = 0;
    r.io.status = bdev::status::ok;
    r.io.push(copy_finished, &r);
    r.view->held->submit(r.io);
}

void copy(request& r, namespace_view& view) noexcept {
    uint32_t count = nvme::copy_range_count(r.command.cdw12);
    if (nvme::copy_format(r.command.cdw12) != 0) return finish(r, nvme::status::invalid_field);
    if (count > copy_ranges_max) return finish(r, nvme::status::command_size_limit_exceeded);
    if (r.data_length < count * sizeof(nvme::copy_range)) return finish(r, nvme::status::data_sgl_length_invalid);
    auto* ranges = static_cast<const nvme::copy_range*>(r.data.iov_base);
    uint64_t total = 0;
    for (uint32_t i = 0; i < count; ++i) {
        uint32_t blocks = ranges[i].blocks + 1u;
        if (blocks > copy_blocks_max) return finish(r, nvme::status::command_size_limit_exceeded);
        if (!range_inside(ranges[i].slba, blocks, view.num_blocks)) return finish(r, nvme::status::lba_out_of_range);
        total += blocks;
    }
    if (total > copy_total_blocks_max) return finish(r, nvme::status::command_size_limit_exceeded);
    if (!range_inside(r.command.slba(), total, view.num_blocks)) return finish(r, nvme::status::lba_out_of_range);
    ++view.outstanding;
    r.view = &view;
    r.result = 0;
    r.copied_blocks = 0;
    next_copy(r);
}

// --- fused compare and write (Base 3.4.2): two commands that follow each other, carried out as one request

// The second command, with the first waiting in the queue pair. Both answers come from io_finished.
void compare_and_write(request& first, request& second, namespace_view& view) noexcept {
    bool same = first.command.slba() == second.command.slba() && first.command.blocks() == second.command.blocks() &&
                first.command.nsid == second.command.nsid;
    if (!same) {
        finish(first, nvme::status::aborted_failed_fused);
        return finish(second, nvme::status::invalid_field);
    }
    if (second.command.blocks() != 1) {  // ACWU is one block
        finish(first, nvme::status::aborted_failed_fused);
        return finish(second, nvme::status::atomic_write_unit_exceeded);
    }
    second.pair[0] = first.data;
    second.pair[1] = second.data;
    second.fused = &first;
    if (!range_inside(second.command.slba(), 1, view.num_blocks) || first.data_length != (1u << view.block_shift) ||
        second.data_length != first.data_length) {
        second.fused = nullptr;
        finish(first, nvme::status::aborted_failed_fused);
        return finish(second, range_inside(second.command.slba(), 1, view.num_blocks)
                                  ? nvme::status::data_sgl_length_invalid
                                  : nvme::status::lba_out_of_range);
    }
    second.io.operation = bdev::op::compare_and_write;
    second.io.lba = second.command.slba();
    second.io.blocks = 1;
    second.io.iov = second.pair;
    second.io.iov_count = 2;
    second.io.flags = 0;
    start(second, view);
}

// A half whose data is here: waits for the other, or goes on with it.
void fused_command(request& r, namespace_view& view) noexcept {
    const bool first = r.command.fused() == nvme::fuse::first;
    if (!first && r.command.fused() != nvme::fuse::second) return finish(r, nvme::status::invalid_field);
    const nvm_opcode expected = first ? nvm_opcode::compare : nvm_opcode::write;
    if (static_cast<nvm_opcode>(r.command.opcode) != expected) return finish(r, nvme::status::invalid_opcode);
    if (r.broken != nvme::status::success) return finish(r, r.broken);
    r.parked = true;
    if (r.partner == nullptr || !r.partner->parked) return;  // it has not arrived, or its data has not
    request& other = *std::exchange(r.partner, nullptr);
    other.partner = nullptr;
    r.parked = other.parked = false;
    compare_and_write(first ? r : other, first ? other : r, view);
}

// Base 8.1.3: what a command gets on a path whose ANA state lets no I/O through.
std::optional<nvme::status> closed_path(uint8_t state) noexcept {
    switch (static_cast<ana_state>(state)) {
        case ana_state::inaccessible:
            return nvme::status::ana_inaccessible;
        case ana_state::persistent_loss:
            return nvme::status::ana_persistent_loss;
        case ana_state::change:
            return nvme::status::ana_transition;
        default:
            return std::nullopt;
    }
}

// Null: answered.
namespace_view* view_of(request& r) noexcept {
    namespace_table& table = *r.queue->namespaces;
    uint32_t index = r.command.nsid - 1;  // 0 becomes the largest
    namespace_view* view = index < table.size() ? table[index].get() : nullptr;
    if (view == nullptr || view->channel == nullptr || (view->restricted && !r.queue->ctrl->sees(index + 1)))
        [[unlikely]] {
        finish(r, nvme::status::invalid_namespace_or_format);
        return nullptr;
    }
    if (r.queue->path_states != nullptr) [[unlikely]] {
        if (auto closed = closed_path(r.queue->path_states[view->ana_group - 1].load(std::memory_order_relaxed))) {
            finish(r, *closed, false);
            return nullptr;
        }
    }
    return view;
}

}  // namespace

void fused_arrived(request& r) noexcept {
    qpair& q = *r.queue;
    request* first = std::exchange(q.fused_first, nullptr);
    const bool lost = std::exchange(q.fused_lost, false);
    if (r.command.fused() == nvme::fuse::second) {
        r.partner = first;
        if (first != nullptr) first->partner = &r;
        if (first == nullptr)
            r.broken = lost ? nvme::status::aborted_failed_fused : nvme::status::aborted_missing_fused;
        return;
    }
    if (first != nullptr) {  // something else follows it
        first->broken = nvme::status::aborted_missing_fused;
        if (first->parked) finish(*first, first->broken);
    }
    if (r.command.fused() == nvme::fuse::first) q.fused_first = &r;
}

void fused_half_ended(request& r) noexcept {
    qpair& q = *r.queue;
    r.parked = false;
    if (q.fused_first == &r) {
        q.fused_first = nullptr;
        q.fused_lost = true;
    }
    request* other = std::exchange(r.partner, nullptr);
    if (other == nullptr) return;
    other->partner = nullptr;
    other->broken = nvme::status::aborted_failed_fused;
    if (other->parked) finish(*other, other->broken);
}

bool abort_io(request& r) noexcept {
    if (r.parked) {  // half of a fused pair: the other half goes with it
        finish(r, nvme::status::aborted_by_request, false);
        return true;
    }
    // Where it was submitted, which is not `channel` once the namespace is on its way out.
    return r.view != nullptr && r.view->held->abort(r.io);
}

void execute_io(request& r) noexcept {
    qpair& q = *r.queue;
    if (!q.enabled) [[unlikely]]
        return finish(r, nvme::status::command_sequence_error, false);
    namespace_view* view = view_of(r);
    if (view == nullptr) [[unlikely]]
        return;
    if (is_fused(r)) [[unlikely]]
        return fused_command(r, *view);
    switch (static_cast<nvm_opcode>(r.command.opcode)) {
        case nvm_opcode::read:
            if (!set_range(r, *view, bdev::op::read)) return;
            if (r.data_length <= view->blank_size) [[unlikely]] {  // the buffer holds what somebody else had in it
                r.data.iov_base = view->blank;
                r.io.flags |= bdev::io::leave_memory;
            }
            return start(r, *view);
        case nvm_opcode::write:
            if (set_range(r, *view, bdev::op::write)) start(r, *view);
            return;
        case nvm_opcode::flush:
            return flush(r, *view);
        case nvm_opcode::compare:
            if (set_range(r, *view, bdev::op::compare)) start(r, *view);
            return;
        case nvm_opcode::write_zeroes:
            return write_zeroes(r, *view);
        case nvm_opcode::dataset_management:
            return dataset_management(r, *view);
        case nvm_opcode::copy:
            return copy(r, *view);
        default:
            return finish(r, nvme::status::invalid_opcode);
    }
}

void execute(request& r) noexcept {
    if (r.command.opcode == nvme::raw(nvm_opcode::fabrics)) [[unlikely]]
        return execute_fabrics(r);
    if (r.queue->ctrl == nullptr) [[unlikely]]
        return finish(r, nvme::status::command_sequence_error);
    if (r.queue->id == 0) return execute_admin(r);
    execute_io(r);
}

}  // namespace varve::targets::nvmf
