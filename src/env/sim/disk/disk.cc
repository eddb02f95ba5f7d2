#include "env/sim/disk/disk.h"

#include <sys/uio.h>

#include <algorithm>
#include <utility>

#include "env/sim/disk/file.h"
#include "env/sim/loop.h"
#include "env/sim/universe.h"
#include "util/assert.h"

namespace varve::env::sim {

namespace {
constexpr uint64_t sector_size = media::sector_size;

// The memory of a read or write, piece by piece: f(bytes from the start, memory).
template <class F>
void for_each_piece(const file_op& op, uint64_t length, F f) {
    uint64_t done = 0;
    for (uint32_t i = 0; i < op.iov_count && done < length; ++i) {
        uint64_t n = std::min<uint64_t>(op.iov[i].iov_len, length - done);
        f(done, std::span(static_cast<std::byte*>(op.iov[i].iov_base), n));
        done += n;
    }
}
uint64_t transfer_length(const file_op& op) {
    if (op.kind == file_op_kind::unmap || op.kind == file_op_kind::write_zeroes) return op.length;
    if (op.kind == file_op_kind::flush) return 0;
    uint64_t total = 0;
    for (uint32_t i = 0; i < op.iov_count; ++i) total += op.iov[i].iov_len;
    return total;
}
std::vector<std::byte> gather(const file_op& op) {
    std::vector<std::byte> bytes(transfer_length(op));
    for_each_piece(op, bytes.size(), [&](uint64_t at, std::span<std::byte> piece) {
        std::ranges::copy(piece, bytes.begin() + static_cast<ptrdiff_t>(at));
    });
    return bytes;
}
bool changes(file_op_kind kind) { return kind != file_op_kind::read && kind != file_op_kind::flush; }
}  // namespace

disk::disk(universe& in, std::string name, uint64_t size, const disk_options& how)
    : _universe(in),
      _name(std::move(name)),
      _size(size),
      _how(how),
      _chance(in.stream("disk " + _name)),
      _media(how.volatile_cache, how.tear_unit) {}

disk::~disk() { VARVE_ASSERT(_in_flight.empty()); }

void disk::resize(uint64_t size) {
    if (size < _size) _media.truncate(size);
    _size = size;
}

void disk::poke(uint64_t offset, std::span<const std::byte> from) {
    _media.write(UINT64_MAX, offset, from);
    _media.flush(_media.completions());
}

void disk::clear_faults() {
    _faults.clear();
    _failing.clear();
}

std::size_t disk::stuck() const noexcept {
    return static_cast<std::size_t>(
        std::ranges::count_if(_in_flight, [](const auto& entry) { return entry.second->stuck; }));
}

void disk::release_stuck() {
    for (auto& [number, o] : _in_flight) {
        if (std::exchange(o->stuck, false)) schedule(*o);
    }
}

void disk::start(file_op& op, loop& home) {
    uint64_t number = _issued++;
    operation& o = *_in_flight.emplace(number, std::make_unique<operation>(*this, op, home, number)).first->second;
    o.completions_before = _media.completions();
    uint64_t length = transfer_length(op);
    _universe.log().record(_universe.now(), "disk start", number, op.offset, length);
    if (_keep_history) _history.push_back({number, op.kind, op.offset, length, 0, false});
    draw_fate(o);
    if (!o.stuck) schedule(o);
    if (number == _cut_at) cut_power(_cut_how);
}

int disk::check(const file_op& op) const {
    const auto& file = static_cast<const disk_file&>(*op.target);
    if (!_powered) return EIO;
    if (changes(op.kind) && file.read_only()) return EBADF;
    if (op.kind == file_op_kind::unmap && !_how.can_unmap) return EOPNOTSUPP;
    uint64_t length = transfer_length(op);
    uint64_t alignment = file.alignment();
    if ((op.kind == file_op_kind::read || op.kind == file_op_kind::write) && alignment > 1) {
        bool aligned = op.offset % alignment == 0 && length % alignment == 0;
        for (uint32_t i = 0; i < op.iov_count; ++i) {
            aligned = aligned && reinterpret_cast<uintptr_t>(op.iov[i].iov_base) % alignment == 0 &&
                      op.iov[i].iov_len % alignment == 0;
        }
        if (!aligned) return EINVAL;
    }
    if (changes(op.kind) && !range_inside(op.offset, length, _size)) return ENOSPC;
    return 0;
}

// Everything that chance or a script decides about an operation is decided when it starts.
void disk::draw_fate(operation& o) {
    const file_op& op = o.op;
    bool flush = op.kind == file_op_kind::flush;
    o.delay = _chance.between(_how.latency_min, flush ? std::max(_how.flush_latency_max, _how.latency_min)
                                                      : std::max(_how.latency_max, _how.latency_min));
    if (_chance.one_in(_how.spike_one_in)) o.delay += _chance.between_log<time_ns>(100 * microseconds, _how.spike_max);
    o.failure = check(op);
    o.refused = o.failure != 0;
    if (_chance.one_in(_how.error_one_in) && o.failure == 0) o.failure = EIO;
    o.flip = op.kind == file_op_kind::read && _chance.one_in(_how.read_flip_one_in);
    o.rot = !flush && _chance.one_in(_how.rot_one_in);
    if (auto found = _failing.find(o.number); found != _failing.end()) o.failure = found->second;
    for (disk_fault& f : _faults) {
        bool touches = flush || (op.offset < f.end && op.offset + std::max<uint64_t>(transfer_length(op), 1) > f.first);
        if (f.times == 0 || !touches || (f.kind && *f.kind != op.kind)) continue;
        if (f.skip > 0) {
            --f.skip;
            continue;
        }
        if (f.times != UINT64_MAX) --f.times;
        switch (f.what) {
            case disk_fault::effect::error:
                o.failure = f.number;
                break;
            case disk_fault::effect::stuck:
                o.stuck = true;
                break;
            case disk_fault::effect::slow:
                o.delay += f.delay;
                break;
            case disk_fault::effect::read_flip:
                o.flip = true;
                break;
            case disk_fault::effect::rot:
                o.rot = true;
                break;
        }
    }
}

void disk::schedule(operation& o) {
    o.event = _universe.after(o.delay, [this, &o] { finish(o); });
}

void disk::finish(operation& o) {
    o.done = true;
    o.op.result = perform(o);
    _universe.log().record(_universe.now(), "disk done", o.number, static_cast<uint64_t>(o.op.result));
    if (_keep_history) {
        for (auto r = _history.rbegin(); r != _history.rend(); ++r) {
            if (r->number != o.number) continue;
            r->result = o.op.result;
            r->completed = true;
            break;
        }
    }
    o.home.make_ready(o);
}

void disk::operation::deliver() noexcept {
    file_op& finished = op;
    loop& from = home;
    on._in_flight.erase(number);  // this
    from.file_op_delivered();
    finished.done(finished);
}

int64_t disk::perform(operation& o) {
    // Asked again: the size, or the power, may have changed meanwhile.
    if (o.failure == 0) {
        o.failure = check(o.op);
        o.refused = o.failure != 0;
    }
    switch (o.op.kind) {
        case file_op_kind::read:
            return read(o);
        case file_op_kind::flush:
            if (o.failure != 0 && !o.refused && _how.failed_flush_forgets) _media.forget();
            if (o.failure != 0) return -o.failure;
            if (!_how.cache_lies) _media.flush(o.completions_before);
            return 0;
        default:
            return change(o);
    }
}

int64_t disk::read(operation& o) {
    file_op& op = o.op;
    if (o.failure != 0) return -o.failure;
    uint64_t length = op.offset >= _size ? 0 : std::min(transfer_length(op), _size - op.offset);
    if (o.rot && length > 0) _media.flip(op.offset + _chance.below(length), static_cast<unsigned>(_chance.below(8)));
    for_each_piece(op, length, [&](uint64_t at, std::span<std::byte> piece) {
        _media.read(op.offset + at, piece);
        _universe.log().contents(piece);
    });
    // A write under way may be seen in part.
    for (auto& [number, other] : _in_flight) {
        const file_op& w = other->op;
        if (other->done || other->failure != 0 || w.kind != file_op_kind::write || !_chance.one_in(2)) continue;
        uint64_t from = std::max(w.offset, op.offset);
        uint64_t to = std::min(w.offset + transfer_length(w), op.offset + length);
        if (from >= to || _chance.coin()) continue;
        std::vector<std::byte> bytes = gather(w);
        for_each_piece(op, length, [&](uint64_t at, std::span<std::byte> piece) {
            for (uint64_t i = 0; i < piece.size(); ++i) {
                uint64_t where = op.offset + at + i;
                if (where >= from && where < to && (where / sector_size + number) % 2 == 0) {
                    piece[i] = bytes[where - w.offset];
                }
            }
        });
    }
    if (o.flip && length > 0) flip_in_memory(op, length);
    return static_cast<int64_t>(length);
}

void disk::flip_in_memory(const file_op& op, uint64_t length) {
    uint64_t where = _chance.below(length);
    std::byte bit = std::byte{1} << _chance.below(8);
    for_each_piece(op, length, [&](uint64_t at, std::span<std::byte> piece) {
        if (where >= at && where < at + piece.size()) piece[where - at] ^= bit;
    });
}

bool disk::fits(const file_op& op) const {
    if (_space == UINT64_MAX || op.kind == file_op_kind::unmap) return true;
    uint64_t needed = 0;
    for (uint64_t at = op.offset / image::chunk_size * image::chunk_size; at < op.offset + transfer_length(op);
         at += image::chunk_size) {
        if (!_media.has_chunk(at)) needed += image::chunk_size;
    }
    return needed == 0 || _media.bytes_used() + needed <= _space;
}

int64_t disk::change(operation& o) {
    const file_op& op = o.op;
    uint64_t length = transfer_length(op);
    bool in_part = o.failure == EIO && !o.refused && check(op) == 0;
    if (o.failure == 0 && !fits(op)) o.failure = ENOSPC;
    if (o.failure != 0 && !in_part) return -o.failure;
    if (op.kind == file_op_kind::write) {
        std::vector<std::byte> bytes = gather(op);
        _universe.log().contents(bytes);
        if (in_part) {
            _media.write_partly(o.number, op.offset, bytes, _chance);
        } else {
            _media.write(o.number, op.offset, bytes);
        }
    } else if (in_part) {
        _media.zero_partly(o.number, op.offset, length, _chance);
    } else {
        _media.zero(o.number, op.offset, length);
    }
    if (o.rot && length > 0) _media.flip(op.offset + _chance.below(length), static_cast<unsigned>(_chance.below(8)));
    return o.failure != 0 ? -o.failure : static_cast<int64_t>(length);
}

// The power goes while it is under way.
void disk::interrupt(operation& o) {
    const file_op& op = o.op;
    if (changes(op.kind) && o.failure == 0 && check(op) == 0) {
        if (op.kind == file_op_kind::write) {
            _media.write_under_way(o.number, op.offset, gather(op));
        } else {
            _media.zero_under_way(o.number, op.offset, op.length);
        }
    }
    _universe.cancel(o.event);
    o.failure = EIO;
    o.refused = true;
    o.stuck = false;
    o.delay = _chance.between<time_ns>(microseconds, 100 * microseconds);
}

void disk::cut_power(cut_outcome how) {
    if (!_powered) return;
    _universe.log().record(_universe.now(), "power cut", _issued, static_cast<uint64_t>(how));
    _cut_at = UINT64_MAX;
    std::vector<operation*> under_way;
    for (auto& [number, o] : _in_flight) {
        if (!o->done) under_way.push_back(o.get());
    }
    for (std::size_t i = under_way.size(); i > 1; --i) std::swap(under_way[i - 1], under_way[_chance.below(i)]);
    for (operation* o : under_way) interrupt(*o);
    if (_keep_cuts) _before_cut = _media.clone();
    _media.cut_power(how, _chance);
    _powered = false;
    for (operation* o : under_way) schedule(*o);
    if (auto then = std::exchange(_after_cut, nullptr)) then();
}

void disk::cut_otherwise(const media& before, std::span<const write_fate> fates) {
    restore(before);
    _media.cut_power(fates, _chance);
    _powered = false;
}

void disk::restore(const media& contents) {
    VARVE_ASSERT(_in_flight.empty());
    _media = contents.clone();
}

void disk::cut_power_at(uint64_t number, cut_outcome how, std::move_only_function<void()> then) {
    _cut_at = number;
    _cut_how = how;
    _after_cut = std::move(then);
}

}  // namespace varve::env::sim
