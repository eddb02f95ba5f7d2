// The super block: what it says, whether it can be believed, and what varve adds to it.
//
// SPDK rewrites the super block in place (`clean`, now and then others) and believes it by the CRC of the page, so a
// torn write loses the store. Varve keeps everything it writes in the first 512-byte sector and seals that sector with
// a checksum of its own (docs/ondisk-blobstore.md section 7.1): whichever half of a torn write reached the disk, the
// sector is whole, and it is what is believed.
#pragma once

#include <optional>
#include <string>

#include "blob/format/geometry.h"
#include "util/uuid.h"

namespace varve::blob::format {

struct double_write_area {
    uint32_t first = 0;     // metadata page
    uint16_t slots = 0;     // 1; 0: there is none
    uint16_t per_slot = 0;  // pages of a slot: its header and up to per_slot - 1 images

    bool exists() const noexcept { return slots != 0; }
    uint32_t page_count() const noexcept { return uint32_t{slots} * per_slot; }
    bool holds(uint32_t page) const noexcept { return page >= first && page - first < page_count(); }
    uint32_t header_page(uint32_t slot) const noexcept { return first + slot * per_slot; }
};

// What varve keeps in the reserved bytes of the first sector.
struct super_extension {
    uuid store;
    uint64_t sequence = 0;  // of writes of the super block by varve
    double_write_area double_write;
    uint32_t next_stamp = 0;   // see record.h; true only in a clean store
    uint32_t masks_stamp = 0;  // the latest in use when the masks were exact; 0: not known
    uint32_t copy_page = 0;    // see super_copy.h; 0: there is none

    // Metadata pages that are in no chain: of the area, and the copy.
    bool holds(uint32_t page) const noexcept {
        return double_write.holds(page) || (copy_page != 0 && page == copy_page);
    }
};

enum class super_origin : uint8_t {
    whole,           // page CRC right; no extension, or one that is sealed
    foreign,         // page CRC right, extension's seal broken: SPDK wrote the super block after varve did
    torn,            // page CRC wrong, first sector sealed: believed
    clean_flag_torn  // page CRC right once `clean` is flipped: a torn write of SPDK's; `clean` is taken as 0
};

struct super_block {
    uint32_t version = version_max;
    bool clean = false;
    blob_id super_blob = no_blob;
    std::array<char, 16> type{};  // "LVOLSTORE" and zeros for a store of logical volumes
    geometry layout;
    std::optional<super_extension> extension;
    super_origin origin = super_origin::whole;
    bool flipped = false;  // a bit of it was, and was put right; `clean` is taken as 0
    page_bytes raw{};      // as read; encode() keeps every byte of it that it does not set

    std::string type_text() const;  // up to the first zero byte, unprintable bytes as dots
    // Masks on disk are to be used; otherwise they are rebuilt from the metadata (what SPDK calls recovery).
    bool masks_are_true() const noexcept { return clean && layout.blobid_mask.count != 0; }
};

// bad_sequence: not a super block, damaged, or of numbers that contradict each other or the device; unsupported: a
// version this code does not know.
result<super_block> decode_super(page_view page, const device_shape& device);

// The same without asking checksums: for bytes that others vouch for. A broken seal makes it no foreign one.
result<super_block> decode_super_unchecked(page_view page, const device_shape& device);

// True when the page begins with the signature, whatever the rest is: "there is a store, perhaps a damaged one".
bool looks_like_super(page_view page) noexcept;

// Its checksum is right: it says what its writer wanted, be that possible or not.
bool super_crc_right(page_view page) noexcept;

// What is in its first sector is believed whatever the rest of it says: a write over it by varve may tear.
bool first_sector_sealed(page_view page) noexcept;

// The bytes of `s`, sealed when it has an extension. Only the first sector and the CRC in the last differ from s.raw.
page_bytes encode_super(const super_block& s);

// A new store: clean is false, super_blob none.
super_block new_super(const geometry& layout, std::string_view type);

}  // namespace varve::blob::format
