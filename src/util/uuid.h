// RFC 9562 universally unique identifiers, in the byte order they are written in.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace varve {

struct uuid {
    std::array<uint8_t, 16> bytes{};

    bool is_nil() const noexcept { return bytes == std::array<uint8_t, 16>{}; }
    std::string to_string() const;  // lower case, with hyphens
    // Accepts upper and lower case with hyphens (8-4-4-4-12), nothing else.
    static std::optional<uuid> parse(std::string_view text) noexcept;
    // Version 4 from 128 random bits (env::system::random, so that simulations repeat).
    static uuid from_random(uint64_t high, uint64_t low) noexcept;
    auto operator<=>(const uuid&) const = default;
};

}  // namespace varve
