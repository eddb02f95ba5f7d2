// What reads a whole volume in the background: copies of it to other bdevs, and checksums of snapshots. App thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "modules/lvol/volumes.h"

namespace varve::modules::lvol {

class copies {
  public:
    explicit copies(volumes& all);
    ~copies();  // when no job runs
    volumes& all() const noexcept { return _all; }

    // What of the volume is written to the bdev, each cluster where it is in the volume.
    enum class extent : uint8_t {
        own,      // the clusters it has itself ("shallow")
        listed,   // of the listed clusters its own; the others of them are unmapped there
        visible,  // its clusters and those of its ancestors ("deep")
    };
    struct status {
        extent what = extent::own;
        uint64_t copied = 0, unmapped = 0;
        uint64_t total = 0;  // clusters to copy; with `listed` those to unmap, too; `visible` counts them first
        std::optional<result<>> outcome;
    };
    // A number by which find() finds it. The bdev is claimed while it is written. errc::not_permitted: the volume is
    // not read-only, or somebody else writes to the bdev (another copy, too); errc::no_device; errc::invalid: the bdev
    // is too small, or its blocks do not fit; errc::busy.
    result<uint32_t> start(volume& from, const std::string& to, extent what, std::vector<uint64_t> listed = {});
    // Null when there is none.
    const status* find(uint32_t id) const noexcept;
    // A copy that has ended is told of once.
    void forget(uint32_t id);

    // The checksum of a snapshot: CRC-64 of the clusters it has itself, in order; kept with the snapshot until these
    // change. errc::not_permitted: it is no snapshot. `each`: of each cluster, too, until the system ends.
    task<> compute_checksum(volume& of, bool each);
    // ESRCH when nobody computes it.
    result<> stop_checksum(volume& of);
    std::optional<uint64_t> checksum(const volume& of) const;
    struct cluster_sum {
        uint64_t index = 0, sum = 0;
    };
    // Of the clusters in a range that lie inside of it; 0 of those it does not have itself. Nothing when they were not
    // computed, or its clusters have changed.
    std::optional<std::vector<cluster_sum>> checksums(const volume& of, uint64_t first, uint64_t count) const;

  private:
    struct operation;
    struct sums {
        uint64_t whole = 0;
        std::vector<cluster_sum> each;
    };
    static constexpr std::size_t kept = 1024;  // of those that have ended
    task<> copy(operation& o, jobs::job& progress);
    task<> count(operation& o, jobs::job& progress);
    task<> unmap_cluster(operation& o, uint64_t index);
    task<> copy_cluster(operation& o, uint64_t index, jobs::job& progress);
    task<> sum(volume& of, blob::blob_ref& b, bool each, jobs::job& progress);
    void drop_old();

    volumes& _all;
    std::map<uint32_t, std::unique_ptr<operation>> _copies;
    uint32_t _last = 0;
    std::map<uuid, sums> _sums;  // by volume
};

}  // namespace varve::modules::lvol
