// Where everything of one store lies, and the layout of a new one. A geometry that came from decode_super() or
// plan_store() is consistent: regions do not overlap, lie inside the store, and are large enough for their bits.
#pragma once

#include <cstdint>
#include <string>

#include "blob/format/wire.h"
#include "util/result.h"
#include "util/units.h"

namespace varve::blob::format {

using blob_id = uint64_t;

constexpr uint32_t md_page_size_max = 65536;  // SPDK's limit, too
// Clusters of a blob that varve opens. A gigabyte of map: 64 TiB at clusters of 256 KiB, 1 PiB at 4 MiB.
constexpr uint64_t clusters_max = uint64_t{1} << 28;

// What every decoder here fails with: errc::bad_sequence (SPDK's choice), and `what` as the whole message.
std::unexpected<error> damaged(std::string what);

constexpr uint64_t blob_id_marker = uint64_t{1} << 32;
constexpr blob_id id_of_root_page(uint32_t page) noexcept { return blob_id_marker | page; }
constexpr uint32_t root_page_of(blob_id id) noexcept { return static_cast<uint32_t>(id); }
// True for what an id made by id_of_root_page() looks like; whether the page exists is the geometry's matter.
constexpr bool is_blob_id(blob_id id) noexcept { return id >> 32 == 1; }

// What holds the store.
struct device_shape {
    byte_count size;
    uint32_t block_size = 512;
};

struct page_range {  // in pages of md_page_size from the start of the device
    uint32_t first = 0;
    uint32_t count = 0;
};

struct geometry {
    byte_count size;  // of the store; the device may be larger
    uint32_t cluster_size = 0;
    uint32_t io_unit_size = 0;
    uint32_t md_page_size = 0;
    uint32_t cluster_count = 0;
    uint32_t first_data_cluster = 0;  // those before hold super block, masks and metadata
    page_range page_mask, cluster_mask, blobid_mask;
    page_range md;

    uint64_t offset_of_cluster(uint32_t cluster) const noexcept { return uint64_t{cluster} * cluster_size; }
    uint64_t offset_of_md_page(uint32_t page) const noexcept { return (uint64_t{md.first} + page) * md_page_size; }
    uint64_t offset_of(page_range region) const noexcept { return uint64_t{region.first} * md_page_size; }
    uint64_t bytes_of(page_range region) const noexcept { return uint64_t{region.count} * md_page_size; }
    // The pages of a mask's region that hold so many bits: a region may be larger.
    uint64_t bytes_of_mask(page_range region, uint32_t bits) const noexcept;
    bool has_md_page(uint32_t page) const noexcept { return page < md.count; }
    bool has_data_cluster(uint32_t cluster) const noexcept {
        return cluster >= first_data_cluster && cluster < cluster_count;
    }
    bool has_blob_id(blob_id id) const noexcept { return is_blob_id(id) && has_md_page(root_page_of(id)); }
    // Clusters the used-cluster mask has room for without being moved: how far the store can grow.
    uint64_t cluster_count_max() const noexcept;
};

struct store_shape {
    uint32_t cluster_size = 1024 * 1024;
    uint32_t md_page_count = 0;        // 0: one for each cluster, as SPDK's default
    uint32_t md_page_size = 0;         // 0: 4096, or the device's physical block if that is larger
    uint32_t physical_block_size = 0;  // one that is no power of two counts for nothing
};

// Where SPDK's initialisation would lay a store on this device. With the reason: invalid, no_space, no_memory.
result<geometry> plan_store(const device_shape& device, const store_shape& shape);

// Checks what the loader relies on; the numbers may come from a disk. Fills cluster_count and first_data_cluster.
result<geometry> checked(geometry g, const device_shape& device);

// The geometry after the store was grown to all of `device`; no_space when the cluster mask has no room.
result<geometry> grown(const geometry& g, const device_shape& device);

}  // namespace varve::blob::format
