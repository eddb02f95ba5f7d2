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
    // Where from `offset` on there may be anything but zeroes: holes of files need not be read. The size, or more:
    // nowhere.
    virtual uint64_t next_data(uint64_t offset) { return offset; }
};

struct inspect_options {
    // For what a super block said that is damaged, also where there is no trace of a store: others may have the device.
    bool search = false;
    uint32_t cluster_size = 0;  // bytes, as the operator says; 0: nobody knows
};

// bad_sequence or io: there is no super block to be read at all. A damaged one is evidence.
result<evidence> inspect(storage& from, const inspect_options& how = {});

}  // namespace varve::blob::check
