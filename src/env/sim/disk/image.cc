#include "env/sim/disk/image.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace varve::env::sim {

namespace {
struct piece {
    uint64_t chunk, inside, length;
};
piece first_piece(uint64_t offset, uint64_t length) {
    uint64_t inside = offset % image::chunk_size;
    return {offset / image::chunk_size, inside, std::min(length, image::chunk_size - inside)};
}
}  // namespace

void image::read(uint64_t offset, std::span<std::byte> to) const {
    while (!to.empty()) {
        piece p = first_piece(offset, to.size());
        auto found = _chunks.find(p.chunk);
        if (found == _chunks.end()) {
            std::memset(to.data(), 0, p.length);
        } else {
            std::memcpy(to.data(), found->second->data() + p.inside, p.length);
        }
        offset += p.length;
        to = to.subspan(p.length);
    }
}

void image::write(uint64_t offset, std::span<const std::byte> from) {
    while (!from.empty()) {
        piece p = first_piece(offset, from.size());
        auto& at = _chunks[p.chunk];
        if (!at) at = std::make_unique<chunk>();
        std::memcpy(at->data() + p.inside, from.data(), p.length);
        offset += p.length;
        from = from.subspan(p.length);
    }
}

void image::zero(uint64_t offset, uint64_t length) {
    while (length > 0) {
        piece p = first_piece(offset, length);
        if (p.length == chunk_size) {
            _chunks.erase(p.chunk);
        } else if (auto found = _chunks.find(p.chunk); found != _chunks.end()) {
            std::memset(found->second->data() + p.inside, 0, p.length);
        }
        offset += p.length;
        length -= p.length;
        // Holes may be huge: on to the next chunk there is.
        uint64_t next = std::max(next_chunk(offset), offset);
        uint64_t skipped = std::min(next - offset, length);
        offset += skipped;
        length -= skipped;
    }
}

void image::flip(uint64_t offset, unsigned bit) {
    std::byte value{};
    read(offset, {&value, 1});
    value ^= std::byte{1} << (bit % 8);
    write(offset, {&value, 1});
}

uint64_t image::next_chunk(uint64_t offset) const {
    auto found = _chunks.lower_bound(offset / chunk_size);
    return found == _chunks.end() ? UINT64_MAX : found->first * chunk_size;
}

image image::clone() const {
    image copy;
    for (const auto& [number, contents] : _chunks) copy._chunks[number] = std::make_unique<chunk>(*contents);
    return copy;
}

uint64_t image::hash() const {
    uint64_t all = 0;
    for (const auto& [number, contents] : _chunks) {
        uint64_t of_chunk = number, any = 0;
        for (std::size_t i = 0; i < chunk_size; i += sizeof(uint64_t)) {
            uint64_t word = 0;
            std::memcpy(&word, contents->data() + i, sizeof word);
            any |= word;
            of_chunk = (std::rotl(of_chunk, 5) ^ word) * 0x9e3779b97f4a7c15;
        }
        if (any != 0) all = (std::rotl(all, 7) ^ of_chunk) * 0xd6e8feb86659fd93;
    }
    return all;
}

}  // namespace varve::env::sim
