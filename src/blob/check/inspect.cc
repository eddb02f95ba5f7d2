#include "blob/check/inspect.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <vector>

#include "blob/check/rebuild.h"

namespace varve::blob::check {

namespace {

constexpr std::size_t piece_bytes = 1024 * 1024;
constexpr std::size_t pieces_at_once = 16;

// Once more if it must be.
void read_alone(storage& from, piece& p) {
    from.read(std::span(&p, 1));
    if (p.failed.empty()) return;
    p.failed.clear();
    from.read(std::span(&p, 1));
}

// Those of a piece that was read, or what is left of it.
void take_pages(evidence& e, storage& from, piece& p, uint32_t first, uint32_t count) {
    const std::size_t stride = e.layout().md_page_size;
    if (p.failed.empty()) {
        for (uint32_t i = 0; i < count; ++i)
            e.take_page(first + i, p.bytes.subspan(i * stride).first<format::page_size>());
        return;
    }
    for (uint32_t i = 0; i < count; ++i) {  // which of them?
        piece one{.offset = p.offset + i * stride, .bytes = p.bytes.subspan(i * stride, stride), .failed = {}};
        read_alone(from, one);
        if (one.failed.empty())
            e.take_page(first + i, one.bytes.first<format::page_size>());
        else
            e.take_unreadable(first + i, 1, one.failed);
    }
}

// The first page from `at` on that may hold something: a hole of a file costs neither time nor memory.
uint64_t skip_hole(storage& from, const format::geometry& g, uint64_t at) {
    if (at >= g.md.count) return at;
    const uint64_t begin = g.offset_of_md_page(0), offset = begin + at * g.md_page_size;
    return at + (std::max(offset, from.next_data(offset)) - offset) / g.md_page_size;
}

void read_metadata(evidence& e, storage& from) {
    const auto& g = e.layout();
    const uint32_t per_piece = std::max<uint32_t>(1, piece_bytes / g.md_page_size);
    const uint64_t pages_at_once = std::min<uint64_t>(g.md.count, uint64_t{per_piece} * pieces_at_once);
    std::vector<std::byte> memory(pages_at_once * g.md_page_size);
    std::vector<piece> pieces;
    for (uint64_t at = 0; at < g.md.count;) {
        pieces.clear();
        for (std::size_t i = 0; i < pieces_at_once; ++i) {
            at = skip_hole(from, g, at);
            if (at >= g.md.count) break;
            const auto count = static_cast<uint32_t>(std::min<uint64_t>(per_piece, g.md.count - at));
            const auto room =
                std::span(memory).subspan(i * per_piece * g.md_page_size, std::size_t{count} * g.md_page_size);
            pieces.push_back({.offset = g.offset_of_md_page(static_cast<uint32_t>(at)), .bytes = room, .failed = {}});
            at += count;
        }
        from.read(pieces);
        for (piece& p : pieces) {
            const auto count = static_cast<uint32_t>(p.bytes.size() / g.md_page_size);
            const uint64_t first = (p.offset - g.offset_of_md_page(0)) / g.md_page_size;
            take_pages(e, from, p, static_cast<uint32_t>(first), count);
        }
    }
}

void read_mask(evidence& e, storage& from, format::mask_type type) {
    const auto region = region_of(type, e.layout());
    if (region.count == 0) return;
    std::vector<std::byte> memory(e.layout().bytes_of_mask(region, bits_of(type, e.layout())));
    piece p{.offset = e.layout().offset_of(region), .bytes = memory, .failed = {}};
    read_alone(from, p);
    if (p.failed.empty())
        e.take_mask(type, memory);
    else
        e.take_unreadable_mask(type, p.failed);
}

// The super block says nothing. What its checksum vouches for and is not understood is another matter: a later version.
void look_for_super(evidence& e, storage& from, const inspect_options& how) {
    const format::page_view page = e.super_page();
    if (e.is_of_unknown_version() || (!how.search && !has_trace(from, page))) return;
    auto rebuilt = rebuild_super(search(from), page, from.shape(), how.cluster_size);
    if (rebuilt)
        e.take_super(std::move(rebuilt->super), std::move(rebuilt->how));
    else
        e.explain(rebuilt.error().message());
}

}  // namespace

result<evidence> inspect(storage& from, const inspect_options& how) {
    const auto shape = from.shape();
    if (shape.size.value < format::page_size)
        return format::damaged(fmt::format("{} bytes are too few for a blobstore", shape.size.value));
    format::page_bytes super;
    piece first{.offset = 0, .bytes = super, .failed = {}};
    read_alone(from, first);
    if (!first.failed.empty()) return fail(error(errc::io, fmt::format("super block: {}", first.failed)));
    evidence out(shape, super);
    if (out.store() == nullptr) look_for_super(out, from, how);
    if (out.store() == nullptr) return out;
    VARVE_TRY(format::check_memory(out.layout()));
    for (auto type : {format::mask_type::used_pages, format::mask_type::used_clusters, format::mask_type::used_blobids})
        read_mask(out, from, type);
    read_metadata(out, from);
    return out;
}

}  // namespace varve::blob::check
