// Commands by identifier: an array of slots, a stack of free ones. An identifier carries, above the slot's index, a
// count that changes with each use, so that an answer to a command that is over is recognised and not taken for its
// successor's.
#pragma once

#include <bit>
#include <cstdint>
#include <memory>

#include "nvme/host/request.h"
#include "util/assert.h"

namespace varve::nvme::host {

// Slot has the members `request* owner` (null when free) and `uint16_t cid`, and is reset to {} with each use.
template <class Slot>
class cid_table {
  public:
    explicit cid_table(uint16_t size)
        : _size(size),
          _mask(static_cast<uint16_t>(std::bit_ceil(static_cast<unsigned>(size)) - 1)),
          _slots(std::make_unique<Slot[]>(size)),
          _free(std::make_unique<uint16_t[]>(size)) {
        for (uint16_t i = 0; i < size; ++i) {
            _slots[i].cid = i;
            _free[i] = static_cast<uint16_t>(size - 1 - i);
        }
        _free_count = size;
    }

    uint16_t size() const noexcept { return _size; }
    uint16_t available() const noexcept { return _free_count; }
    uint16_t in_use() const noexcept { return static_cast<uint16_t>(_size - _free_count); }

    Slot& acquire(request& owner) noexcept {
        VARVE_ASSERT(_free_count > 0);
        Slot& slot = _slots[_free[--_free_count]];
        // With a table of 65536 the mask takes the whole identifier, and it stays as it is.
        const uint16_t cid = static_cast<uint16_t>(slot.cid + _mask + 1);
        slot = Slot{};
        slot.owner = &owner;
        slot.cid = cid;
        return slot;
    }
    void release(Slot& slot) noexcept {
        slot.owner = nullptr;
        _free[_free_count++] = index_of(slot.cid);
    }
    // The slot a peer's identifier stands for, or null when no such command is under way.
    Slot* find(uint16_t cid) noexcept {
        const uint16_t index = index_of(cid);
        if (index >= _size) return nullptr;
        Slot& slot = _slots[index];
        return slot.cid == cid && slot.owner != nullptr ? &slot : nullptr;
    }
    template <class F>
    void for_each_in_use(F f) {
        for (uint16_t i = 0; i < _size; ++i)
            if (_slots[i].owner != nullptr) f(_slots[i]);
    }

  private:
    uint16_t index_of(uint16_t cid) const noexcept { return cid & _mask; }

    const uint16_t _size;
    const uint16_t _mask;
    uint16_t _free_count = 0;
    std::unique_ptr<Slot[]> _slots;
    std::unique_ptr<uint16_t[]> _free;
};

}  // namespace varve::nvme::host
