// What each 512-byte sector of a part of a disk may hold. A sector's contents are made from its address and a
// generation, 0 for never written, so that what is read says which write it came from.
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "util/units.h"

namespace varve::sim {

class ledger {
  public:
    static constexpr std::size_t sector_size = 512;

    ledger(uint64_t first, uint64_t sectors) : _first(first), _sectors(sectors) {}
    uint64_t first() const noexcept { return _first; }
    uint64_t sectors() const noexcept { return _sectors.size(); }

    // A write of one generation: submitted; then perhaps known to have succeeded. Unless it is, it may or may not have
    // been done, each sector for itself.
    void write_submitted(uint64_t lba, uint64_t count, uint64_t generation) {
        for (sector& s : range(lba, count)) {
            s.now.insert(generation);
            s.after_cut.insert(generation);
        }
    }
    void write_succeeded(uint64_t lba, uint64_t count, uint64_t generation) {
        for (sector& s : range(lba, count)) s.now = {generation};
    }
    // A flush that was submitted when nothing else was under way.
    void flush_succeeded() {
        for (sector& s : _sectors) s.after_cut = s.now;
    }
    void power_was_cut() {
        for (sector& s : _sectors) s.now = s.after_cut;
    }
    // What was read. The first sector that holds what it may not; nothing when all is well.
    std::optional<uint64_t> check_read(uint64_t lba, std::span<const std::byte> bytes) {
        for (uint64_t n = 0; n < bytes.size() / sector_size; ++n) {
            auto found = generation_of(lba + n, bytes.subspan(n * sector_size, sector_size));
            sector& s = _sectors[lba + n - _first];
            if (!found || !s.now.contains(*found)) return lba + n;
            s.now = {*found};
        }
        return std::nullopt;
    }

    static void fill(uint64_t lba, std::span<std::byte> bytes, uint64_t generation) {
        for (uint64_t n = 0; n < bytes.size() / sector_size; ++n) {
            for (uint64_t word = 0; word < words; ++word) {
                uint64_t value = word_of(lba + n, generation, word);
                std::memcpy(bytes.data() + n * sector_size + word * 8, &value, 8);
            }
        }
    }

  private:
    static constexpr uint64_t words = sector_size / 8;
    struct sector {
        std::set<uint64_t> now{0}, after_cut{0};
    };

    std::span<sector> range(uint64_t lba, uint64_t count) { return std::span(_sectors).subspan(lba - _first, count); }
    static uint64_t word_of(uint64_t lba, uint64_t generation, uint64_t word) noexcept {
        if (generation == 0) return 0;
        if (word == 0) return generation;
        return (generation * 0x9e3779b97f4a7c15 + lba) * 0xbf58476d1ce4e5b9 + word;
    }
    static std::optional<uint64_t> generation_of(uint64_t lba, std::span<const std::byte> bytes) noexcept {
        uint64_t generation = 0;
        std::memcpy(&generation, bytes.data(), 8);
        for (uint64_t word = 0; word < words; ++word) {
            uint64_t value = 0;
            std::memcpy(&value, bytes.data() + word * 8, 8);
            if (value != word_of(lba, generation, word)) return std::nullopt;
        }
        return generation;
    }

    const uint64_t _first;
    std::vector<sector> _sectors;
};

}  // namespace varve::sim
