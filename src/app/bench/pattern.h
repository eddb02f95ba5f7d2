// What `-w verify` writes: every 512 bytes say which they are, so that misplaced, stale and torn data is told apart.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

namespace varve::app::bench {

// Fills `data`, which lies at byte `offset` of the disk, with the pattern of this generation.
void fill(std::span<std::byte> data, uint64_t offset, uint64_t generation, uint64_t seed) noexcept;

// Nothing when `data` is what fill() of the same arguments made; otherwise what is wrong with it, in words.
std::optional<std::string> check(std::span<const std::byte> data, uint64_t offset, uint64_t generation, uint64_t seed);

// The same where each sector may be of any of several generations; 0: zeroes, nothing was written.
struct generations {
    uint64_t first = 0, last = 0;
};
std::optional<std::string> check(std::span<const std::byte> data, uint64_t offset, generations any, uint64_t seed);

}  // namespace varve::app::bench
