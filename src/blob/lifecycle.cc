// Blobs come, go, and change their size.
#include <fmt/format.h>

#include <algorithm>
#include <ranges>

#include "blob/store.h"
#include "thread/awaits.h"

namespace varve::blob {

namespace {
constexpr const char* too_many_clusters = "a blob has at most 2^28 clusters: make a store with larger ones";
constexpr uint64_t per_page = format::clusters_per_extent_page;
constexpr uint64_t clusters_at_once = 16384;  // taken or freed before others have their turn
constexpr unsigned clears_at_once = 4;
constexpr uint64_t unmap_bytes = 16 << 20, write_bytes = 2 << 20;  // of a request: after each it can be paused

format::clear_method method_of(const blob_state& b) noexcept {
    return static_cast<format::clear_method>(b.record.flags.md_read_only & format::md_ro_flag::clear_method);
}

constexpr uint64_t extent_pages_for(uint64_t clusters) { return (clusters + per_page - 1) / per_page; }
}  // namespace

// Large requests where the device unmaps, smaller ones where it writes; a few at once, so that others have their share.
task<> store::clear(clusters_to_clear next, uint64_t count, clearing how, jobs::job* progress) {
    if (how == clearing::zero) how = _disk.unmap_zeroes() ? clearing::unmap : clearing::write_zeroes;
    const uint64_t size = _super.layout.cluster_size;
    const uint64_t at_most = std::max<uint64_t>(1, (how == clearing::unmap ? unmap_bytes : write_bytes) / size);
    if (progress != nullptr) progress->expect(count);
    semaphore slots(clears_at_once);
    crew all;
    result<> outcome;
    auto one = [](disk& on, clearing in, uint64_t at, uint64_t bytes, jobs::job* told, uint64_t steps,
                  semaphore::units) -> task<> {
        co_await (in == clearing::unmap ? on.unmap(at, bytes) : on.write_zeroes(at, bytes));
        if (told != nullptr) told->did(steps);
    };
    while (outcome && !all.failed()) {
        const std::optional<cluster_range> r = next(static_cast<uint32_t>(at_most));
        if (!r) break;
        if (r->count == 0) {
            co_await yield();
            continue;
        }
        auto slot = co_await slots.acquire();
        if (progress != nullptr) outcome = co_await as_result(progress->turn(r->count * size));
        if (outcome) all.start(one(_disk, how, r->first * size, r->count * size, progress, r->count, std::move(slot)));
    }
    result<> done = co_await as_result(all.done());
    co_await std::move(outcome);
    co_await std::move(done);
}

task<> store::clear(std::vector<uint32_t> clusters, clearing how, jobs::job* progress) {
    std::ranges::sort(clusters);
    auto next = [&clusters, i = std::size_t{0}](uint32_t at_most) mutable -> std::optional<cluster_range> {
        if (i == clusters.size()) return {};
        cluster_range r{.first = clusters[i++], .count = 1};
        while (i < clusters.size() && r.count < at_most && clusters[i] == clusters[i - 1] + 1) {
            ++r.count;
            ++i;
        }
        return r;
    };
    co_await clear(std::move(next), clusters.size(), how, progress);
}

// But what is free and clear.
task<> store::clear_all(clearing how, jobs::job& progress) {
    auto next = [this, c = _super.layout.first_data_cluster](uint32_t at_most) mutable -> std::optional<cluster_range> {
        if (c >= _space.cluster_count()) return {};
        auto wanted = [this](uint32_t at) { return _space.cluster_used(at) || !_space.cluster_clean(at); };
        const uint32_t end = std::min<uint64_t>(_space.cluster_count(), uint64_t{c} + clusters_at_once);
        while (c < end && !wanted(c)) ++c;
        cluster_range r{.first = c};
        for (; c < _space.cluster_count() && r.count < at_most && wanted(c); ++c) ++r.count;
        return r;
    };
    co_await clear(std::move(next), _space.data_clusters() - _space.clean_clusters(), how, &progress);
}

task<> store::unmap_all(jobs::job& progress) { return clear_all(clearing::unmap, progress); }
task<> store::zero_all(jobs::job& progress) { return clear_all(clearing::zero, progress); }

namespace {

// Sets an event when some time has passed.
class alarm : work {
  public:
    alarm(event& rings, time_ns after) : _rings(rings), _timer(*this) {
        run = [](work& w) noexcept {
            auto& me = static_cast<alarm&>(w);
            me._over = true;
            me._rings.pulse();
        };
        _timer.start(after);
    }
    bool over() const noexcept { return _over; }

  private:
    event& _rings;
    bool _over = false;
    thread::timer _timer;
};

// What is being released waits for requests, and this may be for one of them.
constexpr time_ns release_wait = 500 * milliseconds;

}  // namespace

task<uint32_t> store::take_cluster(taken& mine, bool& clean) {
    std::optional<alarm> patience;
    for (;;) {
        if (uint32_t c = _space.take_cluster(clean); c != no_cluster) {
            mine.add_cluster(c);
            co_return c;
        }
        if (!patience) patience.emplace(_more_room, release_wait);
        const bool comes = !patience->over() && (_releases != 0 || hurry_remains() || save_for_room());
        if (!_space.in_hand() && !comes) co_await fail(errc::no_space, "no cluster is free" + kept_in_words());
        co_await _more_room.wait();
    }
}

std::string store::kept_in_words() const {
    if (_kept_clusters.count() == 0) return {};
    if (!_unreadable.of_nobody_known.empty()) {
        return fmt::format(": {} may be those of blobs whose metadata could not be read", _kept_clusters.count());
    }
    return fmt::format(": {} may be those of blobs that are set aside, and are free when these are removed",
                       _kept_clusters.count());
}

bool store::hurry_remains() noexcept {
    for (jobs::job* j : _clearing) j->cancel();
    return !_clearing.empty();
}

task<std::vector<uint32_t>> store::allocate(taken& mine, uint64_t count, jobs::job* progress) {
    while (count > _space.free_clusters() && hurry_remains()) co_await _more_room.wait();
    if (count > _space.free_clusters()) {
        co_await fail(errc::no_space, fmt::format("{} clusters are wanted, {} are free{}", count,
                                                  _space.free_clusters(), kept_in_words()));
    }
    std::vector<uint32_t> all, dirty;
    all.reserve(count);
    for (uint64_t i = 0; i < count; ++i) {
        bool clean = false;
        all.push_back(co_await take_cluster(mine, clean));
        if (!clean) dirty.push_back(all.back());
        if ((i + 1) % clusters_at_once == 0) co_await yield();
    }
    co_await clear(std::move(dirty), clearing::zero, progress);
    co_return all;
}

task<blob_id> store::create(blob_options how, jobs::job* progress) {
    if (how.clusters > clusters_max) co_await fail(errc::invalid, too_many_clusters);
    if (how.external.size() > external_parent::id_max) co_await fail(errc::invalid, "not the id of a device");
    external_parent* outside = how.external.empty() ? nullptr : &external(how.external);
    std::optional<keeping> keep;
    if (outside != nullptr) {
        keep.emplace(*this, *outside);
        co_await open_external(*outside);
        how.thin = true;
    }
    co_await begin_change();
    revision r(*this);
    uint32_t root = co_await take_page(r);
    auto made = std::make_unique<blob_state>(*this, format::id_of_root_page(root));
    r.record.id = made->id;
    r.record.uses_extent_table = true;
    r.record.flags.invalid = format::invalid_flag::extent_table | (how.thin ? format::invalid_flag::thin : 0);
    r.record.flags.md_read_only = static_cast<uint64_t>(how.clear);
    for (format::xattr& x : how.xattrs) r.record.xattrs.set(x.name, x.value);
    r.record.cluster_count = how.clusters;
    r.extent_pages.resize(extent_pages_for(how.clusters));
    auto l = co_await layout::make(how.clusters);
    if (outside != nullptr) {
        l->external = outside;
        r.record.flags.invalid |= format::invalid_flag::external_snapshot;
        r.record.internal_xattrs.set(format::xattr_external_parent, how.external);
    }
    if (!how.thin) {
        const std::vector<uint32_t> mine = co_await allocate(r.mine, how.clusters, progress);
        for (uint64_t i = 0; i < how.clusters; ++i) l->put(i, mine[i]);
        std::vector<uint64_t> all(r.extent_pages.size());
        for (uint64_t i = 0; i < all.size(); ++i) all[i] = i;
        co_await add_extent_pages(r, *l, all);
    }
    co_await commit(*made, r);
    made->made_here = true;
    made->failures_told = _disk.flushes_failed();
    made->allocated = how.thin ? 0 : how.clusters;
    made->replace_layout(std::move(l)).reset();
    blob_id id = made->id;
    _blobs.emplace(id, std::move(made));
    co_return id;
}

// The blob is in no metadata any more: nothing of it can fail from here.
std::unique_ptr<blob_state> store::forget(blob_state& b) noexcept {
    if (b.parent != nullptr) std::erase(b.parent->clones, &b);
    set_promise(b, 0);
    auto node = _blobs.extract(b.id);
    let_go_of_externals();
    return std::move(node.mapped());
}

void store::free_clusters_of(const blob_state& b, uint64_t from, uint64_t to, cluster_state as) noexcept {
    const layout& l = *b.current;
    for (uint64_t i = l.next(from); i < std::min(to, l.size); i = l.next(i + 1)) _space.free_cluster(l.at(i), as);
}

// The root page last: another blob gets the same id then.
void store::free_pages_of(const blob_state& b) noexcept {
    for (uint32_t page : b.extent_pages) _space.free_page(page);
    for (uint32_t page : b.record.pages | std::views::reverse) _space.free_page(page);
}

task<> store::free_space_of(std::unique_ptr<blob_state> b) {
    jobs::job nobody_looks;
    nobody_looks.cancel();  // nothing is cleared: whoever gets a cluster next does so
    co_await as_result(release(remains(*this, std::move(b)), nobody_looks));
}

// They are all that a blob of their own has, which is gone like others.
void store::part_with(const blob_state& former, const std::vector<uint32_t>& clusters, remains* left) {
    if (clusters.empty()) return;
    auto all = std::make_unique<blob_state>(*this, former.id);
    auto map = layout::make(clusters.size());
    if (map) {
        for (std::size_t i = 0; i < clusters.size(); ++i) (*map)->put(i, clusters[i]);
        all->allocated = clusters.size();
    } else {
        map = layout::make(0);
        all->departed = clusters;
    }
    all->replace_layout(std::move(*map)).reset();
    all->record.flags = former.record.flags;
    if (left != nullptr) {
        *left = remains(*this, std::move(all));
    } else {
        background(free_space_of(std::move(all)));
    }
}

// `zero`: nothing is to be done to the device.
store::clearing store::clearing_of(const blob_state& b) const noexcept {
    const format::clear_method method = method_of(b);
    if (method == format::clear_method::write_zeroes) return clearing::write_zeroes;
    // Where unmapping makes zeroes, free clusters are unmapped in the background.
    if (method == format::clear_method::none || _disk.unmap_zeroes()) return clearing::zero;
    return _disk.device().offers(bdev::op::unmap) ? clearing::unmap : clearing::zero;
}

bool store::remains::must_be_cleared() const noexcept {
    return _blob != nullptr && _blob->allocated != 0 && _blob->owner.clearing_of(*_blob) != clearing::zero;
}

store::remains::~remains() {
    if (_blob == nullptr) return;
    store& s = _blob->owner;
    s.free_given_up(*_blob);
    s.free_clusters_of(*_blob, 0, _blob->current->size, cluster_state::unclean);
    s.free_pages_of(*_blob);
    s.start_trimming();
    s.retire(std::move(_blob));
}

task<> store::release(remains left, jobs::job& progress) {
    if (!left) co_return;
    const blob_state& b = *left._blob;
    const uint64_t size = b.current->size;
    progress.expect(b.allocated);
    cluster_state becomes = method_of(b) == format::clear_method::none ? cluster_state::left : cluster_state::unclean;
    result<> cleared;
    const uint64_t since = _disk.flushes_failed();
    const bool clears = left.must_be_cleared();
    if (clears) {
        _clearing.push_back(&progress);
        const clearing how = clearing_of(b);
        std::vector<uint32_t> clusters;
        for (uint64_t i = b.current->next(0); i < size; i = b.current->next(i + 1))
            clusters.push_back(b.current->at(i));
        cleared = co_await as_result(clear(std::move(clusters), how, &progress));
        if (cleared && how == clearing::write_zeroes) becomes = cluster_state::clean;
    }
    std::unique_ptr<blob_state> mine = std::move(left._blob);  // `left` keeps the store until the end
    free_given_up(*mine);
    for (uint64_t i = 0; i < size; i += clusters_at_once) {
        if (becomes == cluster_state::clean && since != _disk.flushes_failed()) becomes = cluster_state::unclean;
        const uint64_t free_before = _space.free_clusters();
        free_clusters_of(*mine, i, i + clusters_at_once, becomes);
        if (!clears) progress.did(_space.free_clusters() - free_before);
        if (i + clusters_at_once < size) co_await yield();
    }
    free_pages_of(*mine);
    start_trimming();
    retire(std::move(mine));
    std::erase(_clearing, &progress);
    _more_room.pulse();
    co_await std::move(cleared);
}

task<> store::clear_root(blob_id id) {
    std::vector<page_write> root(1);
    root[0].page = format::root_page_of(id);
    return _commits->commit(std::move(root));
}

task<> store::remove(blob_id id, remains* left) {
    blob_state& b = *co_await find_blob(id);
    if (b.set_aside()) co_return co_await remove_damaged(b);
    if (b.opens != 0) co_await fail(errc::busy, fmt::format("blob 0x{:x} is open", id));
    if (b.clones.size() > 1) {
        co_await fail(errc::busy, fmt::format("blob 0x{:x} has {} clones", id, b.clones.size()));
    }
    co_await needed_by_the_damaged(b);
    if (!b.clones.empty()) co_return co_await merge_into_clone(b, left);
    std::optional<operation> mine(co_await begin_on(b));
    mine->remove();
    co_await settle_parent(b);
    auto alone = co_await b.chores.lock();
    auto held = co_await b.md.lock();
    co_await begin_change();
    co_await clear_root(id);  // COMMIT POINT
    b.unsaved_extents.clear();
    held.release();
    alone.release();
    mine.reset();
    // Nothing can fail any more; a large one is free a little later.
    if (left != nullptr) {
        *left = remains(*this, forget(b));
    } else {
        background(free_space_of(forget(b)));
    }
}

// Set aside is not gone: what is damaged may be mended, and then it reads from its parent again.
result<> store::needed_by_the_damaged(const blob_state& b) const {
    for (const blob_state* clone : b.clones) {
        if (!clone->set_aside()) continue;
        return fail(errc::busy, fmt::format("blob 0x{:x} is needed by its clone 0x{:x}, which is set aside: {}", b.id,
                                            clone->id, clone->damage));
    }
    const bool snapshot = (b.record.flags.data_read_only & format::data_ro_flag::read_only) != 0;
    // Whom nobody can see has been on the media since before the load, and so has its parent.
    if (!snapshot || b.parent_unknown || b.made_here) return {};
    for (const auto& [id, other] : _blobs) {
        if (!other->parent_unknown) continue;
        return fail(errc::busy, fmt::format("blob 0x{:x}, which is set aside ({}), may be a clone of snapshot 0x{:x}: "
                                            "nobody knows of which before it is mended or removed",
                                            id, other->damage, b.id));
    }
    if (_unreadable.of_nobody_known.empty()) return {};
    return fail(errc::busy,
                fmt::format("a clone of snapshot 0x{:x} may begin in metadata page {}, which cannot be read", b.id,
                            _unreadable.of_nobody_known.begin()->first));
}

// What it says of itself may be wrong: what it claims alone is free then, what others claim is left to them. They stay
// set aside until the next load looks at them again.
task<> store::remove_damaged(blob_state& b) {
    if (!b.clones.empty()) {
        co_await fail(errc::busy, fmt::format("blob 0x{:x} is set aside and has clones: remove them first", b.id));
    }
    co_await needed_by_the_damaged(b);
    const uint32_t root = format::root_page_of(b.id);
    for (const auto& [id, other] : _blobs) {
        auto has = [&](const auto& pages) { return std::ranges::find(pages, root) != pages.end(); };
        if (id != b.id && (has(other->record.pages) || has(other->extent_pages))) {
            co_await fail(errc::io,
                          fmt::format("blob 0x{:x} is set aside and begins in a page of blob 0x{:x}", b.id, id));
        }
    }
    if (std::exchange(b.busy, true)) co_await fail(errc::busy, "it is being removed");
    result<> outcome = co_await as_result(begin_change());
    if (outcome) outcome = co_await as_result(clear_root(b.id));  // COMMIT POINT
    if (outcome) co_await as_result(make_readable(b));
    b.busy = false;
    co_await std::move(outcome);
    std::unique_ptr<blob_state> gone = forget(b);
    free_what_nobody_claims(*gone);
    retire(std::move(gone));
}

void store::free_what_nobody_claims(const blob_state& b) {
    bitmap clusters(_space.cluster_count()), pages(_space.page_count());
    bool anybody_damaged = !_unreadable.of_nobody_known.empty();  // there may be blobs that nobody has seen
    for (const auto& [id, other] : _blobs) {
        for (uint32_t p : other->record.pages) pages.set(p);
        for (uint32_t p : other->extent_pages) pages.set(p);
        const layout& l = *other->current;
        for (uint64_t i = l.next(0); i < l.size; i = l.next(i + 1)) clusters.set(l.at(i));
        for (uint32_t c : other->leaving) clusters.set(c);
        for (uint32_t c : other->departed) clusters.set(c);
        anybody_damaged = anybody_damaged || other->set_aside();
    }
    // Each is freed once, however often it is named.
    auto free_page = [&](uint32_t p) {
        const bool ours = _super.extension && _super.extension->holds(p);
        if (pages.set(p) && !ours && _space.page_used(p)) _space.free_page(p);
    };
    auto free_cluster = [&](uint32_t c) {
        if (c != no_cluster && clusters.set(c) && _space.cluster_used(c)) _space.free_cluster(c);
    };
    for (uint32_t p : b.record.pages) free_page(p);
    for (uint32_t p : b.extent_pages) free_page(p);
    const layout& its = *b.current;
    for (uint64_t i = its.next(0); i < its.size; i = its.next(i + 1)) free_cluster(its.at(i));
    if (!anybody_damaged) {
        for (uint32_t p : std::exchange(_kept_pages, {})) free_page(p);
        const bitmap kept = std::exchange(_kept_clusters, bitmap());
        for (uint64_t c = kept.next_set(0); c != bitmap::none; c = kept.next_set(c + 1)) {
            free_cluster(static_cast<uint32_t>(c));
        }
    }
    start_trimming();
}

// What is to be cleared is so before the blob is frozen. Its device changes when nothing can be refused any more, and
// nothing is in it.
task<> store::resize(blob_ref& ref, uint64_t clusters, jobs::job* progress, remains* left) {
    blob_state& b = ref.state();
    if (clusters > clusters_max) co_await fail(errc::invalid, too_many_clusters);
    operation mine = co_await begin_on(b);
    if (b.record.access() != format::blob_access::full) co_await fail(errc::not_permitted, "metadata is read-only");
    const uint64_t before = b.record.cluster_count;
    if (clusters == before) co_return;
    taken more(_space);
    const uint64_t since = _disk.flushes_failed();
    std::vector<uint32_t> added;
    if (!b.thin() && clusters > before) {
        co_await begin_change();
        added = co_await allocate(more, clusters - before, progress);
    }
    auto still = co_await freeze(b);
    auto held = co_await b.md.lock();
    co_await begin_change();
    unsaved_in_hand unsaved(*this, b, std::exchange(b.unsaved_mappings, {}));
    revision r = revise(b);
    r.mine.take_over(std::move(more));
    r.since = since;
    r.record.cluster_count = clusters;
    auto l = co_await layout::make(clusters);
    l->below = b.current->below;
    l->external = b.current->external;
    const uint64_t common = std::min(before, clusters);
    const layout& old = *b.current;
    for (uint64_t i = old.next(0); i < common; i = old.next(i + 1)) l->put(i, old.at(i));
    for (uint64_t i = 0; i < added.size(); ++i) l->put(before + i, added[i]);
    std::vector<uint64_t> changed;  // extent pages, on new pages: those that change, and all that new clusters need
    if (r.record.uses_extent_table) {
        r.extent_pages.resize(extent_pages_for(clusters));
        for (uint64_t i = common / per_page; i < r.extent_pages.size(); ++i) {
            if (b.thin() && r.extent_pages[i] == 0) continue;
            if (common % per_page == 0 && i == common / per_page && clusters < before) continue;  // cut between pages
            changed.push_back(i);
        }
        co_await add_extent_pages(r, *l, changed);
    } else {
        lay_out_runs(r, *l);
    }
    co_await commit(b, r);
    for (uint64_t index : changed) b.unsaved_extents.erase(index);
    b.unsaved_extents.erase(b.unsaved_extents.lower_bound(extent_pages_for(clusters)), b.unsaved_extents.end());
    std::erase_if(unsaved.those, [&](const unsaved_mapping& m) {
        const bool committed = std::ranges::find(changed, m.index / per_page) != changed.end();
        return committed || !b.record.uses_extent_table || m.index >= clusters;
    });
    renew_promise(b);
    uint64_t allocated = 0;
    for (uint64_t i = l->next(0); i < clusters; i = l->next(i + 1)) ++allocated;
    std::vector<uint32_t> cut_off;
    for (uint64_t i = old.next(clusters); i < before; i = old.next(i + 1)) cut_off.push_back(old.at(i));
    b.allocated = allocated;
    retire(b.replace_layout(std::move(l)));
    if (b.device != nullptr) co_await as_result(_devices.resize(*b.device, io_units(clusters)));  // or it is going
    part_with(b, cut_off, left);
}

}  // namespace varve::blob
