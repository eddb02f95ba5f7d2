// Unmap and write-zeroes. Whole clusters of a thin blob, where zeroes would show without them, are given up; everything
// else becomes zeroes where it lies. Where a parent would show, a cluster stays the blob's: what was unmapped must not
// bring back what is older.
//
// The life of a cluster that is given up:
//   1. its entry in the map becomes none: nobody finds it any more. Who writes there gets another;
//   2. the extent page is saved, together with whatever else waits: at once where the device has no volatile cache, so
//      that what was answered stays so, and with the next flush (or a little later) where it has one;
//   3. every request that was in the blob's device then has ended: they may have found it before 1. Nothing is kept
//      waiting for that;
//   4. it is free.
// When 2 fails, the cluster stays nobody's until a later save.
#include <algorithm>

#include "blob/channel.h"
#include "blob/store.h"
#include "thread/awaits.h"

namespace varve::blob {

namespace {

constexpr uint64_t per_page = format::clusters_per_extent_page;
constexpr uint64_t clusters_per_slice = 4096;  // looked at before others have their turn
constexpr unsigned fills_at_once = 16;
constexpr uint64_t range_bytes = 256 << 20;
constexpr unsigned trims_at_once = 4;
constexpr time_ns unload_patience = 10 * seconds;

// What shows where the blob has nothing.
source source_below(const layout& l, uint64_t index) noexcept {
    if (l.below == nullptr) return {no_cluster, l.external};
    return find_source(l.below->load(std::memory_order_acquire), index);
}

}  // namespace

struct store::zeroing {
    struct piece {
        uint64_t at, bytes;
    };
    blob_state& b;
    uint64_t at, end;  // bytes of the blob; at: the next to be looked at
    bool must_be_zeroes;
    std::vector<piece> below = {};   // of the device, to be zeroed there
    std::vector<piece> absent = {};  // of the blob, where a parent shows
    std::vector<std::pair<uint64_t, uint32_t>> given_up = {};
};

bool store::releases(const blob_state& b, uint64_t index) const noexcept {
    // A long operation counts on what is there.
    return b.thin() && !b.busy && !b.read_only() && source_below(*b.current, index).is_zeroes();
}

void store::give_up(blob_state& b, uint64_t index, uint32_t cluster) {
    b.unsaved.store(true, std::memory_order_release);  // before anybody finds nothing
    b.unsaved_extents.insert(b.unsaved_extents.end(), index / per_page);
    b.leaving.push_back(cluster);
    b.current->put(index, no_cluster);
    --b.allocated;
}

// The next clusters: which are given up, which zeroed where they are. Nothing else happens meanwhile.
void store::plan(zeroing& z) const noexcept {
    const uint64_t size = _super.layout.cluster_size;
    for (uint64_t n = 0; n < clusters_per_slice && z.at < z.end; ++n) {
        const uint64_t index = z.at / size, offset = z.at % size, here = std::min(size - offset, z.end - z.at);
        const uint32_t cluster = z.b.current->at(index);
        if (cluster == no_cluster) {
            if (z.must_be_zeroes && !find_source(z.b.current.get(), index).is_zeroes())
                z.absent.push_back({z.at, here});
        } else if (here == size && releases(z.b, index)) {
            z.given_up.emplace_back(index, cluster);
        } else {
            const uint64_t where = cluster * size + offset;
            if (!z.below.empty() && z.below.back().at + z.below.back().bytes == where) {
                z.below.back().bytes += here;
            } else {
                z.below.push_back({where, here});
            }
        }
        z.at += here;
    }
}

task<> store::zero(blob_state& b, const bdev::io& r) {
    const uint64_t block = _super.layout.io_unit_size;
    zeroing z{b, r.lba * block, (r.lba + r.blocks) * block, r.operation == bdev::op::write_zeroes};
    if (z.end > b.current->size * _super.layout.cluster_size) co_await fail(errc::invalid);
    releasing perhaps(*this);
    co_await begin_change();
    for (;;) {
        plan(z);
        for (auto [index, cluster] : z.given_up) give_up(b, index, cluster);
        if (!z.given_up.empty()) save_soon();  // also when what follows fails
        z.given_up.clear();
        if (z.at == z.end) perhaps.end();  // what follows may need clusters itself
        co_await zero_below(z);
        if (z.at == z.end) break;
        co_await yield();
    }
    if (!b.unsaved.load(std::memory_order_relaxed) && (r.flags & bdev::io::fua) == 0) co_return;
    if ((r.flags & bdev::io::fua) != 0) co_return co_await flush(b);
    if (!_disk.has_cache()) co_return co_await save(b);
    save_soon();
}

task<> store::zero_below(zeroing& z) {
    for (const zeroing::piece& p : std::exchange(z.below, {})) {
        co_await (z.must_be_zeroes ? _disk.write_zeroes(p.at, p.bytes) : _disk.unmap(p.at, p.bytes));
    }
    if (z.absent.empty()) co_return;
    semaphore slots(fills_at_once);
    crew all;
    auto one = [](store& s, blob_state& b, zeroing::piece p, semaphore::units) -> task<> {
        co_await s.zero_after_filling(b, p.at, p.bytes);
    };
    for (const zeroing::piece& p : z.absent) {
        auto slot = co_await slots.acquire();
        if (!all.failed()) all.start(one(*this, z.b, p, std::move(slot)));
    }
    z.absent.clear();
    co_await all.done();
}

// The parent's data is not copied where all of it is to be zeroes; somebody else's first write may have done so.
task<> store::zero_after_filling(blob_state& b, uint64_t at, uint64_t bytes) {
    const uint64_t size = _super.layout.cluster_size, index = at / size;
    while (b.current->at(index) == no_cluster) co_await ensure_cluster(b, index, bytes == size);
    co_await _disk.write_zeroes(b.current->at(index) * size + at % size, bytes);
}

// --- what was given up becomes free

// What a save found is on the media.
void store::saved(blob_state& b) {
    if (b.unsaved_extents.empty()) {
        b.unsaved.store(false, std::memory_order_release);
        b.departed.insert(b.departed.end(), b.leaving.begin(), b.leaving.end());
        b.leaving.clear();
    }
    start_release(b);
}

void store::no_requests(blob_state& b) noexcept {
    _device_gone.pulse();
    start_release(b);
}

void store::start_release(blob_state& b) {
    if (b.departed.empty() || b.releasing || _stopping) return;
    b.releasing = true;
    background(release(b));
}

void store::releasing::end() noexcept {
    if (_store == nullptr) return;
    store& s = *std::exchange(_store, nullptr);
    --s._releases;
    s._more_room.pulse();
}

// Clusters were given up that the media may still name: they become free a little earlier than they would.
bool store::save_for_room() {
    if (_stopping || std::ranges::none_of(_blobs, [](const auto& entry) { return !entry.second->leaving.empty(); }))
        return false;
    save_now();
    return true;
}

task<> store::release(blob_state& b) {
    releasing here(*this);
    auto mine = co_await b.chores.lock();
    while (!b.departed.empty()) {
        const std::vector<uint32_t> clusters = std::exchange(b.departed, {});
        result<> drained;
        if (!b.clones.empty()) {
            co_await drain_descendants(b.id);
        } else if (b.device != nullptr) {
            drained = co_await as_result(_devices.drain(*b.device));
        }
        if (!drained) {  // the device is going; afterwards there is nothing to wait for
            b.departed.insert(b.departed.end(), clusters.begin(), clusters.end());
            if (b.device != nullptr) break;
            continue;
        }
        for (std::size_t i = 0; i < clusters.size(); ++i) {
            _space.free_cluster(clusters[i]);
            if ((i + 1) % clusters_per_slice == 0) co_await yield();
        }
        _more_room.pulse();
        start_trimming();
    }
    b.releasing = false;
}

// Nothing on the media names them, and no channel is there.
void store::free_given_up(blob_state& b) noexcept {
    for (std::vector<uint32_t>* from : {&b.leaving, &b.departed}) {
        for (uint32_t c : *from) _space.free_cluster(c);
        from->clear();
    }
}

// --- free clusters are cleared before anybody asks for them, one large range at a time

// Nothing is free before it is known what is used: while a store is opened or made, and a flush fails.
void store::start_trimming() {
    if (_trimming || _stopping || !_commits || !_disk.unmap_zeroes()) return;
    _trimming = true;
    background(trim());
}

void store::clear_all_that_is_free() {
    _space.all_are_stale();
    start_trimming();
}

task<> store::all_that_is_free_is_zeroes(uint64_t flushes_failed_before) {
    co_await _disk.flush();
    const uint32_t end = _space.cluster_count();
    for (uint32_t c = end - _space.data_clusters(); c < end && flushes_failed_before == _disk.flushes_failed();) {
        const uint32_t count = std::min<uint32_t>(clusters_per_slice, end - c);
        _space.are_clean({c, count});
        c += count;
        co_await yield();
    }
}

task<> store::trim() {
    while (!_stopping) {
        if (!co_await as_result(_commits->ready())) break;  // what was not struck out may name them
        cluster_range r = _space.take_unclean(trimmed_at_once());
        if (r.count == 0 || !co_await trim_range(r)) break;
    }
    _trimming = false;
}

// SPDK does not clear what it takes: it counts on a store that was unloaded to have cleared what is free.
task<bool> store::trim_stale() {
    if (!_disk.unmap_zeroes()) co_return true;
    crew all;
    auto some = [](store& s, time_ns until) -> task<> {
        while (s._home.now() < until) {
            cluster_range r = s._space.take_stale(s.trimmed_at_once());
            if (r.count == 0 || !co_await s.trim_range(r)) break;
        }
    };
    for (unsigned i = 0; i < trims_at_once; ++i) all.start(some(*this, _home.now() + unload_patience));
    co_await all.done();
    co_return !_space.has_stale();
}

uint32_t store::trimmed_at_once() const noexcept {
    return static_cast<uint32_t>(std::max<uint64_t>(1, range_bytes / _super.layout.cluster_size));
}

// False when the device refuses: whoever needs a cluster clears it himself, and hears of it.
task<bool> store::trim_range(cluster_range r) {
    const uint64_t size = _super.layout.cluster_size, since = _disk.flushes_failed();
    result<> outcome = co_await as_result(_disk.unmap(r.first * size, r.count * size));
    _space.give_back(r, outcome && since == _disk.flushes_failed());
    _more_room.pulse();
    co_return outcome.has_value();
}

void blob_ref::serve_through(bdev::device* d) noexcept {
    _blob->device = d;
    if (d == nullptr) _blob->owner.no_requests(*_blob);
}

}  // namespace varve::blob
