#include "blob/check/search.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>

#include "blob/check/descriptors.h"

namespace varve::blob::check {

namespace {

using format::page_bytes;
using format::page_size;

constexpr std::size_t piece_bytes = 1024 * 1024;
constexpr std::size_t pieces_at_once = 8;
constexpr uint64_t front_bytes = uint64_t{1} << 30;  // where there is a trace, if there is a store
constexpr std::size_t roots_max = 65536, masks_max = 4096, slots_max = 64, named_max = std::size_t{1} << 20;
constexpr unsigned copies_max = 1000;  // looked at closely; the real ones come first
constexpr std::size_t roots_for_limit = 16;
constexpr uint64_t pages_before_metadata = 3;  // super block, two masks at least
constexpr unsigned trace_bits = 52;            // of 64; chance gives 32, and so many once in 10 million files

template <class T>
T at_front(std::span<const std::byte> bytes, std::size_t offset = 0) {
    T out;
    std::memcpy(&out, bytes.data() + offset, sizeof out);
    return out;
}

class scanner {
  public:
    explicit scanner(storage& from) : _from(from), _device(from.shape()) {}

    search_result run() {
        uint64_t at = 0;
        _limit = limit();
        while (at < _limit) {
            at = _from.next_data(at) / page_size * page_size;
            if (at >= _limit) break;
            at = read_from(at);
        }
        _out.searched = std::min(at, _limit);
        return std::move(_out);
    }

  private:
    // How far a metadata region can reach that what was found so far is of.
    uint64_t limit() const {
        uint64_t end = front_bytes;
        if (_out.copy) {
            const auto& g = _out.copy->super.layout;
            end = g.offset_of_md_page(g.md.count);
        } else if (!_out.roots.empty()) {
            uint64_t told = 0;  // by one of the first: another may be damaged, and say that its place is elsewhere
            for (const root_seen& root : std::span(_out.roots).first(std::min(_out.roots.size(), roots_for_limit)))
                for (uint64_t stride = page_size; stride <= format::md_page_size_max; stride += page_size)
                    told = std::max(told, end_for(root, stride));
            if (told != 0) end = told;
        } else {
            for (uint64_t stride = page_size; stride <= format::md_page_size_max; stride += page_size) {
                const uint64_t length = _out.md_length(static_cast<uint32_t>(stride));
                if (length != 0) end = std::max(end, front_bytes + length * stride);
            }
        }
        return std::min(end, _device.size.value / page_size * page_size);
    }
    uint64_t end_for(const root_seen& root, uint64_t stride) const {
        const uint64_t before = uint64_t{root.page()} * stride;
        if (root.offset % stride != 0 || root.offset < before + pages_before_metadata * stride) return 0;
        const uint64_t md_start = (root.offset - before) / stride;
        uint64_t length = _out.md_length(static_cast<uint32_t>(stride));
        // As many pages as a mask has bits that has all the room in front of the metadata.
        if (length == 0) length = std::min<uint64_t>((md_start - 2) * stride * 8, UINT32_MAX);
        return (md_start + length) * stride;
    }

    uint64_t read_from(uint64_t at) {
        std::vector<piece> pieces;
        while (at < _limit && pieces.size() < pieces_at_once) {
            const auto size = std::min<uint64_t>(piece_bytes, _limit - at);
            pieces.push_back(
                {.offset = at, .bytes = {_memory.get() + pieces.size() * piece_bytes, size}, .failed = {}});
            at += size;
        }
        _from.read(pieces);
        for (piece& p : pieces) {
            for (std::size_t in = 0; in < p.bytes.size() && p.offset + in < _limit; in += page_size) {
                piece one{.offset = p.offset + in, .bytes = p.bytes.subspan(in, page_size), .failed = {}};
                if (!p.failed.empty()) _from.read(std::span(&one, 1));  // which of them?
                if (one.failed.empty()) look(one.offset, one.bytes.first<page_size>());
            }
        }
        return at;
    }

    void look(uint64_t offset, format::page_view page) {
        if (format::is_clear(page) || offset == 0) return;
        const auto magic = at_front<le64>(page);
        if (magic == format::super_copy_magic) return take_copy(offset, page);
        if (magic == format::double_write_magic) return take_slot(offset, page);
        if (format::is_blob_id(magic) && format::crc_right(page)) return take_page(offset, page);
        if (_out.roots.empty() && _out.masks.size() < masks_max) take_mask(offset, page);
    }

    void take_mask(uint64_t offset, format::page_view page) {
        const auto header = at_front<format::mask_header_wire>(page);
        if (header.type > 2 || header.length == 0 || header.length == UINT32_MAX) return;
        uint32_t ones = 0;
        for (std::byte b : page.subspan<sizeof header>()) {
            const int more = std::countr_one(static_cast<uint8_t>(b));
            ones += static_cast<uint32_t>(more);
            if (more < 8) break;
        }
        _out.masks.push_back({offset, static_cast<format::mask_type>(header.type), header.length, ones});
        _limit = limit();
    }

    void take_slot(uint64_t offset, format::page_view page) {
        const auto w = at_front<format::double_write_header_wire>(page);
        if (w.inverted_crc != ~format::crc_of(page) || _out.slots.size() >= slots_max) return;
        slot_seen s{.offset = offset, .own_page = w.own_page, .store = {}};
        std::ranges::copy(w.store_uuid, s.store.bytes.begin());
        _out.slots.push_back(s);
    }

    void take_page(uint64_t offset, format::page_view bytes) {
        page_bytes page;
        std::ranges::copy(bytes, page.begin());
        clusters_seen named{.offset = offset};
        auto name = [&named](uint32_t first, uint32_t count) {
            if (first == 0 || count == 0) return;
            named.least = std::min(named.least, first);
            named.most = std::max<uint32_t>(
                named.most, static_cast<uint32_t>(std::min<uint64_t>(uint64_t{first} + count - 1, UINT32_MAX)));
        };
        bool extents = false, clusters = false, has_name = false, has_uuid = false;
        for_each_descriptor(page, [&](format::descriptor_type type, std::size_t body, std::size_t length) {
            const std::size_t end = body + length;
            if (type == format::descriptor_type::extent_page) {
                extents = true;
                for (std::size_t i = body + sizeof(le32); i + sizeof(le32) <= end; i += sizeof(le32))
                    name(get<le32>(page, i), 1);
            } else if (type == format::descriptor_type::extent_rle) {
                clusters = clusters || length != 0;
                for (std::size_t i = body; i + sizeof(format::extent_run_wire) <= end;
                     i += sizeof(format::extent_run_wire)) {
                    const auto run = get<format::extent_run_wire>(page, i);
                    name(run.cluster, run.count);
                }
            } else if (type == format::descriptor_type::extent_table && length >= sizeof(le64)) {
                clusters = clusters || get<le64>(page, body) != 0;
            } else if (type == format::descriptor_type::xattr && length >= 2 * sizeof(le16)) {
                const std::size_t size = get<le16>(page, body);
                if (size > length - 2 * sizeof(le16)) return;
                const auto* text = reinterpret_cast<const char*>(page.data() + body + 2 * sizeof(le16));
                has_name = has_name || std::string_view(text, size) == "name";
                has_uuid = has_uuid || std::string_view(text, size) == "uuid";
            }
        });
        if (named.least <= named.most && _out.named.size() < named_max) _out.named.push_back(named);
        const auto head = format::header_of(page);
        if (extents || head.sequence != 0 || _out.roots.size() >= roots_max) return;
        const bool own = has_name && has_uuid && !clusters && head.next == format::no_page;
        _out.roots.push_back({.offset = offset, .id = head.id, .own_of_store = own});
        if (_out.roots.size() <= roots_for_limit) _limit = limit();
    }

    // A tenant may have written it into a volume, or a store with it.
    void take_copy(uint64_t offset, format::page_view page) {
        auto copy = format::decode_super_copy(page, _device);
        if (!copy || copy->super.layout.offset_of_md_page(copy->own_page) != offset) return;
        if (_copies++ >= copies_max || !agrees(*copy)) return;
        if (_out.copy && _out.copy->sequence >= copy->sequence) return;
        _out.copy = std::move(*copy);
        _limit = limit();
    }
    bool agrees(const format::super_copy& copy) const {
        const format::geometry& g = copy.super.layout;
        std::size_t right = 0, wrong = 0;
        for (const root_seen& r : _out.roots) {
            if (r.offset < g.offset_of_md_page(0)) {
                ++wrong;
                continue;
            }
            const auto place = static_cast<uint32_t>((r.offset - g.offset_of_md_page(0)) / g.md_page_size);
            if (copy.super.extension->double_write.holds(place)) continue;  // an image
            ++(g.offset_of_md_page(r.page()) == r.offset ? right : wrong);
        }
        if (wrong > right) return false;
        const uint32_t told = _out.md_length(g.md_page_size);
        if (told != 0) return told == g.md.count;
        if (right == 0) return false;  // what a store left that was here once
        // There are no masks to speak for it. Nor must blobs speak against it.
        const uint32_t data = g.first_data_cluster;
        return std::ranges::none_of(_out.named, [data](const clusters_seen& c) { return c.least < data; });
    }

    storage& _from;
    const format::device_shape _device;
    const std::unique_ptr<std::byte[]> _memory =
        std::make_unique_for_overwrite<std::byte[]>(piece_bytes * pieces_at_once);
    search_result _out;
    uint64_t _limit = 0;
    unsigned _copies = 0;
};

}  // namespace

uint32_t search_result::md_length(uint32_t md_page_size) const noexcept {
    const mask_header_seen* pages = mask_at(md_page_size);
    if (pages == nullptr || pages->type != format::mask_type::used_pages) return 0;
    const bool twice = std::ranges::any_of(masks, [&](const mask_header_seen& m) {
        return m.type == format::mask_type::used_blobids && m.length == pages->length && m.offset % md_page_size == 0;
    });
    return twice ? pages->length : 0;
}

const mask_header_seen* search_result::mask_at(uint64_t offset) const noexcept {
    auto found = std::ranges::lower_bound(masks, offset, {}, &mask_header_seen::offset);
    return found == masks.end() || found->offset != offset ? nullptr : &*found;
}

search_result search(storage& from) { return scanner(from).run(); }

unsigned distance(std::span<const std::byte> a, std::span<const std::byte> b) noexcept {
    unsigned bits = 0;
    for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i)
        bits += static_cast<unsigned>(std::popcount(static_cast<uint8_t>(a[i] ^ b[i])));
    return bits;
}

bool is_mostly_super(format::page_view page) noexcept {
    return distance(page.first<8>(), std::as_bytes(std::span(format::super_signature))) <= 64 - trace_bits;
}

bool has_trace(storage& from, format::page_view super_page) {
    constexpr std::size_t extension = offsetof(format::super_block_wire, extension);
    if (is_mostly_super(super_page)) return true;
    if (distance(super_page.subspan<extension, 8>(), std::as_bytes(std::span(format::extension_magic))) <=
        64 - trace_bits)
        return true;
    const uint64_t size = from.shape().size.value;
    for (uint64_t stride = page_size; stride <= format::md_page_size_max; stride *= 2) {
        auto header_at = [&](uint64_t offset) {
            page_bytes page{};
            piece p{.offset = offset, .bytes = page, .failed = {}};
            if (offset <= size - page_size) from.read(std::span(&p, 1));
            return at_front<format::mask_header_wire>(p.failed.empty() ? page : page_bytes{});
        };
        if (size < 2 * stride) break;
        const auto pages = header_at(stride);
        if (pages.type != 0 || pages.length == 0 || pages.length > size / stride) continue;
        const uint64_t mask =
            (sizeof(format::mask_header_wire) + (uint64_t{pages.length} + 7) / 8 + stride - 1) / stride;
        const auto clusters = header_at((1 + mask) * stride);
        if (clusters.type == 1 && clusters.length != 0) return true;
    }
    return false;
}

}  // namespace varve::blob::check
