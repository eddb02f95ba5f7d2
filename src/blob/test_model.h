// For tests: what a store should hold, the slow and simple way. A blob is its attributes and, for each sector, the
// values it may show: one when it is safe, more while a power cut could still choose. Snapshots copy.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "blob/store.h"

namespace varve::blob {

struct model {
    // Sectors hold a number, repeated; 0 is zeroes.
    struct sector {
        uint32_t now = 0;
        std::set<uint32_t> perhaps;  // what a power cut may bring instead
        void write(uint32_t value, bool safe) {
            if (safe) {
                perhaps.clear();
            } else {
                perhaps.insert(now);
            }
            now = value;
        }
        bool may_be(uint32_t value) const { return value == now || perhaps.contains(value); }
    };
    struct blob {
        bool thin = false, read_only = false;
        std::string name;
        blob_id parent = 0;
        std::vector<sector> sectors;
    };

    explicit model(uint64_t sectors_of_a_cluster) : per_cluster(sectors_of_a_cluster) {}

    void create(blob_id id, uint64_t clusters, bool thin, std::string name) {
        blobs[id] = {thin, false, std::move(name), 0, std::vector<sector>(clusters * per_cluster)};
    }
    void remove(blob_id id) {
        blob_id parent = blobs.at(id).parent;
        blobs.erase(id);
        for (auto& [other, b] : blobs) {
            if (b.parent == id) b.parent = parent;
        }
    }
    void resize(blob_id id, uint64_t clusters) {
        blob& b = blobs.at(id);
        std::size_t before = b.sectors.size();
        b.sectors.resize(clusters * per_cluster);
        auto below = blobs.find(b.parent);
        for (std::size_t i = before; below != blobs.end() && i < b.sectors.size(); ++i) {
            if (i < below->second.sectors.size()) b.sectors[i] = below->second.sectors[i];
        }
    }
    void snapshot(blob_id origin, blob_id made, std::string name) {
        blob copy = blobs.at(origin);
        copy.read_only = true;
        copy.name = std::move(name);
        blobs[made] = std::move(copy);
        blobs.at(origin).thin = true;
        blobs.at(origin).parent = made;
    }
    void clone(blob_id snapshot, blob_id made, std::string name) {
        blobs[made] = {true, false, std::move(name), snapshot, blobs.at(snapshot).sectors};
    }
    void inflate(blob_id id) {
        blobs.at(id).parent = 0;
        blobs.at(id).thin = false;
    }
    void decouple(blob_id id) { blobs.at(id).parent = blobs.at(blobs.at(id).parent).parent; }
    unsigned clones_of(blob_id id) const {
        return static_cast<unsigned>(
            std::ranges::count_if(blobs, [id](const auto& entry) { return entry.second.parent == id; }));
    }
    // A flush: everything that was acknowledged is safe.
    void flushed() {
        for (auto& [id, b] : blobs) {
            for (sector& s : b.sectors) s.perhaps.clear();
        }
    }

    // Why the store is not what this says; empty when it is.
    std::string differs(const store& s) const {
        std::vector<blob_id> ids;
        for (const auto& [id, b] : blobs) ids.push_back(id);
        if (s.blobs() != ids) return fmt::format("{} blobs are there, {} should be", s.blobs().size(), ids.size());
        for (const auto& [id, expected] : blobs) {
            const blob_state& b = *s.find(id);
            if (b.set_aside()) return fmt::format("{:x} is set aside: {}", id, b.damage);
            const std::string* name = b.record.xattrs.find("name");
            blob_id parent = b.parent == nullptr ? 0 : b.parent->id;
            if (b.record.cluster_count * per_cluster != expected.sectors.size() || b.thin() != expected.thin ||
                b.read_only() != expected.read_only || parent != expected.parent || name == nullptr ||
                *name != expected.name) {
                return fmt::format(
                    "{:x} has {} clusters, thin {}, read-only {}, below {:x}, and should have {}, {}, {}, "
                    "{:x}",
                    id, b.record.cluster_count, b.thin(), b.read_only(), parent, expected.sectors.size() / per_cluster,
                    expected.thin, expected.read_only, expected.parent);
            }
        }
        return {};
    }
    // Takes what was read of a blob as the truth, if it may be so.
    std::string read(blob_id id, std::span<const std::byte> bytes, bool after_a_cut) {
        blob& b = blobs.at(id);
        for (std::size_t i = 0; i < b.sectors.size(); ++i) {
            uint32_t value = 0;
            auto at = bytes.subspan(i * 512, 512);
            std::memcpy(&value, at.data(), sizeof value);
            bool whole = true;
            for (std::size_t w = 0; w < 512; w += sizeof value) whole = whole && std::memcmp(&value, &at[w], 4) == 0;
            sector& s = b.sectors[i];
            if (!whole || (after_a_cut ? !s.may_be(value) : value != s.now)) {
                return fmt::format("sector {} of {:x} holds {}{}, and should hold {}", i, id, value,
                                   whole ? "" : " and others", s.now);
            }
            if (after_a_cut) s = {value, {}};
        }
        return {};
    }

    uint64_t per_cluster;
    std::map<blob_id, blob> blobs;
};

}  // namespace varve::blob
