#include "env/sim/disk/media.h"

#include <algorithm>
#include <set>

#include "util/assert.h"

namespace varve::env::sim {

// The sectors of a range, as they are now, are new versions in the cache.
void media::note_versions(uint64_t operation, uint64_t offset, uint64_t length) {
    uint64_t completion = ++_completions;
    uint64_t end = (offset + length + sector_size - 1) / sector_size;
    for (uint64_t n = offset / sector_size; n < end; ++n) {
        uint64_t at = n * sector_size;
        version v{.operation = operation, .completion = completion};
        if (_current.has_chunk(at)) {
            v.contents = std::make_unique<sector>();
            _current.read(at, *v.contents);
        }
        _dirty[n].push_back(std::move(v));
    }
}

void media::write(uint64_t operation, uint64_t offset, std::span<const std::byte> from) {
    _current.write(offset, from);
    if (_volatile_cache) {
        note_versions(operation, offset, from.size());
    } else {
        ++_completions;
        _durable.write(offset, from);
    }
}

void media::write_under_way(uint64_t operation, uint64_t offset, std::span<const std::byte> from) {
    _current.write(offset, from);
    note_versions(operation, offset, from.size());
}

void media::zero(uint64_t operation, uint64_t offset, uint64_t length) {
    do_zero(operation, offset, length, _volatile_cache);
}

void media::zero_under_way(uint64_t operation, uint64_t offset, uint64_t length) {
    do_zero(operation, offset, length, true);
}

void media::do_zero(uint64_t operation, uint64_t offset, uint64_t length, bool cached) {
    uint64_t end = offset + length;
    // Huge ranges of nothing are the common case: visit what has contents only.
    for (uint64_t at = offset; at < end;) {
        uint64_t chunk_end = std::min(end, (at / image::chunk_size + 1) * image::chunk_size);
        auto dirty = _dirty.lower_bound(at / sector_size);
        uint64_t next = std::min({_current.next_chunk(at), _durable.next_chunk(at),
                                  dirty == _dirty.end() ? UINT64_MAX : dirty->first * sector_size});
        if (next >= end && next > at) break;
        if (next >= chunk_end) {
            at = next;
            continue;
        }
        _current.zero(at, chunk_end - at);
        if (cached) {
            note_versions(operation, at, chunk_end - at);
        } else {
            _durable.zero(at, chunk_end - at);
        }
        at = chunk_end;
    }
    ++_completions;
}

namespace {
// Calls f(offset, length) for some of the units of a range, at least one left out or done where there are several.
template <class F>
void for_some(uint64_t offset, uint64_t length, uint64_t unit, rng& chance, F f) {
    uint64_t one_in = chance.between<uint64_t>(2, 8);
    bool rarely = chance.coin();
    for (uint64_t at = offset, end = offset + length; at < end;) {
        uint64_t n = std::min(end, (at / unit + 1) * unit) - at;
        if (chance.one_in(one_in) == rarely) f(at, n);
        at += n;
    }
}
}  // namespace

void media::write_partly(uint64_t operation, uint64_t offset, std::span<const std::byte> from, rng& chance) {
    for_some(offset, from.size(), _tear_unit, chance,
             [&](uint64_t at, uint64_t n) { write(operation, at, from.subspan(at - offset, n)); });
}

void media::zero_partly(uint64_t operation, uint64_t offset, uint64_t length, rng& chance) {
    // Whole runs of a huge range: the unit grows with it.
    uint64_t unit = std::max<uint64_t>(_tear_unit, length / 64 / _tear_unit * _tear_unit);
    for_some(offset, length, unit, chance, [&](uint64_t at, uint64_t n) { zero(operation, at, n); });
}

void media::flush(uint64_t completions) {
    for (auto it = _dirty.begin(); it != _dirty.end();) {
        auto& versions = it->second;
        auto first_kept = std::ranges::find_if(versions, [&](const version& v) { return v.completion > completions; });
        if (first_kept != versions.begin()) {
            const version& last = *std::prev(first_kept);
            if (last.contents) {
                _durable.write(it->first * sector_size, *last.contents);
            } else {
                _durable.zero(it->first * sector_size, sector_size);
            }
            versions.erase(versions.begin(), first_kept);
        }
        it = versions.empty() ? _dirty.erase(it) : std::next(it);
    }
}

void media::forget() {
    for (const auto& [number, versions] : _dirty) {
        sector before;
        _durable.read(number * sector_size, before);
        _current.write(number * sector_size, before);
    }
    _dirty.clear();
}

// fate_of(operation) says what becomes of it.
template <class F>
void media::leave(F fate_of, rng& chance) {
    std::map<std::pair<uint64_t, uint64_t>, bool> survived;  // (operation, unit)
    for (auto& [number, versions] : _dirty) {
        for (const version& v : versions) {
            write_fate f = fate_of(v.operation);
            if (f == write_fate::torn) {
                auto [at, fresh] = survived.try_emplace({v.operation, number * sector_size / _tear_unit}, false);
                if (fresh) at->second = chance.coin();
                f = at->second ? write_fate::kept : write_fate::lost;
            }
            if (f == write_fate::lost) continue;
            if (v.contents) {
                _durable.write(number * sector_size, *v.contents);
            } else {
                _durable.zero(number * sector_size, sector_size);
            }
        }
    }
    _dirty.clear();
    _current = _durable.clone();
}

void media::cut_power(cut_outcome how, rng& chance) {
    std::map<uint64_t, write_fate> fates;  // of operations
    auto fate_of = [&](uint64_t operation) {
        auto [at, fresh] = fates.try_emplace(operation, write_fate::lost);
        if (!fresh) return at->second;
        switch (how) {
            case cut_outcome::lose_all:
                at->second = write_fate::lost;
                break;
            case cut_outcome::keep_all:
                at->second = write_fate::kept;
                break;
            case cut_outcome::tear_all:
                at->second = write_fate::torn;
                break;
            case cut_outcome::drawn:
                at->second = static_cast<write_fate>(chance.below(3));
                break;
        }
        return at->second;
    };
    leave(fate_of, chance);
}

void media::cut_power(std::span<const write_fate> fates, rng& chance) {
    const std::vector<uint64_t> all = unflushed();
    VARVE_ASSERT(fates.size() == all.size());
    leave(
        [&](uint64_t operation) {
            return fates[static_cast<std::size_t>(std::ranges::lower_bound(all, operation) - all.begin())];
        },
        chance);
}

std::vector<uint64_t> media::unflushed() const {
    std::set<uint64_t> operations;
    for (const auto& [number, versions] : _dirty) {
        for (const version& v : versions) operations.insert(v.operation);
    }
    return {operations.begin(), operations.end()};
}

media media::clone() const {
    media copy(_volatile_cache, _tear_unit);
    copy._completions = _completions;
    copy._current = _current.clone();
    copy._durable = _durable.clone();
    for (const auto& [number, versions] : _dirty) {
        for (const version& v : versions) {
            copy._dirty[number].push_back(
                {v.operation, v.completion, v.contents ? std::make_unique<sector>(*v.contents) : nullptr});
        }
    }
    return copy;
}

void media::flip(uint64_t offset, unsigned bit) {
    _current.flip(offset, bit);
    _durable.flip(offset, bit);
    if (auto found = _dirty.find(offset / sector_size); found != _dirty.end()) {
        for (version& v : found->second) {
            if (!v.contents) v.contents = std::make_unique<sector>();
            (*v.contents)[offset % sector_size] ^= std::byte{1} << (bit % 8);
        }
    }
}

void media::truncate(uint64_t size) {
    // A change of size is taken to be durable at once (its metadata is journalled); contents beyond are gone.
    uint64_t first_gone = (size + sector_size - 1) / sector_size;
    _dirty.erase(_dirty.lower_bound(first_gone), _dirty.end());
    uint64_t beyond = UINT64_MAX - size;
    _current.zero(size, beyond);
    _durable.zero(size, beyond);
}

}  // namespace varve::env::sim
