#include "env/sim/trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

namespace varve::env::sim {

void trace::mix(uint64_t value) noexcept {
    _hash = std::rotl((_hash ^ value) * 0x9e3779b97f4a7c15, 29) + 0x632be59bd9b4e019;
}

void trace::record(time_ns at, const char* what, uint64_t a, uint64_t b, uint64_t c) noexcept {
    mix(static_cast<uint64_t>(at));
    for (const char* letter = what; *letter != 0; ++letter) mix(static_cast<uint8_t>(*letter));
    mix(a);
    mix(b);
    mix(c);
    if (!_kept.empty()) _kept[_count % _kept.size()] = {at, what, a, b, c};
    ++_count;
}

void trace::contents(std::span<const std::byte> bytes) noexcept {
    mix(bytes.size());
    while (!bytes.empty()) {
        uint64_t word = 0;
        std::size_t n = std::min(bytes.size(), sizeof(word));
        std::memcpy(&word, bytes.data(), n);
        mix(word);
        bytes = bytes.subspan(n);
    }
}

void trace::keep(std::size_t entries) {
    _kept.assign(entries, entry{});
    _count = 0;
}

std::string trace::text() const {
    std::string lines;
    std::size_t kept = std::min<uint64_t>(_count, _kept.size());
    for (uint64_t n = _count - kept; n < _count; ++n) {
        const entry& e = _kept[n % _kept.size()];
        lines += fmt::format("{:>14} ns  {:<24} {} {} {}\n", e.at, e.what, e.a, e.b, e.c);
    }
    return lines;
}

}  // namespace varve::env::sim
