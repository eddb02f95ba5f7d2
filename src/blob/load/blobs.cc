// Loading, step 3: blobs are made of the pages that were read.
#include <fmt/format.h>

#include <algorithm>
#include <deque>

#include "blob/format/belief.h"
#include "blob/load/loader.h"
#include "thread/awaits.h"

namespace varve::blob {

namespace {

constexpr auto others_already = "clusters it names are others' already";
constexpr uint64_t per_page = format::clusters_per_extent_page;
constexpr unsigned pages_at_once = 32;  // looked at before others have their turn
constexpr uint8_t users_max = 2;        // a half-made snapshot and its clone; more cannot be

std::string why_not_opened(const format::blob_record& r) {
    if ((r.flags.invalid & format::invalid_flag::set_aside) == 0) return "it uses features this version does not know";
    const std::string* why = r.internal_xattrs.find(format::xattr_set_aside);
    return why == nullptr ? "varve fsck set it aside" : "varve fsck set it aside: " + *why;
}

}  // namespace

struct loader::named {
    explicit named(const format::geometry& g) : pages(g.md.count), clusters(g.cluster_count) {}
    void add(const blob_state& b) {
        for (uint32_t p : b.record.pages) pages.set(p);
        for (uint32_t p : b.extent_pages) pages.set(p);
        const layout& l = *b.current;
        for (uint64_t i = l.next(0); i < l.size; i = l.next(i + 1)) clusters.set(l.at(i));
    }
    format::bit_mask pages, clusters;
};

loader::named loader::named_by_all() const {
    named all(_g);
    for (const auto& [id, b] : _s._blobs) all.add(*b);
    return all;
}

format::bit_mask loader::pages_named() const { return named_by_all().pages; }

task<> loader::find_blobs() {
    _s._blobs.clear();
    _guessed.clear();
    _old_roots.clear();
    _owners_unknown = false;
    co_await forget_the_deleted();
    _extent_page_users = sparse<uint8_t>(_g.md.count);
    _cluster_users = sparse<uint8_t>(_g.cluster_count);
    std::vector<std::unique_ptr<blob_state>> unmarked;
    // Of all pages only those that hold something, cannot be read, or are marked as a blob's first.
    uint64_t held = 0, id = 0;
    auto bad = _unreadable.begin();
    for (uint64_t at = 0;; ++at) {
        if (held <= at) held = _pages.next(at);
        if (id <= at) id = _used_ids ? _used_ids->next(static_cast<uint32_t>(at)) : _g.md.count;
        while (bad != _unreadable.end() && bad->first < at) ++bad;
        at = std::min(held, id);
        if (bad != _unreadable.end()) at = std::min<uint64_t>(at, bad->first);
        if (at >= _g.md.count) break;
        const auto p = static_cast<uint32_t>(at);
        const format::page_bytes* bytes = page(p);
        if (bytes != nullptr) co_await look_at_one();
        if (bytes != nullptr) _s._stamp = std::max(_s._stamp, format::header_of(*bytes).stamp);
        const bool marked = _clean && _used_ids->test(p) && !is_nothing(p);
        if (!marked && (bytes == nullptr || !is_root(p))) {
            if (_clean || !_unreadable.contains(p) || !_used_ids || !_used_ids->test(p)) continue;
        }
        auto b = std::make_unique<blob_state>(_s, format::id_of_root_page(p));
        if (_clean && !marked) {
            unmarked.push_back(std::move(b));
        } else {
            decode(*b);
            _s._blobs.emplace(b->id, std::move(b));
        }
    }
    if (unmarked.empty()) co_return;
    const named by_others = named_by_all();
    for (auto& b : unmarked) {
        co_await look_at_one();
        const bool unknown = _owners_unknown;
        const std::size_t guessed = _guessed.size();
        decode(*b);
        if (is_alive(*b, by_others)) {
            _s._blobs.emplace(b->id, std::move(b));
            continue;
        }
        _owners_unknown = unknown;
        _guessed.resize(guessed);
        _old_roots.push_back(format::root_page_of(b->id));
    }
}

task<> loader::look_at_one() {
    step();
    if (++_looked_at % pages_at_once == 0) co_await yield();
}

task<> loader::forget_the_deleted() {
    if (_clean) co_return;
    const auto& extension = _s._super.extension;
    const format::last_masks masks(_s._super, _used_pages ? &*_used_pages : nullptr, _used_ids ? &*_used_ids : nullptr,
                                   extension ? page(extension->double_write.first) : nullptr);
    _s._masks_doubted = !masks.tell();  // what is believed now must be when they can be read again
    for (uint64_t at = _pages.next(0); at < _pages.size(); at = _pages.next(at + 1)) {
        const auto p = static_cast<uint32_t>(at);
        const format::page_bytes* bytes = page(p);
        if (bytes == nullptr) continue;
        const format::page_header h = format::header_of(*bytes);
        if (h.id != format::id_of_root_page(p) || !masks.call_deleted(p, h)) continue;
        co_await look_at_one();
        if (format::look_at(*bytes, p).content != format::page_content::root) continue;
        _pages[p].reset();
        _old_roots.push_back(p);
    }
}

// That a blob begins there is said by one bit alone: the page is clear, and a mask has it as free; or it is whole, and
// another's.
bool loader::is_nothing(uint32_t p) const {
    if (const format::page_bytes* bytes = page(p)) {
        const format::page_content what = format::look_at(*bytes, p).content;
        return what == format::page_content::continuation || what == format::page_content::extents;
    }
    return _read_all && page(p) == nullptr && !_unreadable.contains(p) && !_used_pages->test(p);
}

// What begins a blob, or did before it was damaged: by its own word, that of its checksum, or the mask's of the last
// time the store was unloaded.
bool loader::is_root(uint32_t p) const {
    const format::page_bytes& bytes = *page(p);
    const format::glimpse seen = format::look_at(bytes, p);
    if (seen.content == format::page_content::root) return true;
    if (_clean || seen.content != format::page_content::damaged) return false;
    if (seen.header.id == format::id_of_root_page(p) && seen.header.sequence == 0) return true;
    const bool says_nothing = seen.header.id != 0 && !_g.has_blob_id(seen.header.id);
    if (says_nothing && _used_ids && _used_ids->test(p)) return true;  // not a new page of another blob, torn
    auto mended = format::without_flipped_bit(bytes);
    return mended && format::look_at(*mended, p).content == format::page_content::root;
}

// The masks of a store that was unloaded are exactly what its blobs have; what is not so is read closely.
bool loader::masks_fit() const {
    for (uint64_t at = _pages.next(0); at < _pages.size(); at = _pages.next(at + 1)) {
        const format::page_bytes* bytes = page(static_cast<uint32_t>(at));
        if (bytes != nullptr && format::is_later(format::header_of(*bytes).stamp, _s._super)) return false;
    }
    named all = named_by_all();
    for (const auto& [id, b] : _s._blobs) {
        if (b->set_aside()) return false;
    }
    if (_s._super.extension && _s._super.extension->double_write.exists()) {
        const auto& area = _s._super.extension->double_write;
        if (format::has_area(*_used_pages, area)) all.pages.set(area.first, area.page_count());
    }
    if (_s._super.extension && _s._super.extension->copy_page != 0 && page(_s._super.extension->copy_page) != nullptr) {
        all.pages.set(_s._super.extension->copy_page);
    }
    all.clusters.set(0, _g.first_data_cluster);
    return all.pages == *_used_pages && all.clusters == *_used_clusters;
}

// A whole first page that the mask of blob ids does not have. A deletion frees the blob's pages and clusters, too, and
// others have them by and by; one bit that flipped does not. One that was written after the super block is not of the
// time of the masks.
bool loader::is_alive(const blob_state& b, const named& by_others) const {
    const uint32_t root = format::root_page_of(b.id);
    if (_used_pages->test(root) && !by_others.pages.test(root)) return true;
    bool owns = false, others = false;
    const layout& l = *b.current;
    for (uint64_t i = l.next(0); i < l.size; i = l.next(i + 1)) {
        const uint32_t c = l.at(i);
        others = others || by_others.clusters.test(c);
        owns = owns || _used_clusters->test(c);
    }
    return (owns || format::is_later(b.record.stamp, _s._super)) && !others;
}

void loader::decode(blob_state& b) {
    auto [record, wrong] = decode_chain(b);
    b.record = std::move(record);
    std::unique_ptr<layout> l;
    if (auto made = make_layout(b.record.cluster_count)) {
        l = std::move(*made);
        auto wrong_extents = decode_extents(b, *l);
        if (!wrong) wrong = std::move(wrong_extents);
    } else {
        if (!wrong) wrong = std::move(made).error();
        l = claims_of(b);
    }
    result<> outcome;
    if (wrong) outcome = fail(std::move(*wrong));
    if (outcome && b.record.access() == format::blob_access::none) {
        outcome = fail(error(errc::unsupported, why_not_opened(b.record)));
    }
    if (outcome && b.is_external_clone()) {
        const std::string* id = b.record.internal_xattrs.find(format::xattr_external_parent);
        if (id == nullptr || id->empty()) {
            outcome = fail(errc::bad_sequence, "it does not say of which external snapshot it is a clone");
        } else {
            l->external = &_s.external(*id);
        }
    }
    for (uint64_t i = l->next(0); i < l->size; i = l->next(i + 1)) ++b.allocated;
    b.replace_layout(std::move(l)).reset();
    if (!outcome) set_aside(b, outcome.error().message());
}

result<std::unique_ptr<layout>> loader::make_layout(uint64_t clusters) {
    if (clusters <= clusters_max) return layout::make(clusters);
    return fail(errc::unsupported, fmt::format("it has {} clusters, more than 2^28", clusters));
}

// A run of eight bytes may name all clusters there are, and so may a thousand blobs. False: two do already, and nobody
// knows what else this one has.
bool loader::use_of_run(uint32_t cluster) {
    step();
    uint8_t& users = _cluster_users[cluster];
    if (users >= users_max) {
        _owners_unknown = true;
        return false;
    }
    ++users;
    return true;
}

// For whose map there is no room: what it names, in any order, so that nobody else gets it.
std::unique_ptr<layout> loader::claims_of(blob_state& b) {
    std::vector<uint32_t> named;
    const std::size_t at_most = std::min<uint64_t>(_g.cluster_count, clusters_max);
    for (const format::cluster_run& run : b.record.runs) {
        for (uint32_t i = 0; run.first != no_cluster && i < run.count && named.size() < at_most; ++i) {
            if (!use_of_run(run.first + i)) break;
            named.push_back(run.first + i);
        }
    }
    for (const format::extent_page_run& run : b.record.extent_pages) {
        if (run.page == 0) continue;
        b.extent_pages.append(run.page);
        if (page(run.page) == nullptr) continue;
        step(per_page);
        if (_extent_page_users[run.page] >= users_max) {
            _owners_unknown = true;
            continue;
        }
        ++_extent_page_users[run.page];
        auto extent = format::decode_extent_page(*page(run.page), run.page, _g);
        for (uint32_t c : extent ? extent->clusters : std::vector<uint32_t>()) {
            if (c != no_cluster && named.size() < at_most) named.push_back(c);
        }
    }
    auto l = layout::make(named.size());
    if (!l) l = layout::make(0);
    for (uint64_t i = 0; i < (*l)->size; ++i) (*l)->put(i, named[i]);
    return std::move(*l);
}

error loader::cannot_read(uint32_t p, std::string_view what) const {
    if (page(p) != nullptr) return {errc::bad_sequence, fmt::format("{} is damaged", what)};
    auto found = _unreadable.find(p);
    if (found == _unreadable.end()) return {errc::bad_sequence, fmt::format("{} is clear", what)};
    return {errc::io, fmt::format("{} cannot be read: {}", what, found->second)};
}

// As far as it goes. A page in which one bit flipped still says what the blob has, though not that all is well.
format::decoded_chain loader::decode_chain(blob_state& b) {
    const format::blob_id id = b.id;
    std::vector<format::numbered_page> chain;
    std::deque<format::page_bytes> mended;
    std::optional<error> wrong;
    std::optional<uint32_t> lost;  // a page that cannot be read
    bool whole = true;
    for (uint32_t p = format::root_page_of(id);;) {
        const format::page_bytes* bytes = page(p);
        if (bytes == nullptr || !format::crc_right(*bytes)) {
            if (!wrong) wrong = cannot_read(p, fmt::format("page {} of its chain", p));
            auto put_right = bytes == nullptr ? std::nullopt : format::without_flipped_bit(*bytes);
            whole = put_right.has_value();
            if (_unreadable.contains(p)) lost = p;
            if (!whole) break;
            bytes = &mended.emplace_back(*put_right);
        }
        chain.push_back({p, *bytes});
        const format::page_header h = format::header_of(*bytes);
        // A page has one sequence, so a chain that is in order ends.
        whole = h.id == id && h.sequence == chain.size() - 1 && (h.next == format::no_page || _g.has_md_page(h.next));
        if (!whole || h.next == format::no_page) break;
        p = h.next;
    }
    auto out = format::decode_chain_as_far_as_possible(chain, _g);
    if (wrong) out.wrong = std::move(wrong);
    const bool cut = !whole || out.record.pages.size() < chain.size();
    if (cut) _owners_unknown = true;
    // Its flags are in its first page; a thick blob has no parent.
    const auto& flags = out.record.flags;
    const bool external = (flags.invalid & format::invalid_flag::external_snapshot) != 0;
    const bool may_have_parent = out.record.pages.empty() || (out.record.thin() && !external);
    b.parent_unknown = (cut && may_have_parent && out.record.internal_xattrs.find(format::xattr_parent) == nullptr) ||
                       (flags.invalid & format::invalid_flag::parent_lost) != 0;
    out.record.id = id;
    if (out.record.pages.empty()) out.record.pages.assign(1, format::root_page_of(id));
    if (lost && *lost != out.record.pages[0]) out.record.pages.push_back(*lost);  // it is known whose it is
    return out;
}

// All that can be read, and the first thing that is wrong.
std::optional<error> loader::decode_extents(blob_state& b, layout& l) {
    std::optional<error> wrong;
    uint64_t at = 0, named = 0;
    for (const format::cluster_run& run : b.record.runs) {
        if (run.first == no_cluster) {
            at += run.count;
            continue;
        }
        named += run.count;
        if (named > _g.cluster_count) {
            wrong = error(errc::bad_sequence, "it names more clusters than there are");
            break;
        }
        for (uint32_t i = 0; i < run.count && at < l.size && !wrong; ++i, ++at) {
            if (!use_of_run(run.first + i)) wrong = error(errc::bad_sequence, others_already);
            if (!wrong) l.put(at, run.first + i);
        }
        if (wrong) break;
    }
    const uint64_t pages = b.record.extent_page_count();  // the table may be longer, by 2^32 with eight bytes
    for (const format::extent_page_run& run : b.record.extent_pages) {
        const uint64_t room = pages - b.extent_pages.size();
        if (run.count > room) wrong = error(errc::bad_sequence, "its extent table is longer than it is");
        b.extent_pages.append(run.page, std::min<uint64_t>(run.count, room));
    }
    const extent_table& its = b.extent_pages;
    for (uint64_t index = its.next(0); index < its.size(); index = its.next(index + 1)) {
        std::optional<error> here;
        auto extent = decode_extent_page(b, index, here);
        if (!extent) here = std::move(extent).error();
        if (here && !wrong) wrong = std::move(here);
        if (!extent) continue;
        uint64_t first = index * per_page;
        for (uint64_t i = 0; i < extent->clusters.size() && first + i < l.size; ++i) {
            if (extent->clusters[i] != no_cluster) l.put(first + i, extent->clusters[i]);
        }
    }
    return wrong;
}

// `wrong`: set when there are clusters all the same.
result<format::extent_page> loader::decode_extent_page(blob_state& b, uint64_t index, std::optional<error>& wrong) {
    const uint32_t p = b.extent_pages[index];
    const format::page_bytes* bytes = page(p);
    if (bytes == nullptr) {
        _owners_unknown = true;
        return fail(cannot_read(p, fmt::format("its extent page {}", p)));
    }
    step(per_page);
    if (_extent_page_users[p]++ >= users_max) {
        _extent_page_users[p] = users_max;
        return fail(errc::bad_sequence, fmt::format("its extent page {} is others' already", p));
    }
    std::optional<format::page_bytes> mended;
    if (!format::crc_right(*bytes)) {
        wrong = cannot_read(p, fmt::format("its extent page {}", p));
        mended = format::without_flipped_bit(*bytes);
        if (mended) bytes = &*mended;
    }
    auto whole = format::decode_extent_page(*bytes, p, _g);
    if (whole) {
        auto placed = format::check_place(*whole, p, b.record, index);
        if (!placed) wrong = std::move(placed).error();
        if (whole->first_cluster == index * per_page) return whole;
    }
    if (!wrong) wrong = std::move(whole).error();
    auto rest = format::salvage_extent_page(*bytes, p, _g);
    const bool in_place = rest && rest->page.first_cluster == index * per_page;
    if (in_place && format::crc_right(*bytes)) return std::move(rest->page);
    _owners_unknown = true;
    if (in_place) {
        const uint32_t mine = b.record.clusters_in_extent_page(index);
        for (std::size_t i = 0; i < rest->page.clusters.size() && i < mine; ++i) {
            if (rest->page.clusters[i] != no_cluster) _guessed.push_back(rest->page.clusters[i]);
        }
    }
    return fail(std::move(*wrong));
}

}  // namespace varve::blob
