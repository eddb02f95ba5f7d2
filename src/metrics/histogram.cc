#include "metrics/histogram.h"

#include <algorithm>
#include <numeric>

#include "util/assert.h"

namespace varve::metrics {

namespace {
unsigned range_of(unsigned granularity, uint64_t v) {
    auto bits = static_cast<unsigned>(std::bit_width(v));
    return bits > granularity ? bits - granularity : 0;
}
}  // namespace

histogram::histogram(unsigned granularity, uint64_t min, uint64_t max)
    : _granularity(granularity), _min_range(range_of(granularity, min)), _max_range(range_of(granularity, max)) {
    VARVE_ASSERT(granularity >= 1 && granularity <= 20 && min <= max);
    _counts.resize(std::size_t{_max_range - _min_range + 1} << granularity);
}

void histogram::merge(const histogram& other) noexcept {
    VARVE_ASSERT(_counts.size() == other._counts.size() && _min_range == other._min_range);
    for (std::size_t i = 0; i < _counts.size(); ++i) _counts[i] += other._counts[i];
}

void histogram::clear() noexcept { std::ranges::fill(_counts, 0); }

uint64_t histogram::total() const noexcept { return std::accumulate(_counts.begin(), _counts.end(), uint64_t{0}); }

histogram::bounds histogram::bounds_of(std::size_t index) const noexcept {
    auto range = static_cast<unsigned>(index >> _granularity) + _min_range;
    uint64_t bucket = index & ((std::size_t{1} << _granularity) - 1);
    if (range == 0) return {bucket, bucket + 1};
    unsigned shift = range - 1;
    uint64_t begin = ((uint64_t{1} << _granularity) + bucket) << shift;
    uint64_t width = uint64_t{1} << shift;
    return {begin, begin > UINT64_MAX - width ? UINT64_MAX : begin + width};
}

uint64_t histogram::quantile(double fraction) const noexcept {
    uint64_t all = total();
    if (all == 0) return 0;
    auto wanted = static_cast<uint64_t>(fraction * static_cast<double>(all));
    wanted = std::clamp<uint64_t>(wanted, 1, all);
    uint64_t so_far = 0;
    for (std::size_t i = 0; i < _counts.size(); ++i) {
        so_far += _counts[i];
        if (so_far >= wanted) return bounds_of(i).end - 1;
    }
    return 0;
}

}  // namespace varve::metrics
