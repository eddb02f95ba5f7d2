#include "bdev/core/split.h"

#include "bdev/core/channel_core.h"

namespace varve::bdev {

namespace {
bool carries_data(op o) noexcept { return o == op::read || o == op::write || o == op::compare; }
}  // namespace

splitter::~splitter() { VARVE_ASSERT(_waiting.empty()); }

void splitter::split(io& r) noexcept {
    if (_all == nullptr) {
        _all = std::make_unique<std::array<fan_out, parallel_requests>>();
        for (fan_out& f : *_all) {
            f.owner = this;
            for (part& p : f.parts) p.of = &f;
            _free.push(f);
        }
    }
    fan_out* f = _free.pop();
    if (f == nullptr) return _waiting.push(r);
    take(*f, r);
    go_on(*f);
}

void splitter::take(fan_out& f, io& r) noexcept {
    f.whole = &r;
    f.lba = r.lba;
    f.left = r.blocks;
    f.outcome = status::ok;
    f.free_parts = all_free;
    f.metadata = static_cast<std::byte*>(r.metadata);
    if (r.operation == op::copy) {
        f.source = r.source_lba;
    } else if (carries_data(r.operation)) {
        f.memory = iov_cursor(r.iov, r.iov_count);
    }
}

// Hands out parts as far as there are any; when nothing is left and nothing is out, the whole is done and the next
// request that waits takes its place.
void splitter::go_on(fan_out& f) noexcept {
    for (;;) {
        while (f.left > 0 && f.free_parts != 0 && f.outcome == status::ok) {
            auto index = static_cast<unsigned>(__builtin_ctz(f.free_parts));
            part& p = f.parts[index];
            if (!cut(f, p)) {
                f.outcome = status::invalid;  // less memory than blocks
                break;
            }
            f.free_parts &= ~(1u << index);
            _core.hand_down(p.request);
        }
        if (f.free_parts != all_free) return;
        complete_later(*f.whole, f.outcome);
        work* next = _waiting.pop();
        if (next == nullptr) return _free.push(f);
        take(f, static_cast<io&>(*next));
    }
}

bool splitter::cut(fan_out& f, part& p) noexcept {
    const io& whole = *f.whole;
    part_limits limits = _core.limits_of(whole.operation);
    uint32_t blocks = limits.fit(f.lba, f.left);
    io& r = p.request;
    r.operation = whole.operation;
    r.flags = whole.flags;
    r.submitted = whole.submitted;
    r.depth = 0;
    r.lba = f.lba;
    r.metadata = f.metadata;
    if (whole.operation == op::copy) {
        r.source_lba = f.source;
        f.source += blocks;
    } else if (carries_data(whole.operation)) {
        uint32_t segments = limits.segments == 0 ? part_segments : std::min(limits.segments, part_segments);
        iov_cursor before = f.memory;
        uint64_t bytes = uint64_t{blocks} * _core.block_size();
        r.iov = p.iov.data();
        r.iov_count = f.memory.take({p.iov.data(), segments}, bytes);
        blocks = static_cast<uint32_t>(bytes / _core.block_size());
        if (blocks == 0) return false;
        if (bytes % _core.block_size() != 0) {  // the last segment ends inside a block
            bytes = uint64_t{blocks} * _core.block_size();
            f.memory = before;
            r.iov_count = f.memory.take({p.iov.data(), segments}, bytes);
        }
    }
    if (f.metadata != nullptr) f.metadata += std::size_t{blocks} * _core.metadata_size();
    r.blocks = blocks;
    f.lba += blocks;
    f.left -= blocks;
    r.push(part_finished, &p);
    return true;
}

void splitter::part_finished(io& r, void* its_part) noexcept {
    part& p = *static_cast<part*>(its_part);
    fan_out& f = *p.of;
    if (r.status != status::ok && f.outcome == status::ok) f.outcome = r.status;
    f.free_parts |= 1u << (&p - f.parts.data());
    f.owner->go_on(f);
}

}  // namespace varve::bdev
