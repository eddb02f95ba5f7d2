#include "blob/space.h"

#include <algorithm>

namespace varve::blob {

space::space(uint32_t first_data_cluster, uint32_t clusters, uint32_t pages)
    : _used(clusters),
      _clean(clusters),
      _left(clusters),
      _stale(clusters),
      _pages(pages),
      _first(first_data_cluster),
      _next_free(first_data_cluster),
      _next_clean(first_data_cluster),
      _next_unclean(first_data_cluster) {
    for (uint32_t c = 0; c < first_data_cluster; ++c) _used.set(c);
}

void space::not_free_any_more(uint32_t c) noexcept {
    _clean.clear(c);
    _left.clear(c);
    _stale.clear(c);
}

bool space::claim_cluster(uint32_t c) noexcept {
    not_free_any_more(c);
    return _used.set(c);
}

uint32_t space::take_cluster(bool& clean) noexcept {
    clean = _clean.count() != 0;
    const uint64_t c = clean ? _clean.next_set(_next_clean) : _used.next_clear(_next_free);
    if (c == bitmap::none) return 0;
    const bool was_free = _used.set(c);
    VARVE_ASSERT(was_free);
    not_free_any_more(static_cast<uint32_t>(c));
    (clean ? _next_clean : _next_free) = static_cast<uint32_t>(c + 1);
    return static_cast<uint32_t>(c);
}

void space::free_cluster(uint32_t c, cluster_state as) noexcept {
    VARVE_ASSERT(c >= _first);
    bool was_used = _used.clear(c);
    VARVE_ASSERT(was_used);
    _next_free = std::min(_next_free, c);
    switch (as) {
        case cluster_state::unclean:
            _stale.set(c);
            _next_unclean = std::min(_next_unclean, c);
            break;
        case cluster_state::clean:
            _clean.set(c);
            _next_clean = std::min(_next_clean, c);
            break;
        case cluster_state::left:
            _left.set(c);
            break;
    }
}

void space::grow(uint32_t clusters) {
    const uint64_t before = _used.size();
    for (bitmap* b : {&_used, &_clean, &_left, &_stale}) b->resize(clusters);
    for (uint64_t c = before; c < clusters; ++c) _stale.set(c);
}

void space::all_are_stale() noexcept {
    for (uint64_t c = _first; (c = _used.next_clear(c)) != bitmap::none; ++c) {
        if (wants_trim(c)) _stale.set(c);
    }
}

void space::are_clean(cluster_range r) noexcept {
    for (uint32_t c = r.first; c < r.first + r.count; ++c) {
        if (_used.test(c)) continue;
        _clean.set(c);
        _left.clear(c);
        _stale.clear(c);
        _next_clean = std::min(_next_clean, c);
    }
}

void space::none_is_clean() noexcept {
    for (uint64_t c = _first; (c = _clean.next_set(c)) != bitmap::none; ++c) {
        _clean.clear(c);
        _stale.set(c);
        _next_unclean = std::min(_next_unclean, static_cast<uint32_t>(c));
    }
}

template <class Wanted>
cluster_range space::take_run(uint64_t from, uint32_t at_most, Wanted wanted) noexcept {
    cluster_range r{static_cast<uint32_t>(from), 0};
    for (uint64_t c = from; r.count < at_most && c < _used.size() && wanted(c); ++c, ++r.count) _used.set(c);
    _in_hand += r.count;
    return r;
}

cluster_range space::take_unclean(uint32_t at_most) noexcept {
    if (_used.size() - _used.count() == _clean.count() + _left.count()) return {};
    uint64_t at = _next_unclean;
    while ((at = _used.next_clear(at)) != bitmap::none && !wants_trim(at)) ++at;
    if (at == bitmap::none) return {};
    cluster_range r = take_run(at, at_most, [this](uint64_t c) { return wants_trim(c); });
    _next_unclean = r.first + r.count;
    return r;
}

cluster_range space::take_stale(uint32_t at_most) noexcept {
    auto wanted = [this](uint64_t c) { return _stale.test(c) && !_used.test(c); };
    uint64_t at = _first;
    while ((at = _stale.next_set(at)) != bitmap::none && !wanted(at)) ++at;
    return at == bitmap::none ? cluster_range() : take_run(at, at_most, wanted);
}

void space::give_back(cluster_range r, bool clean) noexcept {
    for (uint32_t c = r.first; c < r.first + r.count; ++c) {
        _used.clear(c);
        if (!clean) continue;
        _clean.set(c);
        _stale.clear(c);
    }
    _in_hand -= r.count;
    _next_free = std::min(_next_free, r.first);
    if (clean) _next_clean = std::min(_next_clean, r.first);
    if (!clean) _next_unclean = std::min(_next_unclean, r.first);
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
