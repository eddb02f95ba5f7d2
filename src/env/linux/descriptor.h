// Owns a file descriptor.
#pragma once

#include <unistd.h>

#include <utility>

namespace varve::env::os_linux {

class descriptor {
  public:
    descriptor() noexcept = default;
    explicit descriptor(int number) noexcept : _number(number) {}
    descriptor(descriptor&& other) noexcept : _number(std::exchange(other._number, -1)) {}
    descriptor& operator=(descriptor&& other) noexcept {
        std::swap(_number, other._number);
        return *this;
    }
    ~descriptor() { reset(); }

    int get() const noexcept { return _number; }
    explicit operator bool() const noexcept { return _number >= 0; }
    int release() noexcept { return std::exchange(_number, -1); }
    void reset() noexcept {
        if (_number >= 0) ::close(std::exchange(_number, -1));
    }

  private:
    int _number = -1;
};

}  // namespace varve::env::os_linux
