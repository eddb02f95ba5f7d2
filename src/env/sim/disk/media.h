// What a disk holds: what is durable, and on top of it a volatile cache of what was written since. A power cut leaves
// of the cache, sector by sector, any of the versions that were written since the last flush, or none.
//
// Sectors are 512 bytes. Operations are numbered by the disk. A version is complete when its write was acknowledged,
// and has its place in the order of completions; one that was under way at the cut has not.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "env/sim/disk/image.h"
#include "env/sim/disk/options.h"
#include "env/sim/rng.h"

namespace varve::env::sim {

class media {
  public:
    static constexpr uint64_t sector_size = 512;

    media(bool volatile_cache, uint32_t tear_unit) noexcept : _volatile_cache(volatile_cache), _tear_unit(tear_unit) {}

    // Reads see every completed write.
    void read(uint64_t offset, std::span<std::byte> to) const { _current.read(offset, to); }
    void write(uint64_t operation, uint64_t offset, std::span<const std::byte> from);
    void zero(uint64_t operation, uint64_t offset, uint64_t length);
    // Only some sectors of a write are done, drawn by chance: a failed or interrupted one.
    void write_partly(uint64_t operation, uint64_t offset, std::span<const std::byte> from, rng& chance);
    void zero_partly(uint64_t operation, uint64_t offset, uint64_t length, rng& chance);

    // Under way when the power goes: what is left of it, cut_power() draws.
    void write_under_way(uint64_t operation, uint64_t offset, std::span<const std::byte> from);
    void zero_under_way(uint64_t operation, uint64_t offset, uint64_t length);

    // A flush promises what had completed by now ...
    uint64_t completions() const noexcept { return _completions; }
    // ... and makes it durable when it completes.
    void flush(uint64_t completions);
    // A flush that failed and gave up the whole cache: what is read is what is durable.
    void forget();
    // After it, what is read is what is durable.
    void cut_power(cut_outcome how, rng& chance);
    // The same, with the fate of each operation of which something is not durable, in the order of unflushed().
    void cut_power(std::span<const write_fate> fates, rng& chance);
    std::vector<uint64_t> unflushed() const;  // their numbers, ascending
    media clone() const;
    // A bit of the medium itself: cache and durable contents.
    void flip(uint64_t offset, unsigned bit);
    void truncate(uint64_t size);

    bool dirty() const noexcept { return !_dirty.empty(); }
    uint64_t bytes_used() const noexcept { return _current.bytes_used(); }
    bool has_chunk(uint64_t offset) const { return _current.has_chunk(offset); }
    const image& durable() const noexcept { return _durable; }

  private:
    using sector = std::array<std::byte, sector_size>;
    struct version {
        uint64_t operation = 0;
        uint64_t completion = 0;
        std::unique_ptr<sector> contents;  // null: zeroes
    };
    template <class F>
    void leave(F fate_of, rng& chance);
    void note_versions(uint64_t operation, uint64_t offset, uint64_t length);
    void do_zero(uint64_t operation, uint64_t offset, uint64_t length, bool cached);

    bool _volatile_cache;
    uint32_t _tear_unit;
    uint64_t _completions = 0;
    image _current;
    image _durable;
    std::map<uint64_t, std::vector<version>> _dirty;  // by sector, oldest version first
};

}  // namespace varve::env::sim
