// An array in which only those pieces take memory that anything was put into: what a super block says of its store's
// size costs nothing, whoever wrote it.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "util/assert.h"

namespace varve {

template <class T>
class sparse {
  public:
    sparse() = default;
    explicit sparse(uint64_t size) : _pieces((size + per_piece - 1) / per_piece), _size(size) {}

    uint64_t size() const noexcept { return _size; }
    void grow(uint64_t size) {
        VARVE_ASSERT(size >= _size);
        _pieces.resize((size + per_piece - 1) / per_piece);
        _size = size;
    }
    // Null: nothing was put there, or into its piece.
    const T* find(uint64_t i) const noexcept {
        if (i >= _size || !_pieces[i / per_piece]) return nullptr;
        return &(*_pieces[i / per_piece])[i % per_piece];
    }
    T get(uint64_t i) const noexcept {
        const T* found = find(i);
        return found == nullptr ? T{} : *found;
    }
    T& operator[](uint64_t i) {
        VARVE_ASSERT(i < _size);
        auto& piece = _pieces[i / per_piece];
        if (!piece) piece = std::make_unique<std::array<T, per_piece>>();
        return (*piece)[i % per_piece];
    }
    // The first index from `i` on in a piece that there is; size() when there is none.
    uint64_t next(uint64_t i) const noexcept {
        for (; i < _size && !_pieces[i / per_piece];) i = (i / per_piece + 1) * per_piece;
        return i < _size ? i : _size;
    }

  private:
    static constexpr std::size_t per_piece = 512;
    std::vector<std::unique_ptr<std::array<T, per_piece>>> _pieces;
    uint64_t _size = 0;
};

}  // namespace varve
