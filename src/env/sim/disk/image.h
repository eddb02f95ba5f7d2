// Sparse bytes: what was never written, or was zeroed as a whole chunk, takes no memory.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>

namespace varve::env::sim {

class image {
  public:
    static constexpr uint64_t chunk_size = 4096;  // also what a file system gives and takes at a time

    void read(uint64_t offset, std::span<std::byte> to) const;
    void write(uint64_t offset, std::span<const std::byte> from);
    void zero(uint64_t offset, uint64_t length);
    void flip(uint64_t offset, unsigned bit);
    bool has_chunk(uint64_t offset) const { return _chunks.contains(offset / chunk_size); }
    // The first chunk at or after this offset that has contents; UINT64_MAX when there is none.
    uint64_t next_chunk(uint64_t offset) const;
    uint64_t bytes_used() const noexcept { return _chunks.size() * chunk_size; }
    image clone() const;
    uint64_t hash() const;  // of the contents, not of which chunks there are

  private:
    using chunk = std::array<std::byte, chunk_size>;
    std::map<uint64_t, std::unique_ptr<chunk>> _chunks;
};

}  // namespace varve::env::sim
