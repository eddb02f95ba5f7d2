#include "blob/space.h"

#include <algorithm>

namespace varve::blob {

space::space(uint32_t first_data_cluster, uint32_t clusters, uint32_t pages)
    : _used(clusters),
      _clean(clusters),
      _pages(pages),
      _first(first_data_cluster),
      _next_cluster(first_data_cluster),
      _next_unclean(first_data_cluster) {
    for (uint32_t c = 0; c < first_data_cluster; ++c) _used.set(c);
}

bool space::claim_cluster(uint32_t c) noexcept {
    _clean.clear(c);
    return _used.set(c);
}

uint32_t space::take_cluster(bool& clean) noexcept {
    uint64_t c = _clean.next_set(_next_cluster);
    if (c == bitmap::none) c = _clean.next_set(0);
    clean = c != bitmap::none;
    if (!clean) c = _used.next_clear(_next_cluster);
    if (c == bitmap::none) c = _used.next_clear(0);
    if (c == bitmap::none) return 0;
    _used.set(c);
    _clean.clear(c);
    _next_cluster = static_cast<uint32_t>(c + 1);
    return static_cast<uint32_t>(c);
}

void space::free_cluster(uint32_t c, bool clean) noexcept {
    VARVE_ASSERT(c >= _first);
    bool was_used = _used.clear(c);
    VARVE_ASSERT(was_used);
    if (clean) _clean.set(c);
    _next_cluster = std::min(_next_cluster, c);
    _next_unclean = std::min(_next_unclean, c);
}

void space::grow(uint32_t clusters) {
    _used.resize(clusters);
    _clean.resize(clusters);
}

cluster_range space::take_unclean(uint32_t at_most) noexcept {
    uint64_t at = _next_unclean;
    while ((at = _used.next_clear(at)) != bitmap::none && _clean.test(at)) ++at;
    if (at == bitmap::none) return {};
    cluster_range r{static_cast<uint32_t>(at), 0};
    while (r.count < at_most && at < _used.size() && !_used.test(at) && !_clean.test(at)) {
        _used.set(at++);
        ++r.count;
    }
    _next_unclean = static_cast<uint32_t>(at);
    _in_hand += r.count;
    return r;
}

void space::give_back(cluster_range r, bool clean) noexcept {
    for (uint32_t c = r.first; c < r.first + r.count; ++c) {
        _used.clear(c);
        if (clean) _clean.set(c);
    }
    _in_hand -= r.count;
}

uint32_t space::take_page(uint32_t from) noexcept {
    uint64_t p = _pages.next_clear(from);
    if (p == bitmap::none) return UINT32_MAX;
    _pages.set(p);
    return static_cast<uint32_t>(p);
}

void space::free_page(uint32_t p) noexcept {
    bool was_used = _pages.clear(p);
    VARVE_ASSERT(was_used);
}

}  // namespace varve::blob
