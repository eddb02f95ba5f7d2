// Reads all of a store's metadata, each page once, in large pieces.
#pragma once

#include <span>
#include <string>

#include "blob/check/evidence.h"

namespace varve::blob::check {

struct piece {
    uint64_t offset = 0;  // on the device; multiples of 4096, as is the size
    std::span<std::byte> bytes;
    std::string failed;  // the reader's: why, when it could not be read
};

// Whoever can read the device.
class storage {
  public:
    virtual ~storage() = default;
    virtual format::device_shape shape() const noexcept = 0;
    // All of them, in any order or at once. Comes back when all are read or failed.
    virtual void read(std::span<piece> pieces) = 0;
};

// bad_sequence or io: there is no super block to be read at all. A damaged one is evidence.
result<evidence> inspect(storage& from);

}  // namespace varve::blob::check
