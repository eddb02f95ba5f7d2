// What happened, in order: a running hash over everything (two runs of one seed must agree in it) and the last entries
// in clear, printed when a simulation stalls or a test asks. Nothing that depends on an address may be recorded.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "util/units.h"

namespace varve::env::sim {

class trace {
  public:
    // `what` is a literal; its text is hashed, not its address.
    struct entry {
        time_ns at = 0;
        const char* what = "";
        uint64_t a = 0, b = 0, c = 0;
    };

    void record(time_ns at, const char* what, uint64_t a = 0, uint64_t b = 0, uint64_t c = 0) noexcept;
    // Contents that passed (bytes delivered, bytes read): hashed only.
    void contents(std::span<const std::byte> bytes) noexcept;

    uint64_t hash() const noexcept { return _hash; }
    uint64_t count() const noexcept { return _count; }
    // How many of the last entries are kept for text() from now on (256 if not said). Starts an empty ring.
    void keep(std::size_t entries);
    // The entries kept, oldest first, one per line.
    std::string text() const;

  private:
    void mix(uint64_t value) noexcept;

    uint64_t _hash = 0x6a09e667f3bcc908;
    uint64_t _count = 0;
    std::vector<entry> _kept = std::vector<entry>(256);  // a ring; entry n lies at n % size
};

}  // namespace varve::env::sim
