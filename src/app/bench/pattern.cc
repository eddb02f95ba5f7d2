#include "app/bench/pattern.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace varve::app::bench {

namespace {

constexpr std::size_t unit = 512;
constexpr uint64_t magic = 0x76617276652d6f6b;

struct sector {
    uint64_t magic, offset, generation, seed;
    uint64_t body[unit / 8 - 4];
};
static_assert(sizeof(sector) == unit);

// A word of the body: depends on everything, so that half a sector of another generation shows.
uint64_t word(uint64_t offset, uint64_t generation, uint64_t seed, std::size_t index) noexcept {
    uint64_t x = (offset ^ generation * 0x9e3779b97f4a7c15 ^ seed) + index * 0xbf58476d1ce4e5b9;
    x ^= x >> 31;
    return x * 0x94d049bb133111eb;
}

}  // namespace

void fill(std::span<std::byte> data, uint64_t offset, uint64_t generation, uint64_t seed) noexcept {
    for (std::size_t at = 0; at + unit <= data.size(); at += unit) {
        sector s{.magic = magic, .offset = offset + at, .generation = generation, .seed = seed, .body = {}};
        for (std::size_t i = 0; i < std::size(s.body); ++i) s.body[i] = word(s.offset, generation, seed, i);
        std::memcpy(data.data() + at, &s, unit);
    }
}

std::optional<std::string> check(std::span<const std::byte> data, uint64_t offset, uint64_t generation, uint64_t seed) {
    return check(data, offset, {generation, generation}, seed);
}

std::optional<std::string> check(std::span<const std::byte> data, uint64_t offset, generations any, uint64_t seed) {
    for (std::size_t at = 0; at + unit <= data.size(); at += unit) {
        sector s;
        std::memcpy(&s, data.data() + at, unit);
        auto wrong = [&](std::string what) { return fmt::format("byte {} of the disk: {}", offset + at, what); };
        if (s.magic != magic || s.seed != seed) {
            bool zeroes = std::ranges::all_of(data.subspan(at, unit), [](std::byte b) { return b == std::byte{}; });
            if (zeroes && any.first == 0) continue;
            return wrong(zeroes ? "zeroes instead of what was written" : "foreign data");
        }
        if (s.offset != offset + at) return wrong(fmt::format("misplaced: this was written to byte {}", s.offset));
        if (s.generation < any.first || s.generation > any.last)
            return wrong(fmt::format("{}: write number {} instead of {}{}",
                                     s.generation < any.first ? "stale" : "from the future", s.generation, any.first,
                                     any.last == any.first ? "" : fmt::format(" to {}", any.last)));
        for (std::size_t i = 0; i < std::size(s.body); ++i)
            if (s.body[i] != word(s.offset, s.generation, seed, i))
                return wrong(fmt::format("torn at byte {} of the sector", 32 + i * 8));
    }
    return std::nullopt;
}

}  // namespace varve::app::bench
