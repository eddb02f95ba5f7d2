// The only source of chance in a simulation: xoshiro256** from a 64-bit seed. Each part (schedule, every disk, the
// network, every world) forks its own stream by name, so that one part drawing more does not change the others.
#pragma once

#include <bit>
#include <cstdint>
#include <string_view>

#include "util/assert.h"

namespace varve::env::sim {

class rng {
  public:
    explicit rng(uint64_t seed) noexcept {
        for (uint64_t& word : _state) word = mix(seed += 0x9e3779b97f4a7c15);
    }

    uint64_t next() noexcept {
        uint64_t drawn = std::rotl(_state[1] * 5, 7) * 9;
        uint64_t t = _state[1] << 17;
        _state[2] ^= _state[0];
        _state[3] ^= _state[1];
        _state[1] ^= _state[2];
        _state[0] ^= _state[3];
        _state[2] ^= t;
        _state[3] = std::rotl(_state[3], 45);
        return drawn;
    }
    // In [0, n). The bias of a modulus does not matter here; that it is the same on every machine does.
    uint64_t below(uint64_t n) noexcept {
        VARVE_ASSERT(n > 0);
        return next() % n;
    }
    // In [low, high].
    template <class T>
    T between(T low, T high) noexcept {
        VARVE_ASSERT(low <= high);
        uint64_t width = static_cast<uint64_t>(high) - static_cast<uint64_t>(low);
        return static_cast<T>(static_cast<uint64_t>(low) + (width == UINT64_MAX ? next() : below(width + 1)));
    }
    // In [low, high], each order of magnitude as likely as the next: small sizes and long waits both occur.
    template <class T>
    T between_log(T low, T high) noexcept {
        VARVE_ASSERT(low > 0 && low <= high);
        int bits = between(std::bit_width(static_cast<uint64_t>(low)), std::bit_width(static_cast<uint64_t>(high)));
        uint64_t first = uint64_t{1} << (bits - 1), last = first | (first - 1);
        uint64_t drawn = between(first, last);
        if (drawn < static_cast<uint64_t>(low)) return low;
        return drawn > static_cast<uint64_t>(high) ? high : static_cast<T>(drawn);
    }
    // True once in n on average; never when n is 0.
    bool one_in(uint64_t n) noexcept { return n != 0 && below(n) == 0; }
    bool coin() noexcept { return (next() & 1) != 0; }

    // An independent stream. Depends on the seed and the name, not on what has been drawn.
    static rng stream(uint64_t seed, std::string_view name) noexcept {
        uint64_t hash = 0xcbf29ce484222325;
        for (char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3;
        return rng(mix(seed ^ hash));
    }

    static uint64_t mix(uint64_t z) noexcept {
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
        z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
        return z ^ (z >> 31);
    }

  private:
    uint64_t _state[4];
};

}  // namespace varve::env::sim
