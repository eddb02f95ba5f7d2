// Which cluster of the device holds each cluster of a blob: what channels on any thread look up for every request.
//
// Written by the store's thread alone, read by any. A layout is replaced as a whole (snapshot, merge, resize); who
// reads an old one still finds the truth in it, because it is freed only when every thread has been elsewhere (store:
// retire). Entries change one by one when clusters are allocated to a blob; what they hold is published before.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>

#include "blob/format/geometry.h"
#include "util/assert.h"
#include "util/bitmap.h"
#include "util/result.h"

namespace varve::blob {

class external_parent;
struct layout;

// The place a blob's layout is found in; stays where it is while anyone refers to the blob.
using layout_slot = std::atomic<const layout*>;

constexpr uint32_t no_cluster = 0;  // the super block lies in cluster 0, so it is never a blob's

using format::clusters_max;

struct layout {
    struct lazily_zeroed {
        void operator()(uint32_t* memory) const noexcept { std::free(memory); }
    };
    using memory = std::unique_ptr<uint32_t[], lazily_zeroed>;
    // errc::no_memory. Zero pages of the system's: a large thin blob costs what it has allocated.
    static result<std::unique_ptr<layout>> make(uint64_t clusters) {
        VARVE_ASSERT(clusters <= clusters_max);
        memory m;
        if (clusters != 0) {
            m.reset(static_cast<uint32_t*>(std::calloc(clusters, sizeof(uint32_t))));
            if (!m) return fail(errc::no_memory, "no memory for the map of a blob's clusters");
        }
        return std::make_unique<layout>(clusters, std::move(m));
    }
    layout(uint64_t clusters, memory m)
        : size(clusters), _entries(std::move(m)), _in_use((clusters + entries_at_once - 1) / entries_at_once) {}

    uint32_t at(uint64_t index) const noexcept { return index < size ? inside(index) : no_cluster; }
    // The same, of an index that is below the size.
    uint32_t inside(uint64_t index) const noexcept {
        return std::atomic_ref(_entries[index]).load(std::memory_order_acquire);
    }
    // At most so many from `first` on. Store's thread only.
    std::span<const uint32_t> run(uint64_t first, uint64_t at_most) const noexcept {
        if (first >= size) return {};
        return {_entries.get() + first, std::min(at_most, size - first)};
    }
    // Store's thread only.
    void put(uint64_t index, uint32_t cluster) noexcept {
        VARVE_ASSERT(index < size);
        if (cluster != no_cluster) _in_use.set(index / entries_at_once);
        std::atomic_ref(_entries[index]).store(cluster, std::memory_order_release);
    }
    // The first index from `from` on that has a cluster; `size` when there is none. Store's thread only.
    uint64_t next(uint64_t from) const noexcept {
        while (from < size) {
            if (from % entries_at_once == 0 && !_in_use.test(from / entries_at_once)) {
                const uint64_t found = _in_use.next_set(from / entries_at_once);
                if (found == bitmap::none) break;
                from = found * entries_at_once;
            } else if (at(from) != no_cluster) {
                return from;
            } else {
                ++from;
            }
        }
        return size;
    }

    const uint64_t size;  // clusters of the blob
    // What shows where nothing is allocated: a snapshot, a device, or zeroes when both are null.
    const layout_slot* below = nullptr;
    external_parent* external = nullptr;

  private:
    static constexpr uint64_t entries_at_once = 4096;
    const memory _entries;
    bitmap _in_use;  // of so many entries each: perhaps one has a cluster
};
static_assert(std::atomic_ref<uint32_t>::is_always_lock_free);

// Where the contents of one cluster of a blob come from.
struct source {
    uint32_t cluster = no_cluster;        // of the device
    external_parent* external = nullptr;  // only when cluster is no_cluster; zeroes when this is null, too
    bool is_zeroes() const noexcept { return cluster == no_cluster && external == nullptr; }
};

inline source find_source(const layout* at, uint64_t index) noexcept {
    for (;;) {
        if (index >= at->size) return {};  // beyond the end of a parent
        if (uint32_t cluster = at->at(index); cluster != no_cluster) return {cluster, nullptr};
        if (at->below == nullptr) return {no_cluster, at->external};
        at = at->below->load(std::memory_order_acquire);
    }
}

// Cluster `index` lies beyond the end of this parent, and what is below it would show there if the parent went.
inline bool hides(const layout& parent, uint64_t index) noexcept {
    if (index < parent.size) return false;
    if (parent.below == nullptr) return parent.external != nullptr;
    return !find_source(parent.below->load(std::memory_order_acquire), index).is_zeroes();
}

// The first such cluster from `from` on; bitmap::none when there is none. It looks where those below have something,
// and not at every cluster there may be. Store's thread only.
inline uint64_t next_hidden(const layout& parent, uint64_t from) noexcept {
    from = std::max(from, parent.size);
    if (parent.below == nullptr) return parent.external != nullptr ? from : bitmap::none;
    uint64_t found = bitmap::none, end = bitmap::none;
    for (const layout* l = parent.below->load(std::memory_order_acquire);;
         l = l->below->load(std::memory_order_acquire)) {
        end = std::min(end, l->size);
        if (from >= end) return found;
        if (const uint64_t i = l->next(from); i < end) found = std::min(found, i);
        if (l->below == nullptr) return l->external != nullptr ? from : found;
    }
}

}  // namespace varve::blob
