// The first write to a cluster that a thin blob does not have.
//
// The cluster is given the contents it shows (the parent's, or zeroes), then mapped, then the write goes on as any
// other. So a mapping changes nothing that can be read, whatever a crash keeps of it and of the write.
//
// Where the device has no volatile cache, the mapping is committed before the write goes on; all that wait at the same
// time share a commit. Where it has one, the write may be lost until the next flush anyway: the mapping is made in
// memory, and the flush commits it, behind a flush of the device for what is in the clusters. When the metadata has no
// pages to promise for that, it is committed before, too.
#include <fmt/format.h>

#include <algorithm>

#include "blob/channel.h"
#include "blob/store.h"
#include "thread/awaits.h"
#include "thread/buffer_pool.h"

namespace varve::blob {

namespace {

constexpr uint64_t per_page = format::clusters_per_extent_page;
constexpr time_ns save_delay = 1000 * milliseconds;

bdev::status status_for(const error& e) noexcept {
    switch (e.code()) {
        case errc::no_space:
            return bdev::status::no_space;
        case errc::no_memory:
            return bdev::status::no_memory;
        case errc::no_device:
            return bdev::status::no_device;
        case errc::invalid:  // the blob has become smaller
            return bdev::status::out_of_range;
        case errc::read_only:
        case errc::not_permitted:
            return bdev::status::read_only;
        default:
            return bdev::status::media_error;
    }
}

task<> carry_out(task<> what, errand& asked) {
    result<> outcome = co_await as_result(std::move(what));
    asked.outcome = outcome ? bdev::status::ok : status_for(outcome.error());
    asked.from->come_back(asked);
}

}  // namespace

void store::want(errand& e) noexcept {
    blob_state& b = *e.blob;
    if (e.what == errand::purpose::flush) return background(carry_out(flush(b), e));
    if (e.what == errand::purpose::zero) return background(carry_out(zero(b, *e.request), e));
    auto [at, first] = b.wanted.try_emplace(e.index, e.index);
    wish& w = at->second;
    w.requests.push(e);
    if (!first) return;
    if (b.read_only()) return answer(b, w, fail(errc::read_only));
    if (!serve_at_once(b, w)) background(serve(b, w, false));
}

// When there is nothing to wait for: the cluster shows zeroes, one that holds them is there, and the store may be
// changed.
bool store::serve_at_once(blob_state& b, wish& w) noexcept {
    if (!find_source(b.current.get(), w.index).is_zeroes()) return false;  // nor has the blob one by now
    if (_space.clean_clusters() == 0 || !may_change()) return false;
    bool clean = false;
    w.cluster = _space.take_cluster(clean);
    w.since = _disk.flushes_failed();
    place(b, w);
    return true;
}

task<> store::serve(blob_state& b, wish& w, bool blank) {
    result<> outcome = co_await as_result(find_cluster(b, w, blank));
    if (w.cluster != no_cluster) co_return place(b, w);
    answer(b, w, outcome);  // it has failed, or somebody else has mapped one
}

void store::answer(blob_state& b, wish& w, const result<>& outcome) noexcept {
    if (!outcome && w.cluster != no_cluster) _space.free_cluster(w.cluster);
    while (wish::listener* l = w.operations.pop_front()) {
        l->outcome = outcome;
        l->over.set();
    }
    while (work* request = w.requests.pop()) {
        auto& e = static_cast<errand&>(*request);
        e.outcome = outcome ? bdev::status::ok : status_for(outcome.error());
        e.from->come_back(e);
    }
    b.wanted.erase(uint64_t{w.index});
}

// For operations that want a cluster and have no request.
task<> store::ensure_cluster(blob_state& b, uint64_t index, bool blank) {
    while (b.current->at(index) == no_cluster) {
        auto [at, first] = b.wanted.try_emplace(index, index);
        wish::listener here;
        at->second.operations.push_back(here);
        if (first) co_await serve(b, at->second, blank);
        co_await here.over.wait();
        if (first) co_await std::move(here.outcome);  // else it was somebody's first write, and may have failed for him
    }
}

task<> store::find_cluster(blob_state& b, wish& w, bool blank) {
    if (b.current->at(w.index) != no_cluster) co_return;  // meanwhile
    co_await begin_change();
    taken mine(_space);
    bool clean = false;
    const uint32_t cluster = co_await take_cluster(mine, clean);
    co_await _commits->ready();  // it may have waited, and what was to give the cluster to somebody else has failed
    {
        filling here(*this, b.id);
        do {  // again when a flush fails meanwhile, which may lose what is there by then
            w.since = _disk.flushes_failed();
            co_await fill(cluster, w.index, blank ? source() : find_source(b.current.get(), w.index), clean);
            clean = false;
        } while (w.since != _disk.flushes_failed());
    }
    mine.keep();
    w.cluster = cluster;
}

// It has a cluster, which shows what the blob shows there.
void store::place(blob_state& b, wish& w) noexcept {
    // Without pages promised for it, the mapping is not acknowledged before it is on the media.
    if (_disk.has_cache() && promise(b, w.index / per_page)) {
        b.unsaved.store(true, std::memory_order_release);  // before anybody finds it
        b.unsaved_extents.insert(w.index / per_page);
        b.unsaved_mappings.push_back({w.index, w.cluster});
        b.current->put(w.index, w.cluster);
        ++b.allocated;
        save_soon();
        return answer(b, w, {});
    }
    b.to_map.push_back(&w);
    if (!std::exchange(b.mapping_runs, true)) background(run_mapping(b));
}

task<> store::fills_ended(const std::vector<blob_id>& of) {
    const uint64_t now = _fills_begun;
    auto concerns = [&](const filling& f) { return f.number < now && std::ranges::find(of, f.of) != of.end(); };
    while (std::any_of(_fills.begin(), _fills.end(), concerns)) co_await _fill_over.wait();
}

task<> store::fill(uint32_t cluster, uint64_t index, source from, bool clean) {
    const uint64_t size = _super.layout.cluster_size, to = cluster * size;
    if (from.is_zeroes()) {
        if (!clean) co_await _disk.zero(to, size);
        co_return;
    }
    // A device outside that does not answer keeps nobody else waiting.
    auto slot = co_await (from.external != nullptr ? from.external->copies : _copies).acquire();
    if (from.external == nullptr) co_return co_await _disk.copy(from.cluster * size, to, size);
    const thread::scratch memory = co_await thread::scratch::get(std::min(size, disk::copy_bytes_max));
    for (uint64_t done = 0; done < size; done += memory.bytes().size()) {
        const auto piece = memory.bytes().first(std::min<uint64_t>(memory.bytes().size(), size - done));
        co_await from.external->read(index * size + done, piece);
        co_await _disk.write(to + done, piece);
    }
}

// --- mapping, in groups

task<> store::run_mapping(blob_state& b) {
    while (!b.to_map.empty()) {
        auto held = co_await b.md.lock();
        std::erase_if(b.to_map, [&](wish* w) {
            if (w->since == _disk.flushes_failed()) return false;
            answer(b, *w, fail(errc::io, "a flush has failed, and what the cluster was filled with may be lost"));
            return true;
        });
        std::set<uint64_t> extents;
        const std::size_t extents_max = _commits->round_max() - 1;
        auto next = b.to_map.begin();
        for (; next != b.to_map.end(); ++next) {
            const uint64_t extent = (*next)->index / per_page;
            if (!extents.contains(extent) && extents.size() == extents_max) break;
            extents.insert(extent);
        }
        const std::vector<wish*> batch(b.to_map.begin(), next);
        b.to_map.erase(b.to_map.begin(), next);
        if (batch.empty()) continue;
        result<> outcome = co_await as_result(commit_mappings(b, batch, extents));
        for (wish* w : batch) {
            if (outcome) {
                b.current->put(w->index, w->cluster);
                ++b.allocated;
            }
            answer(b, *w, outcome);
        }
    }
    b.mapping_runs = false;
}

// Extent pages that are there are rewritten; others are new, and then the root has to name them.
task<> store::commit_mappings(blob_state& b, const std::vector<wish*>& batch, const std::set<uint64_t>& extents) {
    if (!b.record.uses_extent_table) {
        revision r = revise(b);
        r.saves = batch.empty();
        lay_out_runs(r, *b.current, batch);
        co_return co_await commit(b, r);
    }
    std::map<uint64_t, std::vector<uint32_t>> contents;
    for (uint64_t extent : extents) contents[extent] = extents_of(*b.current, extent, b.current->size);
    for (const wish* w : batch) contents[w->index / per_page][w->index % per_page] = w->cluster;
    revision r = revise(b);
    r.saves = batch.empty();
    bool root_changes = false;
    for (auto& [extent, clusters] : contents) {
        if (uint32_t page = b.extent_pages[extent]; page != 0) {
            r.also.push_back({page, extent_page(b, extent, std::move(clusters))});
        } else if (std::ranges::any_of(clusters, [](uint32_t c) { return c != no_cluster; })) {
            co_await add_extent_page(r, extent, std::move(clusters));
            root_changes = true;
        }
    }
    if (root_changes) co_return co_await commit(b, r);
    if (r.also.empty()) co_return co_await _disk.flush();  // mapped and given up since the last save
    co_await _commits->commit(std::move(r.also), r.since);
}

// --- saving what was mapped in memory only

task<> store::save(blob_state& b) {
    {
        auto held = co_await b.md.lock();
        if (!b.unsaved_extents.empty()) co_return co_await save_locked(b);  // flushes, too
        saved(b);
    }
    co_await _disk.flush();
}

task<> store::flush(blob_state& b) {
    result<> outcome = co_await as_result(b.unsaved.load(std::memory_order_relaxed) ? save(b) : _disk.flush());
    const uint64_t failed = _disk.flushes_failed();
    const bool lost = std::exchange(b.failures_told, failed) != failed || b.losing != 0;
    if (outcome && lost) outcome = fail(errc::io, "a flush has failed, and what was written before it may be lost");
    co_await std::move(outcome);
}

// What was copied or cleared since the last flush may be lost, as if it had never been. Where that was only mapped in
// memory the blob shows again what it did before: had the mapping stayed, data nobody has written to would be lost.
void store::flush_failed() noexcept {
    _space.none_is_clean();
    start_trimming();
    for (auto& [id, b] : _blobs) take_back_unsaved(*b);
}

// The writes there are lost as the cluster is: the host hears of it with its next flush.
void store::take_back_unsaved(blob_state& b) {
    if (b.unsaved_mappings.empty()) return;
    for (const unsaved_mapping& m : std::exchange(b.unsaved_mappings, {})) {
        if (b.current->at(m.index) == m.cluster) give_up(b, m.index, m.cluster);  // else it was given up before
    }
    save_soon();
    ++b.losing;
    background(lose_writes(b));
}

// Writes that had found the cluster before may end with success after somebody was told.
task<> store::lose_writes(blob_state& b) {
    auto mine = co_await b.chores.lock();
    while (b.device != nullptr && !co_await as_result(_devices.drain(*b.device))) {
        if (b.device != nullptr) co_await _device_gone.wait();
    }
    --b.losing;
    b.failures_told = UINT64_MAX;
}

// What is mapped and given up now; what comes while it is written is the next save's, or this would never end.
task<> store::save_locked(blob_state& b) {
    struct renewed {
        store& of;
        blob_state& b;
        ~renewed() { of.renew_promise(b); }
    } promised{*this, b};
    std::set<uint64_t> mine = std::exchange(b.unsaved_extents, {});
    std::vector<uint32_t> leaving = std::exchange(b.leaving, {});
    std::optional<releasing> here;
    if (!leaving.empty()) here.emplace(*this);
    while (!mine.empty()) {
        std::set<uint64_t> extents;
        const bool runs = !b.record.uses_extent_table;  // written all at once
        while (!mine.empty() && (runs || extents.size() < _commits->round_max() - 1)) {
            extents.insert(mine.extract(mine.begin()));
        }
        unsaved_in_hand mappings(*this, b, {});
        std::erase_if(b.unsaved_mappings, [&](const unsaved_mapping& m) {
            if (!extents.contains(m.index / per_page)) return false;
            mappings.those.push_back(m);
            return true;
        });
        result<> outcome = co_await as_result(commit_mappings(b, {}, extents));
        if (!outcome) {
            b.unsaved_extents.merge(extents);
            b.unsaved_extents.merge(mine);
            b.leaving.insert(b.leaving.end(), leaving.begin(), leaving.end());
            save_soon();
            co_await std::move(outcome);
        }
        mappings.those.clear();
    }
    b.departed.insert(b.departed.end(), leaving.begin(), leaving.end());
    saved(b);
}

// What one cannot save keeps nobody else from being saved.
task<> store::save_all() {
    result<> all;
    for (blob_id id : blobs()) {
        auto found = _blobs.find(id);
        if (found == _blobs.end() || found->second->set_aside() || found->second->unsaved_extents.empty()) continue;
        result<> outcome = co_await as_result(save(*found->second));
        if (!outcome && all) all = std::move(outcome);
    }
    co_await std::move(all);
}

void store::save_soon() noexcept {
    if (_save_timer.running() || _stopping) return;
    _save.of = this;
    _save.run = [](work& w) noexcept {
        store& s = *static_cast<saving&>(w).of;
        s.save_now();
    };
    _save_timer.start(save_delay);
}

// Each blob by itself: one that is stuck keeps nobody else waiting. Who has other chores is looked at again in a while.
void store::save_now() {
    for (auto& [id, b] : _blobs) {
        if (b->hidden || !b->unsaved.load(std::memory_order_relaxed)) continue;
        if (auto mine = b->chores.try_lock()) {
            background(save_one(*b, std::move(mine)));
        } else {
            save_soon();
        }
    }
}

task<> store::save_one(blob_state& b, mutex::holder) {
    releasing here(*this);
    const result<> outcome = co_await as_result(save(b));
    // It is tried again in a while, and told once.
    if (std::exchange(b.save_failed, !outcome) || outcome || _log == nullptr) co_return;
    _log->warning(fmt::format("blob 0x{:x} on bdev {}: clusters written to since its last flush cannot be saved: {}",
                              b.id, _disk.device().name(), outcome.error().message()));
}

}  // namespace varve::blob
