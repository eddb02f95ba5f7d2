#include "blob/channel.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "blob/store.h"

namespace varve::blob {

using bdev::io;
using bdev::op;
using bdev::status;

namespace {

constexpr uint64_t clusters_sought_at_once = 8192;

// As a power of two.
uint8_t blocks_in_unit(store& s) noexcept {
    return static_cast<uint8_t>(std::countr_zero(s.geometry().io_unit_size / s.base().block_size()));
}

}  // namespace

blob_channel::blob_channel(blob_state& of, bdev::channel_ref base)
    : _slot(of.slot),
      _base(std::move(base)),
      _cluster_blocks(of.owner.geometry().cluster_size / of.owner.geometry().io_unit_size),
      _shift(std::has_single_bit(_cluster_blocks) ? static_cast<uint8_t>(std::countr_zero(_cluster_blocks)) : 0),
      _unit_shift(blocks_in_unit(of.owner)),
      _direct(_unit_shift == 0 ? static_cast<uint8_t>(op::write) + 1 : 0),
      _io_unit(of.owner.geometry().io_unit_size),
      _cached(of.owner.base().device().props().write_cache),
      _blob(of) {}

void blob_channel::do_submit(io& r) noexcept {
    uint64_t index = cluster_of(r.lba);
    const layout& l = *_slot.load(std::memory_order_acquire);
    if (static_cast<uint8_t>(r.operation) < _direct && (r.flags & io::fua) == 0 && index < l.size) [[likely]] {
        uint32_t cluster = l.inside(index);
        if (cluster != no_cluster) [[likely]] {
            r.lba += (uint64_t{cluster} - index) * _cluster_blocks;
            return _base->submit(r);
        }
    }
    uncommon(r, index);
}

void blob_channel::uncommon(io& r, uint64_t index) noexcept {
    if (r.operation == op::flush) return send(r, 0, errand::purpose::flush);
    if (r.operation == op::unmap || r.operation == op::write_zeroes) return zero(r, index);
    if (r.operation == op::seek_data || r.operation == op::seek_hole) {
        return seek(errand_for(r, index, errand::purpose::seek));
    }
    const layout& l = *_slot.load(std::memory_order_acquire);
    if (index >= l.size) return bdev::complete_later(r, status::out_of_range);
    uint32_t cluster = l.at(index);
    if (cluster == no_cluster) return absent(r, index, find_source(&l, index));
    go_down(r, index, cluster);
}

void blob_channel::go_down(io& r, uint64_t index, uint32_t cluster) noexcept {
    r.lba += (uint64_t{cluster} - index) * _cluster_blocks;
    // Where it lies must be safe as well as the data.
    if ((r.flags & io::fua) != 0 && r.operation != op::read &&
        (_cached || _blob.unsaved.load(std::memory_order_acquire))) {
        r.flags &= static_cast<uint8_t>(~io::fua);
        r.push(forced_written, this);
    }
    submit_below(r);
}

void blob_channel::submit_below(io& r) noexcept {
    if (_unit_shift != 0) {
        r.push(back_in_units, this);
        r.lba <<= _unit_shift;
        r.blocks <<= _unit_shift;
    }
    _base->submit(r);
}

void blob_channel::back_in_units(io& r, void* self) noexcept {
    r.blocks >>= static_cast<blob_channel*>(self)->_unit_shift;
    bdev::complete(r);
}

void blob_channel::absent(io& r, uint64_t index, source from) noexcept {
    switch (r.operation) {
        case op::read:
            if (from.cluster != no_cluster) {
                r.lba += (uint64_t{from.cluster} - index) * _cluster_blocks;
                return submit_below(r);
            }
            if (from.external != nullptr) {
                return channel_of(*from.external).read(r, r.lba * _io_unit, uint64_t{r.blocks} * _io_unit);
            }
            {
                std::size_t left = std::size_t{r.blocks} * _io_unit;
                for (uint32_t i = 0; i < r.iov_count && left > 0; ++i) {
                    std::size_t here = std::min(left, r.iov[i].iov_len);
                    std::memset(r.iov[i].iov_base, 0, here);
                    left -= here;
                }
            }
            return bdev::complete_later(r, status::ok);
        default:
            return send(r, index, errand::purpose::cluster);
    }
}

void blob_channel::zero(io& r, uint64_t index) noexcept {
    const layout& l = *_slot.load(std::memory_order_acquire);
    const uint64_t last = cluster_of(r.lba + r.blocks - 1);
    if (last >= l.size) return bdev::complete_later(r, status::out_of_range);
    if (index != last || r.blocks == _cluster_blocks) return send(r, index, errand::purpose::zero);
    if (uint32_t cluster = l.at(index); cluster != no_cluster) return go_down(r, index, cluster);
    if (r.operation == op::write_zeroes && !find_source(&l, index).is_zeroes()) {
        return send(r, index, errand::purpose::cluster);
    }
    // There is nothing of its own to give up; but perhaps only since a moment ago, and the media does not know yet.
    if (_blob.unsaved.load(std::memory_order_acquire)) return send(r, index, errand::purpose::zero);
    bdev::complete_later(r, status::ok);
}

external_channel& blob_channel::channel_of(external_parent& p) {
    for (outside& o : _outside) {
        if (o.parent == &p) return *o.channel;
    }
    return *_outside.emplace_back(&p, p.channel()).channel;
}

void blob_channel::forced_written(io& r, void* self) noexcept {
    auto& me = *static_cast<blob_channel*>(self);
    r.flags |= io::fua;
    if (r.status != status::ok) return bdev::complete(r);
    me.send(r, 0, errand::purpose::flush);
}

// Parents and devices outside count as data where they show. A large map is walked in pieces, with others in between.
void blob_channel::seek(errand& e) noexcept {
    io& r = *e.request;
    const layout& l = *_slot.load(std::memory_order_acquire);
    const bool wants_zeroes = r.operation == op::seek_hole;
    const uint64_t pause = e.index + clusters_sought_at_once;
    while (e.index < l.size && find_source(&l, e.index).is_zeroes() != wants_zeroes) {
        if (++e.index < pause) continue;
        e.run = [](work& w) noexcept {
            auto& it = static_cast<errand&>(w);
            it.from->seek(it);
        };
        return on_thread().defer(e);
    }
    r.found = e.index < l.size ? std::max(r.lba, e.index * _cluster_blocks) : io::nowhere;
    e.next_free = std::exchange(_free, &e);
    bdev::complete_later(r, status::ok);
}

errand& blob_channel::errand_for(io& r, uint64_t index, errand::purpose what) noexcept {
    errand* e = _free;
    if (e == nullptr) {
        e = _errands.emplace_back(std::make_unique<errand>()).get();
        e->from = this;
        e->blob = &_blob;
    } else {
        _free = e->next_free;
    }
    e->request = &r;
    e->index = index;
    e->what = what;
    return *e;
}

void blob_channel::send(io& r, uint64_t index, errand::purpose what) noexcept {
    errand& e = errand_for(r, index, what);
    e.run = [](work& w) noexcept {
        auto& it = static_cast<errand&>(w);
        it.blob->owner.want(it);
    };
    _blob.owner.home().post(e);
}

void blob_channel::come_back(errand& e) noexcept {
    e.run = [](work& w) noexcept {
        auto& it = static_cast<errand&>(w);
        it.from->returned(it);
    };
    on_thread().post(e);
}

void blob_channel::returned(errand& e) noexcept {
    io& r = *e.request;
    status outcome = e.outcome;
    errand::purpose what = e.what;
    e.next_free = std::exchange(_free, &e);
    if (outcome != status::ok || what != errand::purpose::cluster) return bdev::complete(r, outcome);
    do_submit(r);
}

bdev::properties blob_ref::properties(std::string name) const {
    const store& s = _blob->owner;
    const bdev::properties& base = _blob->owner.base().device().props();
    const uint32_t unit = s.geometry().io_unit_size, cluster_blocks = s.geometry().cluster_size / unit;
    bdev::properties p;
    p.name = std::move(name);
    p.block_size = unit;
    p.num_blocks = clusters() * cluster_blocks;
    p.physical_block_size = base.physical_block_size == 0 ? 0 : std::max(base.physical_block_size, unit);
    p.offered = bdev::op_bit(op::read) | bdev::op_bit(op::write) | bdev::op_bit(op::unmap) |
                bdev::op_bit(op::write_zeroes) | bdev::op_bit(op::flush) | bdev::op_bit(op::seek_data) |
                bdev::op_bit(op::seek_hole);
    p.write_cache = base.write_cache;
    p.is_volatile = base.is_volatile;
    p.read_only = read_only();
    p.alignment = base.alignment;
    p.max_segments = base.max_segments;
    // The largest power of two that divides a cluster: a request inside it is inside the cluster.
    p.optimal_io_boundary = cluster_blocks & (~cluster_blocks + 1);
    p.split_on_boundary = true;
    p.zeroing_crosses_boundary = true;
    p.numa_id = base.numa_id;
    p.frames = static_cast<uint8_t>(base.frames + (unit == base.block_size ? 2 : 3));
    return p;
}

std::unique_ptr<bdev::channel> blob_ref::open_channel() const {
    return std::make_unique<blob_channel>(*_blob, _blob->owner.base().open_channel());
}

}  // namespace varve::blob
