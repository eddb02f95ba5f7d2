// Memory for I/O buffers. From hugepages when the machine has reserved some, ordinary pages otherwise; sized by need.
#pragma once

#include <cstddef>
#include <span>
#include <utility>

#include "util/result.h"

namespace varve::env {

class memory;

// Owns one allocation; zeroed when allocated. Any thread may free it.
class buffer {
  public:
    buffer() noexcept = default;
    buffer(memory& from, std::byte* data, std::size_t size) noexcept : _from(&from), _data(data), _size(size) {}
    buffer(buffer&& other) noexcept
        : _from(other._from), _data(std::exchange(other._data, nullptr)), _size(std::exchange(other._size, 0)) {}
    buffer& operator=(buffer&& other) noexcept {
        std::swap(_from, other._from);
        std::swap(_data, other._data);
        std::swap(_size, other._size);
        return *this;
    }
    ~buffer();

    std::byte* data() const noexcept { return _data; }
    std::size_t size() const noexcept { return _size; }
    std::span<std::byte> bytes() const noexcept { return {_data, _size}; }
    // All of the range is about to be written: pages that are not there yet come at once, and not by a trap each. A
    // hint.
    void populate(std::size_t from, std::size_t length) const noexcept;
    explicit operator bool() const noexcept { return _data != nullptr; }

  private:
    memory* _from = nullptr;
    std::byte* _data = nullptr;
    std::size_t _size = 0;
};

class memory {
  public:
    virtual ~memory() = default;
    // `alignment` is a power of two, at least 64 is given. errc::no_memory when there is none. Thread-safe.
    virtual result<buffer> allocate(std::size_t size, std::size_t alignment = 4096) = 0;
    virtual std::size_t bytes_allocated() const noexcept = 0;

  private:
    friend class buffer;
    virtual void free(std::byte* data, std::size_t size) noexcept = 0;
    virtual void populate(std::span<std::byte>) noexcept {}
};

inline void buffer::populate(std::size_t from, std::size_t length) const noexcept {
    _from->populate(bytes().subspan(from, length));
}

inline buffer::~buffer() {
    if (_data != nullptr) _from->free(_data, _size);
}

}  // namespace varve::env
