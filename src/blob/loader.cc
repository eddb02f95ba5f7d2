// Opening a store: what the metadata region says, each page read once, whether the store was unloaded or died.
//
//   1. what the double-write area holds of a round that was committed is repeated;
//   2. the metadata region is read, in large pieces at once: all of it, or, when the masks can be believed, the pieces
//      with used pages;
//   3. blobs are made of the chains that begin at root pages; what a crash left half done is found finished or not
//      begun; what cannot be understood, or is claimed twice, is set aside and the rest served;
//   4. what is free is what nobody claims. On disk nothing changes but leavings of half-done snapshots.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "blob/store.h"
#include "env/system.h"

namespace varve::blob {

namespace {

constexpr uint64_t per_page = format::clusters_per_extent_page;
constexpr std::size_t piece_bytes = 256 * 1024;
constexpr unsigned readers = 8;

}  // namespace

class loader {
  public:
    explicit loader(store& s) : _s(s), _g(s._super.layout), _pages(_g.md.count) {}
    task<> run();

  private:
    task<> read_masks();
    task<std::optional<format::bit_mask>> read_mask(format::mask_type type, format::page_range where, uint32_t bits);
    task<> repeat_round();
    task<> read_metadata();
    task<> read_pieces(uint32_t& next);
    bool wanted(uint32_t page) const noexcept { return !_clean || _used_pages->test(page); }
    const format::page_bytes* page(uint32_t number) const noexcept {
        return number < _pages.size() ? _pages[number].get() : nullptr;
    }

    void find_blobs();
    void decode(blob_state& b);
    std::unique_ptr<layout> make_layout(blob_state& b, result<>& outcome);
    std::unique_ptr<layout> claims_of(blob_state& b);
    result<format::blob_record> decode_chain(format::blob_id id) const;
    result<> decode_extents(blob_state& b, layout& l);
    void link_parents();
    bool others_have_of(const blob_state& b) const;
    void settle_drafts();
    void claim(blob_state& b);
    void set_aside(blob_state& b, std::string why);
    void set_aside_clones_of_the_damaged();
    void claim_area();
    task<> tidy();

    store& _s;
    const format::geometry& _g;
    bool _clean = false;
    std::optional<format::bit_mask> _used_pages, _used_clusters, _used_ids;
    std::vector<std::unique_ptr<format::page_bytes>> _pages;  // of the region; null: clear, or not wanted
    std::vector<blob_state*> _page_owner, _cluster_owner;
    std::vector<uint32_t> _to_clear;       // roots of drafts that came to nothing
    std::vector<uint32_t> _dropped_pages;  // theirs: nobody else's before the roots are cleared
    std::vector<blob_state*> _to_rewrite;  // whose records are not as on disk
};

task<std::unique_ptr<store>> store::load(bdev::registry& devices, bdev::descriptor base, load_options how) {
    const uint32_t block = base->block_size();
    format::device_shape shape{{base->num_blocks() * block}, block};
    if (shape.size.value < format::page_size) co_await fail(errc::bad_sequence, "too small for a blobstore");
    format::super_block super;
    {
        disk on(devices, std::move(base));
        env::buffer memory = co_await on.memory(round_up(format::page_size, block));
        co_await on.read(0, memory.bytes());
        super = co_await format::decode_super(memory.bytes().first<format::page_size>(), shape);
        base = std::move(on).close();
    }
    if (!how.type.empty() && super.type_text() != how.type) {
        co_await fail(errc::invalid, fmt::format("the blobstore is of type {}, not {}", super.type_text(), how.type));
    }
    std::unique_ptr<store> made(new store(devices, std::move(base), std::move(super)));
    made->_externals = how.externals;
    result<> outcome = co_await as_result(loader(*made).run());
    if (!outcome) {
        co_await made->abandon();
        co_await std::move(outcome);
    }
    co_await made->open_externals();
    if (how.trim) made->start_trimming();
    co_return made;
}

task<> loader::run() {
    co_await read_masks();
    co_await repeat_round();
    co_await read_metadata();
    find_blobs();
    link_parents();
    settle_drafts();
    _page_owner.resize(_g.md.count);
    _cluster_owner.resize(_g.cluster_count);
    for (auto& [id, b] : _s._blobs) claim(*b);
    std::erase_if(_dropped_pages, [this](uint32_t p) { return !_s._space.claim_page(p); });
    set_aside_clones_of_the_damaged();
    claim_area();
    const auto& extension = *_s._super.extension;
    _s._commits = std::make_unique<committer>(_s._disk, _g, extension.store, extension.double_write, _s._round);
    co_await tidy();
    if (!_clean) _s._space.all_are_stale();  // a crash may have kept the data of a write, and lost its mapping
}

// --- reading

task<std::optional<format::bit_mask>> loader::read_mask(format::mask_type type, format::page_range where,
                                                        uint32_t bits) {
    if (where.count == 0) co_return std::nullopt;
    env::buffer memory = co_await _s._disk.memory(_g.bytes_of(where));
    co_await _s._disk.read(_g.offset_of(where), memory.bytes());
    auto mask = format::decode_mask(memory.bytes(), type, bits);
    if (!mask) co_return std::nullopt;
    co_return std::move(*mask);
}

task<> loader::read_masks() {
    _used_pages = co_await read_mask(format::mask_type::used_pages, _g.page_mask, _g.md.count);
    _used_clusters = co_await read_mask(format::mask_type::used_clusters, _g.cluster_mask, _g.cluster_count);
    _used_ids = co_await read_mask(format::mask_type::used_blobids, _g.blobid_mask, _g.md.count);
    _clean = _s._super.masks_are_true() && _used_pages && _used_clusters && _used_ids;
}

task<> loader::repeat_round() {
    if (!_s._super.extension || !_used_pages) co_return;
    const format::double_write_area area = _s._super.extension->double_write;
    if (!format::double_write_trusted(_s._super, *_used_pages)) co_return;
    const std::size_t stride = _g.md_page_size;
    env::buffer slot = co_await _s._disk.memory(area.per_slot * stride);
    co_await _s._disk.read(_g.offset_of_md_page(area.header_page(0)), slot.bytes());
    auto view = [&](std::size_t i) { return slot.bytes().subspan(i * stride).first<format::page_size>(); };
    auto header = format::decode_double_write(view(0), area.header_page(0), area, _s._super.extension->store, _g);
    if (!header) co_return;
    _s._round = header->sequence;
    std::vector<format::page_bytes> images(header->images.size());
    for (std::size_t i = 0; i < images.size(); ++i) std::ranges::copy(view(i + 1), images[i].begin());
    if (!format::is_whole(*header, images)) co_return;
    env::buffer memory = co_await _s._disk.memory(stride);
    for (std::size_t i = 0; i < images.size(); ++i) {
        const uint64_t offset = _g.offset_of_md_page(header->images[i].page);
        co_await _s._disk.read(offset, memory.bytes());
        if (!format::must_replay(*header, i, images[i], memory.bytes().first<format::page_size>())) continue;
        std::memset(memory.data(), 0, memory.size());
        std::ranges::copy(images[i], memory.data());
        co_await _s._disk.write(offset, memory.bytes());
    }
    co_await _s._disk.flush();
}

task<> loader::read_metadata() {
    crew all;
    uint32_t next = 0;
    for (unsigned i = 0; i < readers; ++i) all.start(read_pieces(next));
    co_await all.done();
}

// One of several that read side by side, each again and again into the same memory: it stays in the processor's cache,
// and the system need not find new memory for every piece.
task<> loader::read_pieces(uint32_t& next) {
    const auto pages = static_cast<uint32_t>(std::max<std::size_t>(1, piece_bytes / _g.md_page_size));
    env::buffer memory = co_await _s._disk.memory(uint64_t{pages} * _g.md_page_size);
    while (next < _g.md.count) {
        const uint32_t first = next, count = std::min(pages, _g.md.count - first);
        next += count;
        bool any = false;
        for (uint32_t p = first; p < first + count && !any; ++p) any = wanted(p);
        if (!any) continue;
        auto piece = memory.bytes().first(uint64_t{count} * _g.md_page_size);
        co_await _s._disk.read(_g.offset_of_md_page(first), piece);
        for (uint32_t i = 0; i < count; ++i) {
            auto bytes = piece.subspan(uint64_t{i} * _g.md_page_size).first<format::page_size>();
            if (!wanted(first + i) || format::is_clear(bytes)) continue;
            _pages[first + i] = std::make_unique<format::page_bytes>();
            std::ranges::copy(bytes, _pages[first + i]->begin());
        }
    }
}

// --- understanding

void loader::find_blobs() {
    for (uint32_t p = 0; p < _pages.size(); ++p) {
        bool named = _clean && _used_ids->test(p);
        if (_pages[p] == nullptr && !named) continue;
        auto id = format::id_of_root_page(p);
        bool is_root = named;
        if (!_clean) {
            format::glimpse seen = format::look_at(*_pages[p], p);
            is_root = seen.content == format::page_content::root;
            if (seen.content == format::page_content::damaged) {
                is_root = seen.header.id == id && seen.header.sequence == 0;
            }
        }
        if (_pages[p]) _s._stamp = std::max(_s._stamp, format::header_of(*_pages[p]).stamp);
        if (!is_root) continue;
        auto b = std::make_unique<blob_state>(_s, id);
        decode(*b);
        _s._blobs.emplace(id, std::move(b));
    }
}

void loader::decode(blob_state& b) {
    b.record.id = b.id;
    b.record.pages.assign(1, format::root_page_of(b.id));
    result<> outcome;
    if (auto record = decode_chain(b.id)) {
        b.record = std::move(*record);
    } else {
        outcome = fail(std::move(record).error());
    }
    auto l = make_layout(b, outcome);
    if (outcome) outcome = decode_extents(b, *l);
    if (outcome && b.record.access() == format::blob_access::none) {
        outcome = fail(errc::unsupported, "it uses features this version does not know");
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

// Of a blob that is not understood an empty one.
std::unique_ptr<layout> loader::make_layout(blob_state& b, result<>& outcome) {
    const uint64_t clusters = outcome ? b.record.cluster_count : 0;
    if (clusters > clusters_max) {
        outcome = fail(errc::unsupported, fmt::format("it has {} clusters, more than 2^28", clusters));
    } else if (auto made = layout::make(clusters)) {
        return std::move(*made);
    } else {
        outcome = fail(std::move(made).error());
    }
    return claims_of(b);
}

// For whose map there is no room: what it names, in any order, so that nobody else gets it.
std::unique_ptr<layout> loader::claims_of(blob_state& b) {
    std::vector<uint32_t> named;
    const std::size_t at_most = std::min<uint64_t>(_g.cluster_count, clusters_max);
    for (const format::cluster_run& run : b.record.runs) {
        for (uint32_t i = 0; run.first != no_cluster && i < run.count && named.size() < at_most; ++i) {
            named.push_back(run.first + i);
        }
    }
    for (const format::extent_page_run& run : b.record.extent_pages) {
        if (run.page == 0) continue;
        b.extent_pages.push_back(run.page);
        if (page(run.page) == nullptr) continue;
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

result<format::blob_record> loader::decode_chain(format::blob_id id) const {
    std::vector<format::numbered_page> chain;
    std::set<uint32_t> seen;
    for (uint32_t p = format::root_page_of(id);;) {
        if (page(p) == nullptr) return fail(errc::bad_sequence, fmt::format("page {} of its chain is clear", p));
        if (!format::crc_right(*page(p))) {
            return fail(errc::bad_sequence, fmt::format("page {} of its chain is damaged", p));
        }
        if (!seen.insert(p).second) return fail(errc::bad_sequence, "its chain has no end");
        chain.push_back({p, *page(p)});
        uint32_t next = format::header_of(*page(p)).next;
        if (next == format::no_page) break;
        p = next;
    }
    return format::decode_chain(chain, _g);
}

result<> loader::decode_extents(blob_state& b, layout& l) {
    uint64_t at = 0, named = 0;
    for (const format::cluster_run& run : b.record.runs) {
        if (run.first != no_cluster) named += run.count;
        if (named > _g.cluster_count) return fail(errc::bad_sequence, "it names more clusters than there are");
        for (uint32_t i = 0; run.first != no_cluster && i < run.count; ++i) l.put(at + i, run.first + i);
        at += run.count;
    }
    for (const format::extent_page_run& run : b.record.extent_pages) {
        b.extent_pages.insert(b.extent_pages.end(), run.count, run.page);
    }
    for (uint64_t index = 0; index < b.extent_pages.size(); ++index) {
        uint32_t p = b.extent_pages[index];
        if (p == 0) continue;
        if (page(p) == nullptr) return fail(errc::bad_sequence, fmt::format("its extent page {} is clear", p));
        auto extent = format::decode_extent_page(*page(p), p, _g);
        if (!extent) return fail(std::move(extent).error());
        VARVE_TRY(format::check_place(*extent, p, b.record, index));
        uint64_t first = index * per_page;
        for (uint64_t i = 0; i < extent->clusters.size() && first + i < l.size; ++i) {
            if (extent->clusters[i] != no_cluster) l.put(first + i, extent->clusters[i]);
        }
    }
    return {};
}

void loader::set_aside(blob_state& b, std::string why) {
    if (!b.set_aside()) b.damage = std::move(why);
}

void loader::link_parents() {
    for (auto& [id, b] : _s._blobs) {
        if (b->set_aside() || !b->thin() || b->is_external_clone()) continue;
        auto above = b->record.id_in(format::xattr_parent);
        if (!above) {
            set_aside(*b, above.error().message());
            continue;
        }
        if (!*above) continue;
        auto found = _s._blobs.find(**above);
        if (found == _s._blobs.end() || found->second.get() == b.get()) {
            set_aside(*b, fmt::format("its parent 0x{:x} is not there", **above));
            continue;
        }
        b->parent = found->second.get();
    }
}

// Whether anybody else names a cluster or an extent page of its.
bool loader::others_have_of(const blob_state& b) const {
    std::set<uint32_t> clusters, pages(b.extent_pages.begin(), b.extent_pages.end());
    const layout& mine = *b.current;
    for (uint64_t i = mine.next(0); i < mine.size; i = mine.next(i + 1)) clusters.insert(mine.at(i));
    pages.erase(0);
    for (const auto& [id, other] : _s._blobs) {
        if (other.get() == &b) continue;
        if (std::ranges::any_of(other->extent_pages, [&](uint32_t p) { return pages.contains(p); })) return true;
        const layout& l = *other->current;
        for (uint64_t i = l.next(0); i < l.size; i = l.next(i + 1)) {
            if (clusters.contains(l.at(i))) return true;
        }
    }
    return false;
}

// Snapshots that were being made or removed when the store died. Which way they go, the clone's metadata says, since
// writing it was the commit point.
void loader::settle_drafts() {
    std::vector<blob_state*> dropped;
    for (auto& [id, b] : _s._blobs) {
        if (b->set_aside()) continue;
        for (auto mark : {format::xattr_in_progress, format::xattr_pending_removal}) {
            auto clone_id = b->record.id_in(mark);
            if (!clone_id) {
                set_aside(*b, clone_id.error().message());
                break;
            }
            if (!*clone_id) continue;
            auto clone = _s._blobs.find(**clone_id);
            if (clone != _s._blobs.end() && clone->second->set_aside()) {  // nobody knows which way it went
                set_aside(*b,
                          fmt::format("it was being made or removed, and its clone 0x{:x} is set aside", **clone_id));
                break;
            }
            const bool clone_is_lost = clone == _s._blobs.end() && !others_have_of(*b);
            if (!clone_is_lost && (clone == _s._blobs.end() || clone->second->parent != b.get())) {
                dropped.push_back(b.get());
                break;
            }
            b->record.internal_xattrs.erase(mark);
            b->record.flags.data_read_only |= format::data_ro_flag::read_only;
            _to_rewrite.push_back(b.get());
            if (mark == format::xattr_in_progress || clone_is_lost) continue;
            // SPDK adds the snapshot's clusters to the clone's own while it removes the snapshot: they are still its.
            blob_state& c = *clone->second;
            for (uint64_t i = c.current->next(0); i < c.current->size; i = c.current->next(i + 1)) {
                if (c.current->at(i) != b->current->at(i)) continue;
                c.current->put(i, no_cluster);
                --c.allocated;
                c.unsaved_extents.insert(i / per_page);
            }
        }
    }
    for (blob_state* b : dropped) {
        _to_clear.push_back(format::root_page_of(b->id));
        for (uint32_t p : b->record.pages) _dropped_pages.push_back(p);
        for (uint32_t p : b->extent_pages) {
            if (p != 0) _dropped_pages.push_back(p);
        }
        std::erase(_to_rewrite, b);
        for (auto& [id, other] : _s._blobs) {
            if (other->parent == b) set_aside(*other, fmt::format("its parent 0x{:x} was never finished", b->id));
            if (other->parent == b) other->parent = nullptr;
        }
        _s._blobs.erase(b->id);
    }
}

// The first who names a page or cluster does not know of the second: both are set aside, and nobody writes there.
void loader::claim(blob_state& b) {
    auto take = [&](std::vector<blob_state*>& owners, uint32_t at, std::string_view what) {
        if (owners[at] == nullptr) {
            owners[at] = &b;
            return true;
        }
        set_aside(*owners[at], fmt::format("{} {} is also in blob 0x{:x}", what, at, b.id));
        set_aside(b, fmt::format("{} {} is also in blob 0x{:x}", what, at, owners[at]->id));
        return false;
    };
    for (uint32_t p : b.record.pages) {
        if (take(_page_owner, p, "page")) _s._space.claim_page(p);
    }
    for (uint32_t p : b.extent_pages) {
        if (p != 0 && take(_page_owner, p, "page")) _s._space.claim_page(p);
    }
    const layout& l = *b.current;
    for (uint64_t i = l.next(0); i < l.size; i = l.next(i + 1)) {
        if (take(_cluster_owner, l.at(i), "cluster")) _s._space.claim_cluster(l.at(i));
    }
}

void loader::set_aside_clones_of_the_damaged() {
    bool any_damaged = false;
    for (auto& [id, b] : _s._blobs) {
        std::size_t depth = 0;
        for (const blob_state* up = b->parent; up != nullptr && !b->set_aside(); up = up->parent) {
            if (up->set_aside()) set_aside(*b, fmt::format("its ancestor 0x{:x} is set aside: {}", up->id, up->damage));
            if (++depth > _s._blobs.size()) set_aside(*b, "it is its own ancestor");
        }
        any_damaged = any_damaged || b->set_aside();
    }
    for (auto& [id, b] : _s._blobs) {
        if (b->parent == nullptr) continue;
        b->parent->clones.push_back(b.get());
        b->current->below = &b->parent->slot;
    }
    // What a damaged blob owns nobody knows: what the masks of the last unload call used is left alone.
    if (!any_damaged) return;
    for (uint32_t c = _g.first_data_cluster; _used_clusters && c < _g.cluster_count; ++c) {
        if (_used_clusters->test(c) && _s._space.claim_cluster(c)) _s._kept_clusters.push_back(c);
    }
    for (uint32_t p = 0; _used_pages && p < _g.md.count; ++p) {
        if (_used_pages->test(p) && _s._space.claim_page(p)) _s._kept_pages.push_back(p);
    }
}

// SPDK does not know of the area; it may have given its pages to blobs.
void loader::claim_area() {
    auto& extension = _s._super.extension;
    if (extension && extension->double_write.exists() &&
        extension->double_write.per_slot >= committer::per_slot_least) {
        const auto area = extension->double_write;
        bool free = true;
        for (uint32_t p = 0; p < area.page_count(); ++p) free = free && _page_owner[area.first + p] == nullptr;
        free = free && std::ranges::none_of(_dropped_pages, [&](uint32_t p) { return area.holds(p); });
        for (uint32_t p = 0; free && p < area.page_count(); ++p) _s._space.claim_page(area.first + p);
        // The next load ignores the area unless the mask has it and varve wrote the super block last.
        const auto origin = _s._super.origin;
        const bool ours = origin == format::super_origin::whole || origin == format::super_origin::torn;
        _s._area_is_new = !ours || !_used_pages || !_used_pages->all(area.first, area.page_count());
        if (free) return;
    }
    if (!extension) extension.emplace().store = _s._devices.world().make_uuid();
    extension->double_write = {};
    _s.adopt_area();
    _s._area_is_new = true;
}

task<> loader::tidy() {
    for (uint32_t p : _to_clear) {
        if (_page_owner[p] != nullptr) continue;
        co_await _s.begin_change();
        std::vector<page_write> root(1);
        root[0].page = p;
        co_await _s._commits->commit(std::move(root));
    }
    for (uint32_t p : _dropped_pages) _s._space.free_page(p);
    for (blob_state* b : _to_rewrite) {
        if (b->set_aside()) continue;
        co_await _s.begin_change();
        auto r = _s.revise(*b);
        co_await _s.commit(*b, r);
    }
    co_await _s.save_all();
}

}  // namespace varve::blob
