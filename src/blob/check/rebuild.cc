#include "blob/check/rebuild.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <set>

namespace varve::blob::check {

namespace {

using format::geometry;
using format::page_bytes;
using format::page_size;
using format::super_block;
using format::super_block_wire;

constexpr uint32_t cluster_size_most = 1 << 30;
constexpr unsigned unusual_bits = 6;   // that metadata is not one page for each cluster is as strange as that many
constexpr unsigned margin_bits = 2;    // by which the best is the only one
constexpr unsigned type_bits_max = 8;  // damaged, and still a type
constexpr std::string_view volumes_type = "LVOLSTORE";

// One layout, and what speaks for it; of two, the one that is greater is believed.
struct candidate {
    super_block super;
    unsigned masks = 0;  // that are where and what they should be
    bool whole_device = false;
    unsigned surprise = 0;  // bits in which the damaged super block is another

    const geometry& layout() const noexcept { return super.layout; }
    std::pair<unsigned, bool> rank() const noexcept { return {masks, whole_device}; }
    auto key() const noexcept {
        const geometry& g = super.layout;
        return std::tuple(g.md_page_size, g.cluster_size, g.md.first, g.md.count, g.size.value, g.cluster_mask.first,
                          g.blobid_mask.first, g.page_mask.first);
    }
};

class rebuilder {
  public:
    rebuilder(const search_result& found, format::page_view damaged, const format::device_shape& device,
              uint32_t cluster_size)
        : _found(found), _device(device), _cluster_size(cluster_size), _trusted(is_mostly_super(damaged)) {
        std::memcpy(&_hint, damaged.data(), sizeof _hint);
    }

    result<rebuilt_super> run() {
        if (_found.roots.empty() && _found.masks.empty())
            return fail(error(errc::not_found, fmt::format("neither a copy of it, nor masks, nor metadata were found "
                                                           "in the first {} bytes",
                                                           _found.searched)));
        propose_all();
        if (_candidates.empty())
            return fail(error(errc::not_found,
                              "no copy of it was found, and no layout fits the masks and the metadata that were"));
        std::ranges::sort(_candidates, [](const candidate& a, const candidate& b) {
            return a.rank() != b.rank() ? a.rank() > b.rank() : a.surprise < b.surprise;
        });
        const candidate& best = _candidates.front();
        if (_candidates.size() > 1) {
            const candidate& next = _candidates[1];
            if (next.rank() == best.rank() && next.surprise < best.surprise + margin_bits)
                return fail(error(errc::not_found, undecided(best.layout(), next.layout())));
        }
        rebuilt_super out{.super = best.super, .how = "masks and metadata"};
        complete(out.super);
        return out;
    }

  private:
    static std::string undecided(const geometry& a, const geometry& b) {
        if (a.cluster_size != b.cluster_size)
            return fmt::format(
                "no copy of it was found, and clusters of {} bytes fit what was as well as clusters of "
                "{}: --cluster-size decides",
                a.cluster_size, b.cluster_size);
        return fmt::format(
            "no copy of it was found, and {} metadata pages of {} bytes from page {} fit what was as "
            "well as {} of {} from page {}",
            a.md.count, a.md_page_size, a.md.first, b.md.count, b.md_page_size, b.md.first);
    }

    void propose_all() {
        if (_trusted) propose_as_it_is();
        std::set<uint32_t> clusters;
        for (uint32_t size = page_size; size <= cluster_size_most; size *= 2) clusters.insert(size);
        if (_trusted) clusters.insert(_hint.cluster_size);
        if (_cluster_size != 0) clusters = {_cluster_size};
        std::set<uint64_t> sizes{_device.size.value};
        if (_trusted && _hint.size <= _device.size.value) sizes.insert(_hint.size);
        for (uint32_t stride = page_size; stride <= format::md_page_size_max; stride += page_size) {
            std::set<uint32_t> lengths{0};  // one for each cluster
            if (const uint32_t told = _found.md_length(stride)) {
                lengths = {told};
            } else {
                if (_trusted) lengths.insert(_hint.md_length);
                if (const auto* mask = _found.mask_at(stride)) lengths.insert(mask->length);
            }
            for (uint32_t cluster : clusters)
                for (uint64_t size : sizes)
                    for (uint32_t length : lengths) propose(cluster, size, length, stride);
        }
    }
    void propose(uint32_t cluster, uint64_t size, uint32_t length, uint32_t stride) {
        if (cluster == 0) return;
        auto g = format::plan_store({.size = {size}, .block_size = 512},
                                    {.cluster_size = cluster, .md_page_count = length, .md_page_size = stride});
        if (!g) return;
        g->io_unit_size = io_unit(stride);
        candidate c{.super = format::new_super(*g, "")};
        judge(std::move(c));
    }
    // For layouts that nobody makes any more.
    void propose_as_it_is() {
        page_bytes raw = std::bit_cast<page_bytes>(_hint);
        auto decoded = format::decode_super_unchecked(raw, _device);
        if (!decoded || (_cluster_size != 0 && decoded->layout.cluster_size != _cluster_size)) return;
        candidate c{.super = format::new_super(decoded->layout, "")};
        c.super.version = decoded->version;
        judge(std::move(c));
    }

    void judge(candidate c) {
        const geometry& g = c.layout();
        if (!metadata_fits(g) || !masks_fit(c)) return;
        // Nothing but the mask of clusters proves such a number.
        if (!is_power_of_two(g.cluster_size) && g.cluster_size != _cluster_size && c.masks < 3) return;
        if (_found.roots.empty() && c.masks < 2) return;
        if (std::ranges::any_of(_candidates, [&](const candidate& o) { return o.key() == c.key(); })) return;
        c.whole_device = g.size.value == _device.size.value;
        if (g.md.count != g.cluster_count) c.surprise += unusual_bits;
        if (_trusted) c.surprise += bits_away(c.super);
        _candidates.push_back(std::move(c));
    }

    // What first pages and extents say.
    bool metadata_fits(const geometry& g) const {
        const uint64_t begin = g.offset_of_md_page(0), end = g.offset_of_md_page(g.md.count);
        std::size_t right = 0, wrong = 0;
        for (const root_seen& r : _found.roots) {
            const bool in_place = g.offset_of_md_page(r.page()) == r.offset;
            if (in_place && !g.has_md_page(r.page())) return false;
            if (r.offset < end) ++(in_place ? right : wrong);
        }
        if (!_found.roots.empty() && (right == 0 || wrong > right)) return false;
        return std::ranges::none_of(_found.named, [&](const clusters_seen& c) {
            return c.offset >= begin && c.offset < end && (!g.has_data_cluster(c.least) || !g.has_data_cluster(c.most));
        });
    }
    bool masks_fit(candidate& c) const {
        const geometry& g = c.layout();
        for (auto type :
             {format::mask_type::used_pages, format::mask_type::used_clusters, format::mask_type::used_blobids}) {
            const auto region = region_of(type, g);
            const mask_header_seen* there = region.count == 0 ? nullptr : _found.mask_at(g.offset_of(region));
            if (there == nullptr) continue;  // never written, or damaged
            const bool clusters = type == format::mask_type::used_clusters;
            if (there->type != type) return false;
            if (there->length != bits_of(type, g)) {
                if (clusters) continue;  // the store may have grown, or tried to
                return false;
            }
            const auto seen_bits = static_cast<uint32_t>((page_size - sizeof(format::mask_header_wire)) * 8);
            if (clusters && there->leading_ones < std::min(g.first_data_cluster, seen_bits)) return false;
            ++c.masks;
        }
        return true;
    }
    unsigned bits_away(const super_block& s) const {
        auto mine = std::bit_cast<super_block_wire>(format::encode_super(s));
        super_block_wire theirs = _hint;
        for (super_block_wire* w : {&mine, &theirs}) {
            w->clean = 0;
            w->super_blob = 0;
            std::ranges::fill(w->type, '\0');
        }
        constexpr std::size_t fields = offsetof(super_block_wire, reserved96);
        return distance(std::as_bytes(std::span(&mine, 1)).first(fields),
                        std::as_bytes(std::span(&theirs, 1)).first(fields));
    }
    uint32_t io_unit(uint32_t stride) const {
        const uint32_t least = std::max(_device.block_size, 512u);
        const uint32_t hint = _hint.io_unit_size;
        if (!_trusted) return least;
        if (hint >= least && is_power_of_two(hint) && stride % hint == 0) return hint;
        const int to_512 = std::popcount(hint ^ 512u), to_4096 = std::popcount(hint ^ 4096u);
        return to_4096 < to_512 || least > 512 ? 4096 : 512;
    }

    // What has nothing to do with the layout.
    void complete(super_block& s) const {
        s.super_blob = super_blob(s.layout);
        const auto type = std::as_bytes(std::span(_hint.type));
        std::array<char, 16> volumes{};
        std::ranges::copy(volumes_type, volumes.begin());
        if (s.super_blob != format::no_blob ||
            (_trusted && distance(type, std::as_bytes(std::span(volumes))) <= type_bits_max))
            s.type = volumes;
        add_area(s);
    }
    format::blob_id super_blob(const geometry& g) const {
        std::vector<format::blob_id> all;
        for (const root_seen& r : _found.roots)
            if (r.own_of_store && g.has_md_page(r.page()) && g.offset_of_md_page(r.page()) == r.offset)
                all.push_back(r.id);
        if (_trusted && std::ranges::find(all, _hint.super_blob.get()) != all.end()) return _hint.super_blob;
        return all.size() == 1 ? all.front() : format::no_blob;
    }
    // Where varve had a round of changes under way it must be found again: some may have been acknowledged.
    void add_area(super_block& s) const {
        const geometry& g = s.layout;
        for (const slot_seen& slot : _found.slots) {
            if (!g.has_md_page(slot.own_page) || g.offset_of_md_page(slot.own_page) != slot.offset) continue;
            const uint16_t pages = format::area_pages(g.md.count);
            if (!range_inside(slot.own_page, pages, g.md.count) || pages < 2) continue;
            auto& e = s.extension.emplace();
            e.store = slot.store;
            e.double_write = {.first = slot.own_page, .slots = 1, .per_slot = pages};
            return;
        }
    }

    const search_result& _found;
    const format::device_shape _device;
    const uint32_t _cluster_size;
    const bool _trusted;
    super_block_wire _hint;
    std::vector<candidate> _candidates;
};

// SPDK may have let the store grow since the copy was written, and blobs have clusters there by now.
geometry with_growth(const geometry& g, const search_result& found, const format::device_shape& device) {
    auto larger = format::grown(g, device);
    if (!larger || larger->cluster_count == g.cluster_count) return g;
    const mask_header_seen* mask = found.mask_at(g.offset_of(g.cluster_mask));
    const bool told =
        mask != nullptr && mask->type == format::mask_type::used_clusters && mask->length == larger->cluster_count;
    const bool used = std::ranges::any_of(found.named, [&](const clusters_seen& c) {
        return c.offset < g.offset_of_md_page(g.md.count) && c.most >= g.cluster_count &&
               larger->has_data_cluster(c.most);
    });
    return told || used ? *larger : g;
}

// As if it had been read: what its bytes say is what it is.
result<super_block> read_again(const super_block& s, const format::device_shape& device) {
    return format::decode_super(format::encode_super(s), device);
}

}  // namespace

result<rebuilt_super> rebuild_super(const search_result& found, format::page_view damaged,
                                    const format::device_shape& device, uint32_t cluster_size) {
    rebuilt_super out;
    if (found.copy) {
        out.super = found.copy->super;
        out.super.layout = with_growth(out.super.layout, found, device);
        out.how = fmt::format("the copy in page {}", found.copy->own_page);
    } else if (format::looks_like_super(damaged) && format::super_crc_right(damaged)) {
        return fail(error(errc::not_found, "no copy of it was found, and its checksum is right"));
    } else {
        auto made = rebuilder(found, damaged, device, cluster_size).run();
        if (!made) return made;
        out = std::move(*made);
    }
    auto super = read_again(out.super, device);
    if (!super) return std::unexpected(std::move(super).error());
    out.super = std::move(*super);
    return out;
}

}  // namespace varve::blob::check
