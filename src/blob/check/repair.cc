#include "blob/check/repair.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <map>
#include <optional>
#include <set>

#include "blob/check/descriptors.h"
#include "blob/format/super_copy.h"

namespace varve::blob::check {

namespace {

using format::mask_type;
using format::md_page_wire;
using format::page_bytes;

// Metadata pages with their changes, each changed page once.
class patcher {
  public:
    explicit patcher(const evidence& e) : _e(e) {}

    page_bytes* open(uint32_t number, std::string_view why = {}) {
        auto [found, fresh] = _pages.try_emplace(number);
        if (fresh) {
            const page_bytes* now = _e.page(number);
            if (now != nullptr) found->second.bytes = *now;
        }
        if (!why.empty()) found->second.explain(why);
        return &found->second.bytes;
    }
    void clear(uint32_t number, std::string_view why) {
        *open(number, why) = {};
        _pages[number].cleared = true;
    }

    struct patched {
        page_bytes bytes{};
        std::vector<std::string> reasons;  // the first of them, each once
        std::size_t more_reasons = 0;
        bool cleared = false;

        void explain(std::string_view why) {
            constexpr std::size_t kept = 8;
            if (std::ranges::find(reasons, why) != reasons.end()) return;
            if (reasons.size() < kept)
                reasons.emplace_back(why);
            else
                ++more_reasons;
        }
        std::string why() const {
            const std::string all = fmt::format("{}", fmt::join(reasons, "; "));
            return more_reasons == 0 ? all : all + fmt::format("; and {} more changes", more_reasons);
        }
    };
    std::map<uint32_t, patched> take() && {
        for (auto& [number, p] : _pages) {
            if (p.cleared) continue;
            const le32 crc = format::crc_of(p.bytes);
            std::memcpy(p.bytes.data() + offsetof(md_page_wire, crc), &crc, sizeof crc);
        }
        return std::move(_pages);
    }

  private:
    const evidence& _e;
    std::map<uint32_t, patched> _pages;
};

struct flag_bits {
    uint64_t invalid = 0, data_read_only = 0;
};
void change_flags(page_bytes& page, flag_bits set, flag_bits clear = {}) {
    for_each_descriptor(page, [&](format::descriptor_type type, std::size_t body, std::size_t length) {
        constexpr std::size_t word = sizeof(le64);
        if (type != format::descriptor_type::flags || length != 3 * word) return;
        put(page, body, le64((get<le64>(page, body) & ~clear.invalid) | set.invalid));
        put(page, body + word, le64((get<le64>(page, body + word) & ~clear.data_read_only) | set.data_read_only));
    });
}
// Appends the internal xattr that says why. False: the page has no room; a reason that is longer than the room is cut.
bool append_reason(page_bytes& page, std::string text) {
    const std::size_t end = for_each_descriptor(page, [](auto, auto, auto) {});
    const std::size_t fixed = sizeof(format::xattr_wire) + format::xattr_set_aside.size();
    if (end + fixed + 8 > space_end) return false;
    text.resize(std::min({text.size(), space_end - end - fixed, std::size_t{400}}));
    const format::xattr_wire w{
        .header = {.type = static_cast<uint8_t>(format::descriptor_type::internal_xattr),
                   .length = static_cast<uint32_t>(fixed + text.size() - sizeof(format::descriptor_header_wire))},
        .name_length = static_cast<uint16_t>(format::xattr_set_aside.size()),
        .value_length = static_cast<uint16_t>(text.size())};
    put(page, end, w);
    std::memcpy(page.data() + end + sizeof w, format::xattr_set_aside.data(), format::xattr_set_aside.size());
    std::memcpy(page.data() + end + fixed, text.data(), text.size());
    return true;
}

// The last internal xattr of this name in the page. False: there is none.
bool erase_last(page_bytes& page, std::string_view which) {
    std::size_t from = 0, to = 0;
    const std::size_t end =
        for_each_descriptor(page, [&](format::descriptor_type type, std::size_t body, std::size_t length) {
            if (type != format::descriptor_type::internal_xattr || length < sizeof(format::xattr_wire)) return;
            const std::size_t at = body - sizeof(format::descriptor_header_wire);
            const auto w = get<format::xattr_wire>(page, at);
            const auto* name = reinterpret_cast<const char*>(page.data() + at + sizeof w);
            if (w.name_length != which.size() || sizeof w + w.name_length > length + 5) return;
            if (std::string_view(name, w.name_length) != which) return;
            from = at;
            to = body + length;
        });
    if (to == 0) return false;
    std::memmove(page.data() + from, page.data() + to, end - to);
    std::memset(page.data() + from + (end - to), 0, to - from);
    return true;
}

class planner {
  public:
    planner(const evidence& e, const examination& found) : _e(e), _found(found), _patches(e) {}

    repair_plan run() {
        if (_found.round_unknown) return {};
        plan_given_up();
        plan_mended();
        const auto mended = static_cast<std::ptrdiff_t>(_plan.changes.size());
        for (uint32_t page : _found.flipped) _patches.open(page, "a flipped bit put right");
        for (uint32_t root : _found.stale_roots) _patches.clear(root, "first page of a blob that was deleted");
        for (const examined_blob& b : _found.blobs)
            if (b.broken() && !b.aside() && !b.unreadable) set_aside_damaged(b);
        for (const finding& f : _found.findings)
            if (f.repairable && (f.what == problem::shared_clusters || f.what == problem::shared_page))
                set_aside_sharers(f);
        for (format::blob_id id : _found.restored) restore(id);
        for (const auto& [id, mark] : _found.false_marks)
            take_out(id, mark, {}, {.data_read_only = format::data_ro_flag::read_only},
                     fmt::format("blob {:#x}: {} taken out, since others read from it: it is a snapshot", id, mark));
        plan_pages();
        plan_masks();
        plan_super();
        if (!_plan.empty() || _found.round_given_up) {
            plan_end_of_rounds(mended);
            plan_witnesses();
        }
        return std::move(_plan);
    }

  private:
    // Takes out what cannot be followed; what remains is what the blob is known to own.
    void set_aside_damaged(const examined_blob& b) {
        const uint32_t root = format::root_page_of(b.id());
        if (b.record.pages.empty() || !has_flags(*_e.page(root))) return;  // no place for a flag
        const std::string why = fmt::format("blob {:#x} set aside: {}", b.id(), b.wrong);
        const bool external = (b.record.flags.invalid & format::invalid_flag::external_snapshot) != 0;
        const bool parent_lost = b.chain_broken && b.record.thin() && !external && !b.parent;
        change_all_flags(b.record, why,
                         {.invalid = format::invalid_flag::set_aside | format::invalid_flag::thin |
                                     (parent_lost ? format::invalid_flag::parent_lost : 0)});
        std::vector<uint32_t> extent_pages;  // that stay
        for (const auto& use : b.extents)
            if (use.stays()) extent_pages.push_back(use.page);
        std::ranges::sort(extent_pages);
        for (uint32_t number : b.record.pages) take_out(number, extent_pages);
        if (b.chain_broken) {
            page_bytes& last = *_patches.open(b.record.pages.back(), "end of what is left of a chain");
            put(last, offsetof(md_page_wire, next), le32(format::no_page));
        }
        for (const auto& use : b.extents) take_out_clusters(use);
        add_reason(b, b.wrong, why);
    }
    void add_reason(const examined_blob& b, const std::string& text, const std::string& why) {
        if (append_reason(*_patches.open(format::root_page_of(b.id()), why), text))
            change_all_flags(b.record, why, {.invalid = format::invalid_flag::internal_xattrs});
    }
    // Of all flags in a chain the last count, and its first page must have some.
    void change_all_flags(const format::blob_record& record, const std::string& why, flag_bits set,
                          flag_bits clear = {}) {
        for (uint32_t number : record.pages)
            if (has_flags(*_e.page(number))) change_flags(*_patches.open(number, why), set, clear);
    }

    // In a page of the chain: extents outside of the store, and extent pages that are none.
    void take_out(uint32_t number, std::span<const uint32_t> extent_pages) {
        const page_bytes now = *_e.page(number);
        for_each_descriptor(now, [&](format::descriptor_type type, std::size_t body, std::size_t length) {
            constexpr std::size_t run_size = sizeof(format::extent_run_wire);
            const bool table = type == format::descriptor_type::extent_table;
            if (!table && type != format::descriptor_type::extent_rle) return;
            for (std::size_t at = body + (table ? sizeof(le64) : 0); at + run_size <= body + length; at += run_size) {
                const auto run = get<format::extent_run_wire>(now, at);
                if (run.cluster == 0) continue;
                if (table ? std::ranges::binary_search(extent_pages, run.cluster.get()) : good_run(run)) continue;
                put(*_patches.open(
                        number, fmt::format("{} {} taken out", table ? "extent page" : "cluster", run.cluster.get())),
                    at, le32(0));
            }
        });
    }
    bool good_run(const format::extent_run_wire& run) const {
        const auto& g = _e.layout();
        return g.has_data_cluster(run.cluster) && range_inside(run.cluster, run.count, g.cluster_count);
    }
    // What is left of a damaged page becomes a whole one: it says what the blob has, and SPDK's recovery can read it.
    void take_out_clusters(const extent_page_use& use) {
        if (use.damaged && !use.clusters.empty())
            _patches.open(use.page, "made an extent page again, of what can be read of it");
        for (std::size_t i : use.outside)
            put(*_patches.open(use.page, use.damaged ? "clusters of others, or of nobody, taken out"
                                                     : "clusters outside of the store taken out"),
                space_begin + sizeof(format::extent_page_wire) + i * sizeof(le32), le32(0));
    }

    void set_aside_sharers(const finding& f) {
        for (format::blob_id id : f.blobs) {
            const uint32_t root = format::root_page_of(id);
            const examined_blob* b = _found.find(id);
            if (b == nullptr || b->aside() || b->unreadable || b->record.pages.empty()) continue;
            if (!has_flags(*_e.page(root))) continue;
            if (!_set_aside.insert(id).second) continue;  // one reason is enough
            const std::string why = fmt::format("blob {:#x} set aside: {}", id, f.text);
            change_all_flags(b->record, why, {.data_read_only = format::data_ro_flag::set_aside});
            if (!b->broken()) add_reason(*b, f.text, why);
        }
    }

    // The reason is gone for which the blob was read only.
    void restore(format::blob_id id) {
        take_out(id, format::xattr_set_aside, {.data_read_only = format::data_ro_flag::set_aside}, {},
                 fmt::format("blob {:#x} may be written again: nothing is wrong any more", id));
    }
    // An internal attribute, and flags with it.
    void take_out(format::blob_id id, std::string_view attribute, flag_bits flags, flag_bits instead,
                  const std::string& why) {
        const format::blob_record& record = _found.find(id)->record;
        for (uint32_t number : record.pages)
            while (erase_last(*_patches.open(number, why), attribute)) continue;
        const bool others =
            std::ranges::any_of(record.internal_xattrs, [&](const format::xattr& x) { return x.name != attribute; });
        if (!others) flags.invalid |= format::invalid_flag::internal_xattrs;
        change_all_flags(record, why, instead, flags);
    }

    // A round that was committed and is not in place yet comes first, as a load would repeat it; then it is over, so
    // that no load repeats it over what is repaired.
    void plan_mended() {
        std::set<uint32_t> done;
        for (const auto& m : _found.mended) {
            if (!done.insert(m.page).second) continue;
            const uint64_t offset = _e.layout().offset_of_md_page(m.page);
            const std::string why = fmt::format("page {}: mended from page {}", m.page, m.image_page);
            static constexpr page_bytes clear{};
            const page_bytes* before = _e.original(m.page);
            const page_bytes* after = _e.page(m.page);
            if (_e.given_up().contains(m.page))
                add_lost(offset, after == nullptr ? clear : *after, why);
            else
                add(offset, before == nullptr ? clear : *before, after == nullptr ? clear : *after, why);
        }
        _mended = std::move(done);
    }
    void plan_given_up() {
        for (const auto& [number, why] : _e.given_up()) {
            if (std::ranges::find(_found.mended, number, &mended_page::page) != _found.mended.end()) continue;
            add_lost(_e.layout().offset_of_md_page(number), page_bytes{},
                     fmt::format("page {}: written anew, since it cannot be read ({}): what was there is not known and "
                                 "cannot be brought back",
                                 number, why));
        }
    }
    void plan_end_of_rounds(std::ptrdiff_t at) {
        const auto& extension = _e.store()->extension;
        if (!extension || !extension->double_write.exists() || _found.double_write_lost) return;
        repair_plan rest;
        std::swap(rest, _plan);
        _plan.changes.assign(std::make_move_iterator(rest.changes.begin()),
                             std::make_move_iterator(rest.changes.begin() + at));
        const uint32_t header = extension->double_write.header_page(0);
        if (const page_bytes* now = _e.page(header); now != nullptr && is_round(*now))
            add(_e.layout().offset_of_md_page(header), *now, page_bytes{},
                fmt::format("page {}: what it says is written", header));
        _plan.changes.insert(_plan.changes.end(), std::make_move_iterator(rest.changes.begin() + at),
                             std::make_move_iterator(rest.changes.end()));
    }

    // What a load may take for a round, also one that is damaged: it may be known all the same. Nothing else is
    // cleared: it may be a blob's.
    bool is_round(const page_bytes& header) const {
        const auto& extension = *_e.store()->extension;
        return format::find_double_write(header, extension.double_write.header_page(0), extension.double_write,
                                         extension.store, _e.layout())
                   .what != format::found_header::state::none;
    }

    // By these an undo sees that somebody has used the store since: whoever does changes one of them.
    void plan_witnesses() {
        auto keep = [this](uint64_t offset, std::span<const std::byte> now, std::string_view what) {
            if (now.empty() || std::ranges::find(_plan.changes, offset, &change::offset) != _plan.changes.end()) return;
            const std::vector<std::byte> bytes(now.begin(), now.end());
            _plan.changes.push_back({.offset = offset, .before = bytes, .after = bytes, .why = std::string(what)});
        };
        for (auto type : {mask_type::used_pages, mask_type::used_clusters, mask_type::used_blobids})
            keep(_e.layout().offset_of(region_of(type, _e.layout())), _e.mask_bytes(type), format::name_of(type));
        keep(0, _e.super_page(), "super block");
    }

    void plan_pages() {
        for (auto& [number, p] : std::move(_patches).take()) {
            const page_bytes* before = _mended.contains(number) ? _e.page(number) : _e.original(number);
            add(_e.layout().offset_of_md_page(number), before == nullptr ? page_bytes{} : *before, p.bytes,
                fmt::format("page {}: {}", number, p.why()));
        }
    }

    void plan_masks() {
        const std::pair<mask_type, const format::bit_mask*> masks[] = {
            {mask_type::used_pages, &_found.used_pages},
            {mask_type::used_clusters, &_found.used_clusters},
            {mask_type::used_blobids, &_found.used_blobids}};
        for (const auto& [type, bits] : masks) {
            const auto before = _e.mask_bytes(type);
            if (before.empty()) continue;
            std::vector<std::byte> after(before.size());
            format::encode_mask(*bits, type, after);
            add(_e.layout().offset_of(region_of(type, _e.layout())), before, after, std::string(format::name_of(type)));
        }
    }

    void plan_super() {
        format::super_block s = *_e.store();
        const bool rebuilt = !_e.rebuilt_from().empty();
        const bool damaged = rebuilt || _found.masks_lied || s.flipped || s.origin == format::super_origin::torn ||
                             s.origin == format::super_origin::clean_flag_torn;
        const bool can_be_clean = _found.can_be_clean;
        if (!damaged && (s.clean || !can_be_clean) && !_found.copy_due && _plan.empty()) return;
        // A mask that cannot be read may come back. It is as true as it was: a repair gives nobody anything new.
        const bool was_clean = s.clean;
        s.clean = was_clean || can_be_clean;
        if (s.extension) {
            ++s.extension->sequence;
            s.extension->next_stamp = stamp_after_all();
            s.extension->masks_stamp = 0;
            if (_found.double_write_lost) s.extension->double_write = {};
            if (_found.copy_lost) s.extension->copy_page = 0;
            plan_copy(s);
        }
        // The last of all: before it, whoever looks finds the same as this repair did.
        add_super(format::encode_super(s), rebuilt ? fmt::format("super block: made anew from {}", _e.rebuilt_from())
                                           : _found.masks_lied ? "super block: that the store was unloaded was not true"
                                           : damaged           ? "super block: made whole"
                                           : was_clean         ? "super block: a new sequence number"
                                           : s.clean
                                               ? "super block: unloaded"
                                               : "super block: a new sequence number; the store stays not unloaded");
    }
    // Over a first sector without a seal comes the sealed one by itself: however the page is torn then, it counts.
    void add_super(const page_bytes& bytes, const std::string& why) {
        page_bytes now = _e.super_page();
        if (format::first_sector_sealed(bytes) && !format::first_sector_sealed(now)) {
            const auto sealed = std::span(bytes).first(format::first_sector);
            add(0, std::span(now).first(format::first_sector), sealed, why + " (its first sector)");
            std::ranges::copy(sealed, now.begin());
        }
        add(0, now, bytes, why);
    }
    void plan_copy(const format::super_block& s) {
        const uint32_t page = s.extension->copy_page;
        if (page == 0 || _e.why_unreadable(page) != nullptr) return;
        const page_bytes* there = _e.original(page);
        const page_bytes now = there == nullptr ? page_bytes{} : *there;
        if (format::says_the_same(now, s)) return;
        add(_e.layout().offset_of_md_page(page), now, format::encode_super_copy(s),
            fmt::format("page {}: copy of the super block", page));
    }
    // One more than the latest in use, as serial numbers; 0 is none.
    uint32_t stamp_after_all() const {
        uint32_t latest = _e.store()->extension->next_stamp;
        for (const auto& [number, bytes] : _e.pages()) {
            const uint32_t stamp = format::header_of(bytes).stamp;
            const auto content = format::look_at(bytes, number).content;
            if (content != format::page_content::root && content != format::page_content::continuation &&
                content != format::page_content::extents)
                continue;
            if (stamp != 0 && (latest == 0 || static_cast<int32_t>(stamp - latest) >= 0)) latest = stamp + 1;
        }
        return latest == 0 ? 1 : latest;
    }

    void add(uint64_t offset, std::span<const std::byte> before, std::span<const std::byte> after, std::string why) {
        if (std::equal(before.begin(), before.end(), after.begin(), after.end())) return;
        _plan.changes.push_back({.offset = offset,
                                 .before = {before.begin(), before.end()},
                                 .after = {after.begin(), after.end()},
                                 .why = std::move(why)});
    }

    // Over what cannot be read; all of the page, so that it can be read again.
    void add_lost(uint64_t offset, const page_bytes& page, std::string why) {
        const std::vector<std::byte> zeroes(_e.layout().md_page_size);
        std::vector<std::byte> after = zeroes;
        std::ranges::copy(page, after.begin());
        _plan.changes.push_back(
            {.offset = offset, .before = zeroes, .after = std::move(after), .why = std::move(why), .lost = true});
    }

    const evidence& _e;
    const examination& _found;
    patcher _patches;
    repair_plan _plan;
    std::set<format::blob_id> _set_aside;  // for what they share
    std::set<uint32_t> _mended;            // pages that are written before everything else
};

}  // namespace

repair_plan plan_repair(const evidence& e, const examination& found) {
    if (e.store() == nullptr) return {};
    return planner(e, found).run();
}

}  // namespace varve::blob::check
