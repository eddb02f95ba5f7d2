// Opening a store: what the metadata region says, each page read once, whether the store was unloaded or died.
//
//   1. what the double-write area holds of a round that was committed is repeated;
//   2. the metadata region is read, in large pieces at once: all of it, or, when the masks can be believed, the pieces
//      with used pages;
//   3. blobs are made of the chains that begin at root pages; what a crash left half done is found finished or not
//      begun; what cannot be read or understood, or is claimed twice, is set aside and the rest served;
//   4. what is free is what nobody claims or may have. On disk nothing changes but leavings of half-done snapshots.
// Masks have no checksums: when those of a store that was unloaded contradict what is found, everything is read.
#include "blob/load/loader.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstring>

#include "blob/check/search.h"
#include "blob/format/belief.h"
#include "blob/format/super_copy.h"
#include "env/system.h"
#include "thread/awaits.h"

namespace varve::blob {

namespace {

constexpr std::size_t piece_bytes = 256 * 1024;
constexpr unsigned readers = 8;
constexpr uint64_t claims_at_once = 65536;  // before others have their turn
constexpr unsigned ranges_at_once = 64;     // likewise
constexpr std::string_view lost_super = "; varve fsck --repair may find what it said";

}  // namespace

task<std::unique_ptr<store>> store::load(bdev::registry& devices, bdev::descriptor base, load_options how) {
    const uint32_t block = base->block_size();
    format::device_shape shape{{base->num_blocks() * block}, block};
    if (shape.size.value < format::page_size) co_await fail(errc::bad_sequence, "too small for a blobstore");
    format::super_block super;
    {
        disk on(devices, std::move(base));
        env::buffer memory = co_await on.memory(round_up(format::page_size, block));
        co_await on.read(0, memory.bytes());
        const auto page = memory.bytes().first<format::page_size>();
        auto decoded = format::decode_super(page, shape);
        if (!decoded && decoded.error().code() == errc::bad_sequence && check::is_mostly_super(page)) {
            co_await fail(errc::bad_sequence, fmt::format("{}{}", decoded.error().message(), lost_super));
        }
        super = co_await std::move(decoded);
        co_await format::check_memory(super.layout);
        base = std::move(on).close();
    }
    if (!how.type.empty() && super.type_text() != how.type) {
        co_await fail(errc::invalid, fmt::format("the blobstore is of type {}, not {}", super.type_text(), how.type));
    }
    std::unique_ptr<store> made(new store(devices, std::move(base), std::move(super)));
    made->_externals = how.externals;
    made->_log = how.log;
    loader all(*made, how.steps);
    result<> outcome = co_await as_result(all.run());
    if (!outcome) {
        co_await made->abandon();
        co_await std::move(outcome);
    }
    co_await made->open_externals();
    if (how.trim) made->start_trimming();
    co_return made;
}

// Of the memory that the machine can spare a load takes half. Who cannot tell has enough.
uint64_t loader::pages_to_spare(env::system& world) {
    auto known = world.read_text("/proc/meminfo");
    const std::string text = known ? std::move(*known) : std::string();
    constexpr std::string_view name = "MemAvailable:";
    std::size_t at = text.find(name);
    if (at == std::string::npos) return UINT64_MAX;
    at = text.find_first_not_of(' ', at + name.size());
    uint64_t kib = 0;
    if (at == std::string::npos) return UINT64_MAX;
    auto end = std::from_chars(text.data() + at, text.data() + text.size(), kib);
    return end.ec == std::errc() ? kib * 1024 / 2 / sizeof(format::page_bytes) : UINT64_MAX;
}

task<> loader::run() {
    _pages_held_max = pages_to_spare(_s._devices.world());
    co_await read_masks();
    co_await doubt_masks();
    co_await repeat_round();
    co_await find_data();  // anew: a round may have filled a hole
    co_await read_metadata();
    co_await find_blobs();
    if (_clean && !masks_fit()) {
        _read_all = _s._masks_doubted = true;
        co_await read_metadata();
        co_await find_blobs();
    }
    judge_unreadable();
    link_parents();
    settle_drafts();
    _page_owner = sparse<blob_state*>(_g.md.count);
    _cluster_owner = sparse<blob_state*>(_g.cluster_count);
    for (auto& [id, b] : _s._blobs) co_await claim(*b);
    std::erase_if(_dropped_pages, [this](uint32_t p) { return !_s._space.claim_page(p); });
    if (set_aside_clones_of_the_damaged() || _owners_unknown) co_await keep_what_the_damaged_may_have();
    const bool has_copy = claim_copy();
    claim_area();
    const auto& extension = *_s._super.extension;
    _s._commits = std::make_unique<committer>(_s._disk, _g, extension.store, extension.double_write, _s._round);
    find_old_roots();
    if (!has_copy) _s.adopt_copy_page();
    if (extension.copy_page != 0 && !format::says_the_same(_s._copy, _s._super)) _s._area_is_new = true;
    co_await tidy();
    if (!_clean) _s._space.all_are_stale();  // a crash may have kept the data of a write, and lost its mapping
}

// --- reading

task<std::optional<format::bit_mask>> loader::read_mask(format::mask_type type, format::page_range where,
                                                        uint32_t bits) {
    if (where.count == 0) co_return std::nullopt;
    env::buffer memory = co_await _s._disk.memory(_g.bytes_of_mask(where, bits));
    result<> outcome = co_await read_patiently(_g.offset_of(where), memory.bytes());
    if (!outcome) {
        _s._unreadable.mask = true;
        co_return std::nullopt;
    }
    auto mask = format::decode_mask(memory.bytes(), type, bits, !_s._super.clean);
    if (!mask) co_return std::nullopt;
    co_return std::move(*mask);
}

task<> loader::read_masks() {
    _used_pages = co_await read_mask(format::mask_type::used_pages, _g.page_mask, _g.md.count);
    _used_clusters = co_await read_mask(format::mask_type::used_clusters, _g.cluster_mask, _g.cluster_count);
    _used_ids = co_await read_mask(format::mask_type::used_blobids, _g.blobid_mask, _g.md.count);
    _clean = _s._super.masks_are_true() && _used_pages && _used_clusters && _used_ids;
}

// What they deny may be a blob's, if they are not of the last unload: then the store died. That it is said to be
// unloaded becomes true before anything else is changed.
task<> loader::doubt_masks() {
    if (!_clean || !format::are_doubtful(_s._super, *_used_pages, *_used_ids)) co_return;
    _read_all = true;
    co_await find_data();
    co_await read_metadata();
    for (uint64_t at = _pages.next(0); at < _pages.size() && !_masks_lied; at = _pages.next(at + 1)) {
        const auto p = static_cast<uint32_t>(at);
        const format::page_bytes* bytes = page(p);
        _masks_lied = bytes != nullptr && format::speaks_against_masks(_s._super, *_used_ids, *bytes, p);
    }
    if (!_masks_lied) co_return;
    _clean = _s._super.clean = false;
    _pages = sparse<std::unique_ptr<format::page_bytes>>(_g.md.count);  // a round may change them
    _pages_held = 0;
    _unreadable.clear();
}

// Who cannot tell where nothing is has something everywhere.
task<> loader::find_data() {
    const uint64_t begin = _g.offset_of_md_page(0), size = _g.md_page_size;
    const uint64_t end = begin + _g.md.count * size;
    _with_data.clear();
    for (uint64_t at = begin; at < end;) {
        auto data = co_await as_result(_s._disk.next_data(at));
        const uint64_t from = std::max(at, data.value_or(at));
        if (from >= end) break;
        auto hole = co_await as_result(_s._disk.next_hole(from));
        const uint64_t first = (from - begin) / size;
        const uint64_t last = std::min<uint64_t>(_g.md.count, (std::min(hole.value_or(end), end) - begin) / size + 1);
        _with_data.push_back({static_cast<uint32_t>(first), static_cast<uint32_t>(last - first)});
        at = begin + last * size;
        if (_with_data.size() % ranges_at_once == 0) co_await yield();
    }
}

struct loader::progress {
    std::size_t range = 0;
    uint32_t done = 0;  // of it
};

task<> loader::read_metadata() {
    crew all;
    progress common;
    for (unsigned i = 0; i < readers; ++i) all.start(read_pieces(common));
    co_await all.done();
}

// One of several that read side by side, each again and again into the same memory: it stays in the processor's cache,
// and the system need not find new memory for every piece.
task<> loader::read_pieces(progress& all) {
    const auto pages = static_cast<uint32_t>(std::max<std::size_t>(1, piece_bytes / _g.md_page_size));
    env::buffer memory = co_await _s._disk.memory(uint64_t{pages} * _g.md_page_size);
    while (all.range < _with_data.size()) {
        if (_pages_held > _pages_held_max) {
            co_await fail(errc::no_memory, fmt::format("the metadata has to be read as a whole, and more than {} pages "
                                                       "of it hold something: half of the memory that is available",
                                                       _pages_held_max));
        }
        const format::page_range& here = _with_data[all.range];
        const uint32_t first = here.first + all.done, count = std::min(pages, here.count - all.done);
        all.done += count;
        if (all.done == here.count) all = {.range = all.range + 1};
        bool any = false;
        for (uint32_t p = first; p < first + count && !any; ++p) any = wanted(p);
        if (!any) continue;
        auto piece = memory.bytes().first(uint64_t{count} * _g.md_page_size);
        if (!co_await as_result(_s._disk.read(_g.offset_of_md_page(first), piece))) {
            co_await read_one_by_one(first, count, piece.first(_g.md_page_size));
            continue;
        }
        for (uint32_t i = 0; i < count; ++i) {
            take_page(first + i, piece.subspan(uint64_t{i} * _g.md_page_size).first<format::page_size>());
        }
    }
}

void loader::take_page(uint32_t number, format::page_view bytes) {
    if (format::is_clear(bytes)) {
        _unreadable.erase(number);
        return;
    }
    // What a deletion left is looked at where it is seen: after a crash nobody could tell it from a blob.
    if (!wanted(number) && format::look_at(bytes, number).content != format::page_content::root) return;
    _unreadable.erase(number);
    auto& held = _pages[number];
    if (!held) ++_pages_held;
    held = std::make_unique<format::page_bytes>();
    std::ranges::copy(bytes, held->begin());
}

// Of a piece that could not be read: which pages it is.
task<> loader::read_one_by_one(uint32_t first, uint32_t count, std::span<std::byte> memory) {
    for (uint32_t p = first; p < first + count; ++p) {
        if (!wanted(p)) continue;
        result<> outcome = co_await read_patiently(_g.offset_of_md_page(p), memory);
        if (outcome) {
            take_page(p, memory.first<format::page_size>());
        } else {
            _unreadable.emplace(p, outcome.error().message());
        }
    }
}

// --- blobs among each other

void loader::set_aside(blob_state& b, std::string why) {
    if (!b.set_aside()) b.damage = std::move(why);
}

// The first who names a page or cluster does not know of the second: both are set aside, and nobody writes there.
task<> loader::claim(blob_state& b) {
    step();
    auto take = [&](sparse<blob_state*>& owners, uint32_t at, std::string_view what) {
        step();
        ++_claimed;
        blob_state*& owner = owners[at];
        if (owner == nullptr) {
            owner = &b;
            return true;
        }
        auto blame = [&](blob_state& whom, blob_id other) {
            if (!whom.set_aside()) set_aside(whom, fmt::format("{} {} is also in blob 0x{:x}", what, at, other));
        };
        blame(*owner, b.id);
        blame(b, owner->id);
        return false;
    };
    for (uint32_t p : b.record.pages) {
        if (take(_page_owner, p, "page")) _s._space.claim_page(p);
    }
    for (uint32_t p : b.extent_pages) {
        if (take(_page_owner, p, "page")) _s._space.claim_page(p);
    }
    const layout& l = *b.current;
    for (uint64_t i = l.next(0); i < l.size; i = l.next(i + 1)) {
        if (take(_cluster_owner, l.at(i), "cluster")) _s._space.claim_cluster(l.at(i));
        if (_claimed >= claims_at_once) {
            _claimed = 0;
            co_await yield();
        }
    }
}

// What damaged pages still name, and what the masks of the last unload call used. That is all there can be if the store
// was unloaded. If not, a blob whose pages cannot be understood may have got anything since: then nothing is given to
// others that has no known owner, but pages that hold nothing, until that blob is removed.
task<> loader::keep_what_the_damaged_may_have() {
    const bool all = _owners_unknown && !_clean;
    _s._kept_clusters = bitmap(_g.cluster_count);
    for (uint32_t c : _guessed) {
        if (_s._space.claim_cluster(c)) _s._kept_clusters.set(c);
    }
    for (uint32_t c = _g.first_data_cluster; c < _g.cluster_count; ++c) {
        if (c % claims_at_once == 0) co_await yield();
        const bool kept = all || (_used_clusters && _used_clusters->test(c));
        if (kept && _s._space.claim_cluster(c)) _s._kept_clusters.set(c);
    }
    auto keep_page = [this](uint64_t p) {
        if (_s._space.claim_page(static_cast<uint32_t>(p))) _s._kept_pages.push_back(static_cast<uint32_t>(p));
    };
    for (uint64_t p = _pages.next(0); all && p < _pages.size(); p = _pages.next(p + 1)) {
        if (page(static_cast<uint32_t>(p)) != nullptr) keep_page(p);
    }
    for (auto at = _unreadable.begin(); all && at != _unreadable.end(); ++at) keep_page(at->first);
    for (uint32_t p = 0; _used_pages && (p = _used_pages->next(p)) < _g.md.count; ++p) keep_page(p);
    // A blob that got the id of a parent that is gone would be read through the clone.
    for (const auto& [id, b] : _s._blobs) {
        const auto parent = b->record.id_in(format::xattr_parent);
        if (!parent || !*parent || _s._blobs.contains(**parent)) continue;
        if (const uint32_t p = format::root_page_of(**parent); p < _g.md.count) keep_page(p);
    }
}

// SPDK does not know of the area; it may have given its pages to blobs.
void loader::claim_area() {
    auto& extension = _s._super.extension;
    if (extension && extension->double_write.exists() &&
        extension->double_write.per_slot >= committer::per_slot_least) {
        const auto area = extension->double_write;
        bool free = true;
        for (uint32_t p = 0; p < area.page_count(); ++p) free = free && _page_owner.get(area.first + p) == nullptr;
        free = free && std::ranges::none_of(_dropped_pages, [&](uint32_t p) { return area.holds(p); });
        for (uint32_t p = 0; free && p < area.page_count(); ++p) _s._space.claim_page(area.first + p);
        // The next load ignores the area unless the mask has it and varve wrote the super block last.
        _s._area_is_new =
            _masks_lied || !super_is_ours() || !_used_pages || !_used_pages->all(area.first, area.page_count());
        if (free) return;
    }
    if (!extension) extension.emplace().store = _s._devices.world().make_uuid();
    extension->double_write = {};
    _s.adopt_area();
    _s._area_is_new = true;
}

// The page is the store's own when it holds a copy that was made for it and nobody has it; else another is taken, with
// the store's first change. So is one that says something else written anew then.
bool loader::claim_copy() {
    if (!_s._super.extension) return false;
    const auto& extension = *_s._super.extension;
    const uint32_t p = extension.copy_page;
    if (p == 0 || !_used_pages || !_used_pages->test(p) || _page_owner.get(p) != nullptr || page(p) == nullptr)
        return false;
    if (std::ranges::find(_dropped_pages, p) != _dropped_pages.end()) return false;
    if (!format::is_copy_of(*page(p), extension.store, p)) return false;
    _s._space.claim_page(p);  // or it was kept with what damaged blobs may have
    _s._copy = *page(p);
    return true;
}

void loader::find_old_roots() {
    for (uint32_t p : _old_roots) {
        if (_page_owner.get(p) == nullptr && !_s._space.page_used(p)) _s._old_roots.push_back(p);
    }
}

// Before the store's first change, since it is not unloaded from then on. The beginning of a page goes first: where
// that is not what remains of a blob, nothing is.
task<> store::clear_old_roots() {
    auto one = co_await _burying.lock();
    env::buffer zeroes = co_await _disk.memory(_super.layout.md_page_size);
    for (std::size_t bytes : {std::size_t{_disk.block_size()}, zeroes.size()}) {
        const uint64_t since = _disk.flushes_failed();
        for (uint32_t p : _old_roots) {
            co_await _disk.write(_super.layout.offset_of_md_page(p), zeroes.bytes().first(bytes));
        }
        co_await _disk.flush_since(since);
    }
    _old_roots.clear();
}

task<> loader::tidy() {
    for (uint32_t p : _to_clear) {
        if (_page_owner.get(p) != nullptr) continue;
        co_await _s.begin_change();
        std::vector<page_write> root(1);
        root[0].page = p;
        co_await _s._commits->commit(std::move(root));
    }
    for (uint32_t p : _dropped_pages) _s._space.free_page(p);
    if (!_to_rewrite.empty()) co_await _s.begin_change();
    // What a clone no longer names goes before the mark that lets it.
    auto saved = co_await as_result(_s.save_all());
    if (!saved && saved.error().code() != errc::no_space) co_await std::move(saved);
    for (auto& [id, marked] : _to_rewrite) {
        blob_state& b = *_s._blobs.at(id);
        const bool written = saved && !b.set_aside() && co_await write_unmarked(b);
        if (!written) b.record.internal_xattrs = std::move(marked);
    }
}

// A store that is full is opened all the same: the mark stays, and says what it said, until something is done to the
// snapshot or its clone, which takes it out before (settle_parent). Whether it is out.
task<bool> loader::write_unmarked(blob_state& b) {
    co_await _s.begin_change();
    auto r = _s.revise(b);
    result<> outcome = co_await as_result(_s.commit(b, r));
    if (!outcome && outcome.error().code() == errc::no_space) outcome = co_await as_result(rewrite_in_place(b));
    if (!outcome && outcome.error().code() != errc::no_space) co_await std::move(outcome);
    co_return outcome.has_value();
}

// Without new pages: in one round over the old ones, as far as the double-write area makes it one.
task<> loader::rewrite_in_place(blob_state& b) {
    format::blob_record next = b.record;
    next.extent_pages.clear();
    if (next.uses_extent_table) next.extent_pages = b.extent_pages.runs();
    next.stamp = _s.next_stamp();
    const std::size_t pages = co_await format::chain_length(next);
    if (pages > next.pages.size() || !_s._commits->is_whole(pages)) co_await fail(errc::no_space, "no page is free");
    next.pages.resize(pages);
    const std::vector<format::page_bytes> chain = co_await format::encode_chain(next);
    std::vector<page_write> all;
    for (std::size_t i = 0; i < pages; ++i) all.push_back({next.pages[i], chain[i]});
    co_await _s._commits->commit(std::move(all));
    for (std::size_t i = pages; i < b.record.pages.size(); ++i) _s._space.free_page(b.record.pages[i]);
    b.record = std::move(next);
}

}  // namespace varve::blob
