// Unit types: a block address, a number of blocks and a number of bytes do not mix.
// The hot request (bdev::io) keeps raw integers for layout; everything that computes with client values uses these.
#pragma once

#include <compare>
#include <cstdint>

namespace varve {

struct byte_count {
    uint64_t value = 0;
    auto operator<=>(const byte_count&) const = default;
};

struct block_count {
    uint64_t value = 0;
    auto operator<=>(const block_count&) const = default;
};

struct lba {
    uint64_t value = 0;
    auto operator<=>(const lba&) const = default;
    friend lba operator+(lba at, block_count n) noexcept { return {at.value + n.value}; }
    friend block_count operator-(lba a, lba b) noexcept { return {a.value - b.value}; }
};

// False when the multiplication overflows; for values a client sent.
[[nodiscard]] inline bool checked_multiply(uint64_t a, uint64_t b, uint64_t& product) noexcept {
    return !__builtin_mul_overflow(a, b, &product);
}
// True when [first, first + count) lies inside [0, total), without overflow.
[[nodiscard]] constexpr bool range_inside(uint64_t first, uint64_t count, uint64_t total) noexcept {
    return count <= total && first <= total - count;
}
constexpr bool is_power_of_two(uint64_t value) noexcept { return value != 0 && (value & (value - 1)) == 0; }
constexpr uint64_t round_up(uint64_t value, uint64_t multiple) noexcept {
    return (value + multiple - 1) / multiple * multiple;
}

using time_ns = int64_t;  // a point on the monotonic clock, or a length of time, in nanoseconds
constexpr time_ns microseconds = 1'000, milliseconds = 1'000'000, seconds = 1'000'000'000;

}  // namespace varve
