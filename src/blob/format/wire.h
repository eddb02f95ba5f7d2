// The blobstore's structures as they lie on disk. Facts are in docs/ondisk-blobstore.md; the sections named here are
// its. All members have alignment 1, integers are little-endian, so a structure may be read in place at any address.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <type_traits>

#include "util/endian.h"

namespace varve::blob::format {

// What is read and written of the super block and of each metadata page, whatever the store's md_page_size is.
constexpr std::size_t page_size = 4096;
using page_bytes = std::array<std::byte, page_size>;
using page_view = std::span<const std::byte, page_size>;

// ---- Super block (section 2) ----

constexpr std::string_view super_signature = "SPDKBLOB";
constexpr uint32_t version_min = 1, version_max = 3;
constexpr uint32_t version_with_blobid_mask = 3;  // older stores have none on disk and are recovered at every load
constexpr uint64_t no_blob = UINT64_MAX;          // "no super blob"

struct super_block_wire {
    char signature[8];
    le32 version;
    le32 length;
    le32 clean;  // 0: not unloaded; anything else: the masks on disk are true
    le64 super_blob;
    le32 cluster_size;             // bytes
    le32 used_page_mask_start;     // this and all `start`s: pages from the start of the device
    le32 used_page_mask_length;    // this and all `length`s: pages
    le32 used_cluster_mask_start;  //
    le32 used_cluster_mask_length;
    le32 md_start;
    le32 md_length;
    char type[16];
    le32 used_blobid_mask_start;
    le32 used_blobid_mask_length;
    le64 size;          // bytes; 0 (old stores): all of the device
    le32 io_unit_size;  // bytes; 0 (old stores): 4096
    le32 md_page_size;  // bytes; 0 (old stores): 4096
    uint8_t reserved96[288];
    uint8_t extension[128];  // section 7
    uint8_t reserved512[3580];
    le32 crc;
};
static_assert(sizeof(super_block_wire) == page_size && alignof(super_block_wire) == 1);
static_assert(offsetof(super_block_wire, super_blob) == 20 && offsetof(super_block_wire, md_start) == 48);
static_assert(offsetof(super_block_wire, type) == 56 && offsetof(super_block_wire, size) == 80);
static_assert(offsetof(super_block_wire, md_page_size) == 92 && offsetof(super_block_wire, extension) == 384);
static_assert(offsetof(super_block_wire, reserved512) == 512 && offsetof(super_block_wire, crc) == 4092);

// Ours, in bytes SPDK keeps (section 7). It ends with the first 512-byte sector, which it makes provable by itself.
constexpr std::string_view extension_magic = "VARVEEXT";
constexpr uint16_t extension_version = 1;

struct super_extension_wire {
    char magic[8];
    le16 version;
    le16 length;
    le32 features;  // 0
    uint8_t store_uuid[16];
    le64 super_sequence;         // one more at each write of the super block by varve
    le32 double_write_first;     // metadata page
    le16 double_write_slots;     // 1; anything else: no double-write area
    le16 double_write_per_slot;  // pages of one slot, its header page included
    le32 next_stamp;             // when clean: the stamp of the next chain written
    le32 masks_stamp;            // the latest in use when the masks were exact; 0: not known
    le32 super_copy;             // metadata page; 0: there is none
    uint8_t reserved60[64];
    le32 sector_crc;  // of bytes 0..507 of the super block
};
static_assert(sizeof(super_extension_wire) == 128 && alignof(super_extension_wire) == 1);
static_assert(offsetof(super_extension_wire, store_uuid) == 16 && offsetof(super_extension_wire, next_stamp) == 48);
static_assert(offsetof(super_extension_wire, masks_stamp) == 52 && offsetof(super_extension_wire, super_copy) == 56);
static_assert(offsetof(super_extension_wire, sector_crc) == 124);

// ---- Masks (section 3) ----

enum class mask_type : uint8_t { used_pages = 0, used_clusters = 1, used_blobids = 2 };

struct mask_header_wire {
    uint8_t type;
    le32 length;  // bits
};
static_assert(sizeof(mask_header_wire) == 5);

// ---- Metadata pages (section 4) ----

constexpr uint32_t no_page = UINT32_MAX;  // `next` of the last page of a chain

struct md_page_wire {
    le64 id;
    le32 sequence;  // position in the chain; 0 in extent pages, too
    le32 stamp;     // SPDK: reserved, written 0, not read. Ours: section 7.3
    uint8_t descriptors[4072];
    le32 next;
    le32 crc;
};
static_assert(sizeof(md_page_wire) == page_size && alignof(md_page_wire) == 1);
static_assert(offsetof(md_page_wire, descriptors) == 16 && offsetof(md_page_wire, next) == 4088);

constexpr std::size_t descriptor_space = sizeof(md_page_wire::descriptors);

enum class descriptor_type : uint8_t {
    padding = 0,  // with length 0: nothing follows in this page
    extent_rle = 1,
    xattr = 2,
    flags = 3,
    internal_xattr = 4,
    extent_table = 5,
    extent_page = 6,  // alone, in pages which no chain holds but an extent table names
};

struct descriptor_header_wire {
    uint8_t type;
    le32 length;  // of what follows this header
};
struct xattr_wire {
    descriptor_header_wire header;
    le16 name_length;
    le16 value_length;
    // name, value
};
struct extent_run_wire {
    le32 cluster;  // 0: unallocated
    le32 count;
};
struct extent_table_wire {
    descriptor_header_wire header;
    le64 cluster_count;  // of the blob
    // extent_table_run_wire...
};
struct extent_table_run_wire {
    le32 page;   // 0: unallocated
    le32 count;  // 1 unless unallocated
};
struct extent_page_wire {
    descriptor_header_wire header;
    le32 first_cluster;  // of the blob
    // le32 cluster...
};
struct flags_wire {
    descriptor_header_wire header;
    le64 invalid;
    le64 data_read_only;
    le64 md_read_only;
};
static_assert(sizeof(descriptor_header_wire) == 5 && sizeof(xattr_wire) == 9 && sizeof(extent_run_wire) == 8);
static_assert(sizeof(extent_table_wire) == 13 && sizeof(extent_table_run_wire) == 8);
static_assert(sizeof(extent_page_wire) == 9 && sizeof(flags_wire) == 29);

constexpr uint32_t clusters_per_extent_page = 512;
static_assert(sizeof(extent_page_wire) + clusters_per_extent_page * sizeof(le32) <= descriptor_space);
constexpr std::size_t xattr_bytes_max = descriptor_space - sizeof(xattr_wire);  // name and value together

// Flags of a blob (section 4.3). An unknown bit in `invalid` means: do not open; in `data_read_only`: open, write
// nothing; in `md_read_only`: data may be written, metadata not.
namespace invalid_flag {
constexpr uint64_t thin = 1, internal_xattrs = 2, extent_table = 4, external_snapshot = 8;
constexpr uint64_t set_aside = uint64_t{1} << 62;    // ours: fsck took the blob out of service
constexpr uint64_t parent_lost = uint64_t{1} << 61;  // ours: and with what it cut off, perhaps the parent's id
constexpr uint64_t known = thin | internal_xattrs | extent_table | external_snapshot;
}  // namespace invalid_flag
namespace data_ro_flag {
constexpr uint64_t read_only = 1;
constexpr uint64_t set_aside = uint64_t{1} << 62;  // ours: fsck lets it be read only
constexpr uint64_t known = read_only;
}  // namespace data_ro_flag
namespace md_ro_flag {
constexpr uint64_t clear_method = 3;  // how freed clusters are cleared: see clear_method
constexpr uint64_t known = clear_method;
}  // namespace md_ro_flag
enum class clear_method : uint8_t { unspecified = 0, none = 1, unmap = 2, write_zeroes = 3 };

// Names of internal xattrs (section 5); values of the first three are blob ids, eight bytes.
constexpr std::string_view xattr_parent = "SNAP";              // the snapshot this clone reads from
constexpr std::string_view xattr_in_progress = "SNAPTMP";      // being made a snapshot of that blob
constexpr std::string_view xattr_pending_removal = "SNAPRM";   // a snapshot being merged into that clone
constexpr std::string_view xattr_external_parent = "EXTSNAP";  // what identifies the external snapshot
constexpr std::string_view xattr_set_aside = "VARVEASIDE";     // ours: why fsck set the blob aside, text

// What SPDK reads of the xattr "name" of a logical volume, its zero included; it refuses the store for a longer one.
constexpr std::size_t spdk_name_value_max = 64;

// ---- Double write (section 7.2), ours ----

constexpr uint64_t double_write_magic = 0x5742'4445'5652'4156;  // "VARVEDBW"; no blob id
constexpr uint16_t double_write_version = 1;

struct double_write_entry_wire {
    le32 page;  // where the image belongs
    le32 crc;   // CRC-32C of the image's last four bytes and then of the 4,092 before them
};
constexpr std::size_t double_write_images_max = 500;

struct double_write_header_wire {
    le64 magic;                // where a metadata page has its blob id
    le32 not_in_chain;         // where it has its sequence number: all ones
    le32 stamp;                // 0
    uint8_t no_descriptor[8];  // 0: to SPDK's dump this page ends here
    le16 version;
    le16 count;
    le32 flags;
    le64 sequence;
    uint8_t store_uuid[16];
    le32 own_page;
    uint8_t reserved60[4];
    double_write_entry_wire entries[double_write_images_max];
    uint8_t reserved4064[24];
    le32 next;          // no_page
    le32 inverted_crc;  // complement of what SPDK would want here, so that it never takes this for metadata
};
static_assert(sizeof(double_write_header_wire) == page_size && alignof(double_write_header_wire) == 1);
static_assert(offsetof(double_write_header_wire, sequence) == 32 && offsetof(double_write_header_wire, entries) == 64);
static_assert(offsetof(double_write_header_wire, next) == offsetof(md_page_wire, next));

namespace double_write_flag {
// The batch counts as committed once it is whole here: replay all of it. Without it images mend torn pages only.
constexpr uint32_t redo = 1;
}  // namespace double_write_flag

// ---- A copy of the super block (section 7.5), ours ----

constexpr uint64_t super_copy_magic = 0x5055'5345'5652'4156;  // "VARVESUP"; no blob id
constexpr uint16_t super_copy_version = 1;
constexpr std::size_t first_sector = 512;

struct super_copy_wire {
    le64 magic;                // the first four as in a double-write header
    le32 not_in_chain;         // all ones
    le32 stamp;                // 0
    uint8_t no_descriptor[8];  // 0
    le16 version;
    le16 length;  // of the sector
    le32 own_page;
    le64 sequence;  // of the super block
    uint8_t store_uuid[16];
    uint8_t reserved56[8];
    uint8_t sector[first_sector];  // of the super block, without what changes all the time
    uint8_t reserved576[3512];
    le32 next;          // no_page
    le32 inverted_crc;  // as in a double-write header
};
static_assert(sizeof(super_copy_wire) == page_size && alignof(super_copy_wire) == 1);
static_assert(offsetof(super_copy_wire, own_page) == 28 && offsetof(super_copy_wire, sector) == 64);
static_assert(offsetof(super_copy_wire, next) == offsetof(md_page_wire, next));

}  // namespace varve::blob::format
