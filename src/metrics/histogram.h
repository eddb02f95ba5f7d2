// Values counted in logarithmic ranges of 2^granularity linear buckets each: relative resolution 2^-granularity.
// Range 0 holds the values below 2^granularity exactly; range r > 0 those whose highest bit is granularity + r - 1.
// The layout (ranges, buckets, clamping) is that of SPDK's bdev_get_histogram, so that its tools read ours.
#pragma once

#include <bit>
#include <cstdint>
#include <span>
#include <vector>

namespace varve::metrics {

class histogram {
  public:
    static constexpr unsigned default_granularity = 7;

    // Values in [min, max) are resolved. granularity is 1..20.
    explicit histogram(unsigned granularity = default_granularity, uint64_t min = 0, uint64_t max = UINT64_MAX);

    void tally(uint64_t v) noexcept { ++_counts[index_of(v)]; }
    void merge(const histogram& other) noexcept;  // of the same shape
    void clear() noexcept;

    unsigned granularity() const noexcept { return _granularity; }
    unsigned min_range() const noexcept { return _min_range; }
    unsigned max_range() const noexcept { return _max_range; }
    std::span<const uint64_t> counts() const noexcept { return _counts; }
    uint64_t total() const noexcept;

    // The values [begin, end) that a bucket of counts() holds; the outermost also hold what lies outside.
    struct bounds {
        uint64_t begin, end;
    };
    bounds bounds_of(std::size_t index) const noexcept;
    // The value that `fraction` of all do not exceed (upper end of its bucket); 0 when empty.
    uint64_t quantile(double fraction) const noexcept;

  private:
    std::size_t index_of(uint64_t v) const noexcept {
        unsigned bits = static_cast<unsigned>(std::bit_width(v));
        unsigned range = bits > _granularity ? bits - _granularity : 0;
        if (range < _min_range) return 0;
        if (range > _max_range) return _counts.size() - 1;
        uint64_t bucket = v >> (range == 0 ? 0 : range - 1) & ((uint64_t{1} << _granularity) - 1);
        return (std::size_t{range - _min_range} << _granularity) + bucket;
    }

    unsigned _granularity, _min_range, _max_range;
    std::vector<uint64_t> _counts;
};

}  // namespace varve::metrics
