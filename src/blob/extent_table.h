// Which metadata page holds each extent page of a blob, by index. It takes memory for those that are there: a thin blob
// of 2^28 clusters may have a few of half a million. Store's thread.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "blob/format/record.h"
#include "util/assert.h"

namespace varve::blob {

class extent_table {
  public:
    static constexpr uint32_t none = 0;  // page 0 never is an extent page

    uint64_t size() const noexcept { return _size; }
    uint32_t operator[](uint64_t index) const noexcept {
        const std::size_t at = place_of(index);
        return at < _indices.size() && _indices[at] == index ? _pages[at] : none;
    }
    // The first index from `from` on that has a page; size() when there is none.
    uint64_t next(uint64_t from) const noexcept {
        const std::size_t at = place_of(from);
        return at < _indices.size() ? _indices[at] : _size;
    }
    // The pages that are there, in the order of their indices.
    auto begin() const noexcept { return _pages.begin(); }
    auto end() const noexcept { return _pages.end(); }
    std::size_t pages() const noexcept { return _pages.size(); }
    std::vector<format::extent_page_run> runs() const;

    void set(uint64_t index, uint32_t page);
    void append(uint32_t page, uint64_t count = 1);
    void resize(uint64_t size);
    void clear() noexcept { resize(0); }
    // The same size, without pages.
    void forget_pages() noexcept {
        _indices.clear();
        _pages.clear();
    }

  private:
    std::size_t place_of(uint64_t index) const noexcept {
        if (index < _indices.size() && _indices[index] == index) return index;  // all before it are there
        return static_cast<std::size_t>(std::ranges::lower_bound(_indices, index) - _indices.begin());
    }

    uint64_t _size = 0;
    std::vector<uint64_t> _indices;  // ascending
    std::vector<uint32_t> _pages;    // of each of these
};

inline void extent_table::set(uint64_t index, uint32_t page) {
    VARVE_ASSERT(index < _size);
    const std::size_t at = place_of(index);
    const auto offset = static_cast<std::ptrdiff_t>(at);
    const bool there = at < _indices.size() && _indices[at] == index;
    if (there && page != none) {
        _pages[at] = page;
    } else if (there) {
        _indices.erase(_indices.begin() + offset);
        _pages.erase(_pages.begin() + offset);
    } else if (page != none) {
        _indices.insert(_indices.begin() + offset, index);
        _pages.insert(_pages.begin() + offset, page);
    }
}

inline void extent_table::append(uint32_t page, uint64_t count) {
    for (uint64_t i = 0; i < count && page != none; ++i) {
        _indices.push_back(_size + i);
        _pages.push_back(page);
    }
    _size += count;
}

inline void extent_table::resize(uint64_t size) {
    const std::size_t kept = size < _size ? place_of(size) : _indices.size();
    _indices.resize(kept);
    _pages.resize(kept);
    _size = size;
}

inline std::vector<format::extent_page_run> extent_table::runs() const {
    std::vector<format::extent_page_run> out;
    uint64_t at = 0;
    auto hole = [&](uint64_t until) {
        for (uint64_t left = until - at; left > 0;) {
            const uint32_t here = static_cast<uint32_t>(std::min<uint64_t>(left, UINT32_MAX));
            out.push_back({none, here});
            left -= here;
        }
    };
    for (std::size_t i = 0; i < _pages.size(); ++i) {
        hole(_indices[i]);
        out.push_back({_pages[i], 1});
        at = _indices[i] + 1;
    }
    hole(_size);
    return out;
}

}  // namespace varve::blob
