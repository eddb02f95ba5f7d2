// What `-w verify` has written to each unit of a disk, kept in a file from one run to the next: whether a server that
// was killed meanwhile has kept what it said was safe.
//
// A sector may hold any write of its unit that was issued since the last which a flush made safe. Whether a write whose
// outcome was never told happened is open; but what was there before it and was flushed may not be gone.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "util/result.h"

namespace varve::app::bench {

struct record {
    // Numbers of writes, from 1, by unit. 0: none.
    std::vector<uint64_t> issued, safe;
    // Acknowledged, and in no flush yet: unit and number.
    using writes = std::vector<std::pair<uint64_t, uint64_t>>;
    writes acknowledged;

    explicit record(uint64_t units) : issued(units), safe(units) {}
    void flushed(const writes& these) noexcept {
        for (auto [unit, number] : these) {
            if (safe[unit] < number) safe[unit] = number;
        }
    }
    // errc::invalid: not a record of this many units of `io_size` bytes.
    static result<record> from_text(std::string_view text, uint64_t units, uint32_t io_size);
    std::string to_text(uint32_t io_size) const;
};

}  // namespace varve::app::bench
