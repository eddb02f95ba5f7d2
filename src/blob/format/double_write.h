// The double-write area: metadata pages at the end of the metadata region in which varve writes images of pages before
// it rewrites them in place, so that a torn write in place can be mended (docs/ondisk-blobstore.md section 7.2).
//
// The area is one slot: a header page and the images behind it. One batch of page writes goes like this:
//   1. write header and images, together;  2. flush;  3. write the pages in place;  4. flush before the next batch.
// While header or images are being written the slot does not check out and is ignored, and the pages in place are still
// whole. An area of several slots is none: a load looks at one.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "blob/format/mask.h"
#include "blob/format/page.h"
#include "blob/format/super.h"

namespace varve::blob::format {

struct double_write_header {
    uint64_t sequence = 0;  // of batches in this store; larger is later
    uint32_t flags = 0;     // double_write_flag
    uuid store;
    uint32_t own_page = 0;
    struct image {
        uint32_t page;
        uint32_t crc;  // crc_of_image
    };
    std::vector<image> images;
};

// CRC-32C of the image's last four bytes and then of the others.
uint32_t crc_of_image(page_view image) noexcept;

// At most double_write_images_max images. An empty header is what a slot is cleared with.
page_bytes encode_double_write(const double_write_header& header);

// bad_sequence: not a header, damaged, of another store (a device that was a copy), from another place, or naming pages
// that cannot be.
result<double_write_header> decode_double_write(page_view page, uint32_t number, const double_write_area& area,
                                                const uuid& store, const geometry& g);

// What the header page of a slot tells when its checksum may be wrong.
struct found_header {
    enum class state : uint8_t {
        none,     // not a header of this store in its place
        whole,    // or one bit of it had flipped, which was put right
        torn,     // as a write that did not end leaves it; `header` is what it says
        damaged,  // nearly a header of this store, and nothing that a write of one leaves
    } what = state::none;
    double_write_header header;
};
found_header find_double_write(page_view page, uint32_t number, const double_write_area& area, const uuid& store,
                               const geometry& g);

// Whether the mask has the area: most of its pages, since a bit that flipped tells nothing. After a recovery by SPDK it
// has none, and by and by those that blobs got, the first page first.
bool has_area(const bit_mask& used_pages, const double_write_area& area) noexcept;

// Whether what lies in the area may be used to mend pages: the store was not unloaded cleanly, and nobody else has
// written to it since varve did. SPDK betrays itself by a super block that breaks the seal, or by a used-page mask that
// lacks the area, which its recovery writes before anything else. `used_pages`: as on disk; null: it cannot be read, or
// is none, as SPDK would not have left it.
bool double_write_trusted(const super_block& super, const bit_mask* used_pages) noexcept;

// An image as it lies in the slot, and the page it is of. Null: cannot be read.
struct image_seen {
    std::optional<page_bytes> image, in_place;
};
// What became of a batch.
struct judged_round {
    enum class fate : uint8_t {
        not_committed,  // writing in place had not begun: none of it is to be replayed
        committed,      // or nothing of it can be missing
        unknown,        // it was committed, or may have been, and image `which` is not known
    } became = fate::not_committed;
    std::size_t which = 0;
    std::vector<page_bytes> images;  // when it was committed: all of them
};
// `found`: whole or torn. An image of which one bit flipped is known, and so is one that lies in its place.
judged_round judge_round(const found_header& found, std::span<const image_seen> seen);

// Whether image i of a slot that decoded and is whole is to be written over what its page holds now. A page that is
// whole is left alone, unless the batch was a commit (double_write_flag::redo).
bool must_replay(const double_write_header& header, std::size_t i, page_view image, page_view in_place) noexcept;

// The last run of free pages of this size (`used_pages`: those that have an owner): where a new area goes. None: the
// store goes without.
std::optional<double_write_area> place_double_write(const bit_mask& used_pages, uint16_t slots, uint16_t per_slot);

// Free pages in a row where it could be placed; not more than `most`.
uint16_t longest_free_run(const bit_mask& used_pages, uint16_t most);

// Of a store's only slot; in a small store an eighth of the metadata.
constexpr uint16_t area_pages_wanted = 65;
constexpr uint16_t area_pages(uint32_t md_pages) noexcept {
    return static_cast<uint16_t>(md_pages / 8 < area_pages_wanted ? md_pages / 8 : area_pages_wanted);
}

}  // namespace varve::blob::format
