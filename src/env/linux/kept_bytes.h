// The bytes a paused connection has received and its handler has not taken yet, in one piece.
#pragma once

#include <cstring>
#include <memory>
#include <span>

namespace varve::env::os_linux {

class kept_bytes {
  public:
    bool empty() const noexcept { return _begin == _end; }
    std::span<const std::byte> view() const noexcept { return {_bytes.get() + _begin, _end - _begin}; }

    void append(std::span<const std::byte> more) {
        if (_capacity - _end < more.size()) make_room(more.size());
        std::memcpy(_bytes.get() + _end, more.data(), more.size());
        _end += more.size();
    }
    void consume(std::size_t count) noexcept {
        _begin += count;
        if (!empty()) return;
        _begin = _end = 0;
        if (_capacity > kept_when_empty) {
            _bytes.reset();
            _capacity = 0;
        }
    }

  private:
    void make_room(std::size_t more) {
        std::size_t held = _end - _begin, wanted = held + more;
        // Half full at most after the move, so that appending stays linear.
        std::size_t capacity = _capacity;
        while (capacity < 2 * wanted) capacity = capacity == 0 ? 512 : capacity * 2;
        auto roomier = std::make_unique_for_overwrite<std::byte[]>(capacity);
        if (held > 0) std::memcpy(roomier.get(), _bytes.get() + _begin, held);
        _bytes = std::move(roomier);
        _capacity = capacity;
        _begin = 0;
        _end = held;
    }

    static constexpr std::size_t kept_when_empty = 16 << 10;
    std::unique_ptr<std::byte[]> _bytes;
    std::size_t _capacity = 0, _begin = 0, _end = 0;
};

}  // namespace varve::env::os_linux
