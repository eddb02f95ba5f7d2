// What of a store is free: clusters, and pages of the metadata region. In memory only; what metadata names decides, and
// load() counts it again. Store's thread.
//
// A free cluster is clean when it is known to hold zeroes. Clean ones are handed out first, so that whoever gets one
// need not clear it; the trimmer makes them (discard.cc), except of those that are to be left as they are. One is stale
// when somebody may have left something there and nobody has cleared it: a store that is unloaded has none.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "util/bitmap.h"

namespace varve::blob {

enum class cluster_state : uint8_t { unclean, clean, left };

struct cluster_range {
    uint32_t first = 0, count = 0;
};

class space {
  public:
    space(uint32_t first_data_cluster, uint32_t clusters, uint32_t pages);

    uint32_t cluster_count() const noexcept { return static_cast<uint32_t>(_used.size()); }
    uint32_t data_clusters() const noexcept { return cluster_count() - _first; }
    // Those the trimmer has in hand count as free.
    uint32_t free_clusters() const noexcept { return static_cast<uint32_t>(_used.size() - _used.count()) + _in_hand; }
    uint32_t clean_clusters() const noexcept { return static_cast<uint32_t>(_clean.count()); }
    bool cluster_used(uint32_t c) const noexcept { return _used.test(c); }
    bool cluster_clean(uint32_t c) const noexcept { return _clean.test(c); }
    // For load: false when it has an owner already.
    bool claim_cluster(uint32_t c) noexcept;
    // The lowest that is clean, if there is one, or the lowest; 0 when there is none.
    uint32_t take_cluster(bool& clean) noexcept;
    void free_cluster(uint32_t c, cluster_state as = cluster_state::unclean) noexcept;
    // At least `clusters` of them are free, not counting those the trimmer has.
    bool has_clusters(uint64_t clusters) const noexcept { return _used.size() - _used.count() >= clusters; }
    void grow(uint32_t clusters);

    // Every free cluster that is neither clean nor left is stale: nobody knows what there is.
    void all_are_stale() noexcept;
    // For the trimmer: takes the next run of free clusters that are neither clean nor left, or of them those that are
    // stale; empty when there is none.
    cluster_range take_unclean(uint32_t at_most) noexcept;
    cluster_range take_stale(uint32_t at_most) noexcept;
    bool has_stale() const noexcept { return _stale.count() != 0; }
    // Those of the range that are free.
    void are_clean(cluster_range r) noexcept;
    // Those that were are stale.
    void none_is_clean() noexcept;
    void give_back(cluster_range r, bool clean) noexcept;
    bool in_hand() const noexcept { return _in_hand != 0; }

    uint32_t page_count() const noexcept { return static_cast<uint32_t>(_pages.size()); }
    uint32_t free_pages() const noexcept { return static_cast<uint32_t>(_pages.size() - _pages.count()); }
    bool page_used(uint32_t p) const noexcept { return _pages.test(p); }
    bool claim_page(uint32_t p) noexcept { return _pages.set(p); }
    uint32_t take_page(uint32_t from = 0) noexcept;  // not below `from`; UINT32_MAX: none
    void free_page(uint32_t p) noexcept;

  private:
    bool wants_trim(uint64_t c) const noexcept { return !_used.test(c) && !_clean.test(c) && !_left.test(c); }
    template <class Wanted>
    cluster_range take_run(uint64_t from, uint32_t at_most, Wanted wanted) noexcept;
    void not_free_any_more(uint32_t c) noexcept;

    bitmap _used, _clean, _left, _stale, _pages;
    const uint32_t _first;
    // None before: free, clean, neither used nor clean. Without, taking many one by one would search from the start.
    uint32_t _next_free, _next_clean, _next_unclean;
    uint32_t _in_hand = 0;
};

// Pages and clusters that were taken for something which may still fail: gives them back unless told to keep them.
class taken {
  public:
    explicit taken(space& of) noexcept : _of(&of) {}
    taken(taken&& other) noexcept
        : _of(other._of), _pages(std::move(other._pages)), _clusters(std::move(other._clusters)) {
        other.keep();
    }
    taken& operator=(taken&&) = delete;
    ~taken() {
        for (uint32_t p : _pages) _of->free_page(p);
        for (uint32_t c : _clusters) _of->free_cluster(c);
    }
    void add_page(uint32_t p) { _pages.push_back(p); }
    void add_cluster(uint32_t c) { _clusters.push_back(c); }
    void take_over(taken&& other) {
        _pages.insert(_pages.end(), other._pages.begin(), other._pages.end());
        _clusters.insert(_clusters.end(), other._clusters.begin(), other._clusters.end());
        other.keep();
    }
    void keep() noexcept {
        _pages.clear();
        _clusters.clear();
    }

  private:
    space* _of;
    std::vector<uint32_t> _pages, _clusters;
};

}  // namespace varve::blob
