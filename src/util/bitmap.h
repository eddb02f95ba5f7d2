// A fixed number of bits, with searches for runs of them.
#pragma once

#include <bit>
#include <cstdint>
#include <vector>

#include "util/assert.h"

namespace varve {

class bitmap {
  public:
    static constexpr uint64_t none = UINT64_MAX;

    explicit bitmap(uint64_t size = 0) : _words((size + 63) / 64), _size(size) {}

    uint64_t size() const noexcept { return _size; }
    uint64_t count() const noexcept { return _count; }  // bits set
    bool test(uint64_t i) const noexcept {
        VARVE_ASSERT(i < _size);
        return (_words[i / 64] >> (i % 64) & 1) != 0;
    }
    // Whether it changed.
    bool set(uint64_t i) noexcept {
        if (test(i)) return false;
        _words[i / 64] |= uint64_t{1} << (i % 64);
        ++_count;
        return true;
    }
    bool clear(uint64_t i) noexcept {
        if (!test(i)) return false;
        _words[i / 64] &= ~(uint64_t{1} << (i % 64));
        --_count;
        return true;
    }
    // New bits are clear; those beyond a smaller size are forgotten.
    void resize(uint64_t size) {
        for (uint64_t i = size; i < _size; ++i) clear(i);
        _words.resize((size + 63) / 64);
        _size = size;
    }

    // The first bit at or after `from` that is set, or clear; `none` when there is none.
    uint64_t next_set(uint64_t from) const noexcept { return next(from, 0); }
    uint64_t next_clear(uint64_t from) const noexcept { return next(from, ~uint64_t{0}); }

    // The 64 bits that begin at 64 * index.
    uint64_t word(uint64_t index) const noexcept { return index < _words.size() ? _words[index] : 0; }

  private:
    uint64_t next(uint64_t from, uint64_t flip) const noexcept {
        if (from >= _size) return none;
        uint64_t index = from / 64;
        uint64_t here = (_words[index] ^ flip) & (~uint64_t{0} << (from % 64));
        while (here == 0) {
            if (++index == _words.size()) return none;
            here = _words[index] ^ flip;
        }
        uint64_t found = index * 64 + static_cast<uint64_t>(std::countr_zero(here));
        return found < _size ? found : none;
    }

    std::vector<uint64_t> _words;
    uint64_t _size;
    uint64_t _count = 0;
};

}  // namespace varve
