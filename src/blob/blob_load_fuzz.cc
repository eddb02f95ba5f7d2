// Fuzzes loading against checking: a store is damaged as the input says, and perhaps repaired; then an engine loads it
// from a simulated disk, changes it and unloads it. What the check calls loadable is loaded. What it calls a whole blob
// is served, with the same clusters; what any blob has is not free; no cluster has two owners; and afterwards all of
// these blobs are there still, and the masks are what they should be.
#include <fmt/format.h>

#include <set>

#include "blob/check/repair.h"
#include "blob/check/test_store.h"
#include "blob/test_store.h"

namespace varve::blob {
namespace {

using check::damage_input, check::examination, check::examined_blob, check::problem;

void must(bool holds, std::string_view what, blob_id id = 0) {
    if (holds) return;
    fmt::print(stderr, "blob {:#x}: {}\n", id, what);
    std::abort();
}

// What each cluster of the blob is; empty when there are too many to compare.
std::vector<uint32_t> map_of(const examined_blob& b) {
    if (b.record.cluster_count > 100'000) return {};
    std::vector<uint32_t> out;
    if (!b.record.uses_extent_table) {
        for (const auto& run : b.record.runs)
            for (uint32_t i = 0; i < run.count; ++i) out.push_back(run.first == 0 ? 0 : run.first + i);
    }
    out.resize(b.record.cluster_count);
    for (const auto& use : b.extents) {
        const uint64_t first = use.index * format::clusters_per_extent_page;
        const std::size_t mine = b.record.clusters_in_extent_page(use.index);
        for (std::size_t i = 0; i < use.clusters.size() && i < mine; ++i) out[first + i] = use.clusters[i];
    }
    return out;
}

// What nothing at all is wrong with, and whose ancestors are such.
class whole_blobs {
  public:
    explicit whole_blobs(const examination& found) : _found(found) {
        for (const auto& f : found.findings) {
            const bool harmless = f.how_bad == check::severity::note && f.what != problem::half_made_snapshot &&
                                  f.what != problem::shared_clusters && f.what != problem::shared_page;
            if (!harmless && f.what != problem::bad_volume && f.what != problem::unmarked)
                _doubtful.insert(f.blobs.begin(), f.blobs.end());
        }
    }
    bool contain(const examined_blob& b) const {
        std::set<blob_id> seen;
        for (const examined_blob* at = &b; at != nullptr; at = at->parent ? _found.find(*at->parent) : nullptr) {
            if (at->broken() || at->record.access() == format::blob_access::none || _doubtful.contains(at->id()))
                return false;
            if (!seen.insert(at->id()).second || (at->parent && _found.find(*at->parent) == nullptr)) return false;
        }
        return true;
    }

  private:
    const examination& _found;
    std::set<blob_id> _doubtful;
};

// A draft may come to nothing, and what was nobody else's is free then.
bool is_draft(const examined_blob& b) { return b.pending_with.has_value(); }

void compare(const store& s, const examination& found) {
    const whole_blobs whole(found);
    std::set<uint32_t> taken;
    for (blob_id id : s.blobs()) {
        const blob_state& b = *s.find(id);
        for (uint64_t i = b.current->next(0); i < b.current->size; i = b.current->next(i + 1)) {
            must(s.room().cluster_used(b.current->at(i)), "a cluster of it is free", id);
            must(taken.insert(b.current->at(i)).second || b.set_aside(), "a cluster of it has two owners", id);
        }
    }
    for (const examined_blob& b : found.blobs) {
        const blob_state* its = s.find(b.id());
        must(its != nullptr || is_draft(b), "the load does not know it", b.id());
        for (const auto& run : b.owned)
            for (uint32_t i = 0; i < run.count && !is_draft(b); ++i)
                must(s.room().cluster_used(run.first + i), "a cluster that the check calls its is free", b.id());
        if (!whole.contain(b) || its == nullptr) continue;
        must(!its->set_aside(), its->damage, b.id());
        must(its->current->size == b.record.cluster_count && its->allocated == b.allocated, "its size", b.id());
        const auto map = map_of(b);
        for (std::size_t i = 0; i < map.size(); ++i) must(its->current->at(i) == map[i], "another map", b.id());
    }
}

examination examine(check::test_store& s, check::examine_options how = {}) {
    auto read = check::inspect(s);
    must(read.has_value(), "it cannot be read");
    return check::examine(*read, how);
}

void load(check::test_store& s) {
    auto read = check::inspect(s);
    if (!read || read->store() == nullptr) return;
    const bool same_super = read->rebuilt_from().empty();
    const examination before = check::examine(*read);
    sim_machine machine(1, s.shape().size.value, {.volatile_cache = false});
    machine.disk().poke(0, s.bytes);
    for (uint64_t bad : s.bad_pages)
        machine.disk().inject(
            {.kind = env::file_op_kind::read, .first = bad, .end = bad + 1, .times = uint64_t{1} << 40});
    bool unloaded = false, all_served = true;
    const auto outcome = machine.live([&](life& l) -> task<> {
        auto loaded = co_await as_result(store::load(l.devices, l.base(), {.trim = false}));
        must(loaded.has_value() || !before.loadable || !same_super, loaded ? "" : loaded.error().message());
        if (!loaded) co_return;
        auto kept = std::move(*loaded);
        for (blob_id id : kept->blobs()) all_served = all_served && !kept->find(id)->set_aside();
        compare(*kept, before);
        co_await as_result(kept->create({.clusters = 1}));
        compare(*kept, before);
        const auto over = co_await as_result(kept->unload());
        unloaded = over.has_value();
        if (!unloaded) co_await kept->abandon();
    });
    must(outcome.has_value(), outcome ? "" : outcome.error().message());
    if (!unloaded) return;
    machine.disk().peek(0, s.bytes);
    const whole_blobs whole(before);
    const examination after = examine(s);
    for (const examined_blob& b : before.blobs) {
        if (!whole.contain(b)) continue;
        const examined_blob* still = after.find(b.id());
        must(still != nullptr && !still->broken() && map_of(*still) == map_of(b), "it is not there any more", b.id());
    }
    // A load keeps what a blob may have that it sets aside for a bit that a repair would put right.
    for (const auto& f : after.findings) {
        must(f.what != problem::unmarked && f.what != problem::stale_root, f.text);
        must(f.what != problem::leaked || !all_served, f.text);
    }
}

}  // namespace
}  // namespace varve::blob

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
    using namespace varve::blob;
    if (size < 2 || size > 400) return 0;
    GTEST_FLAG_SET(break_on_failure, true);
    damage_input in{{data, size}};
    const uint8_t how = in.byte(), repair = in.byte();
    check::test_store s = check::damaged_store(how, in);
    for (int times = repair % 3; times > 0; --times) {
        auto read = check::inspect(s, {.search = true});
        if (!read || read->store() == nullptr) return 0;
        const auto found = check::examine(*read, {.give_up_unreadable = (how & 2) != 0});
        s.apply(check::plan_repair(*read, found));
    }
    load(s);
    return 0;
}
