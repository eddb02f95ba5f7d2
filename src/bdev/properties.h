// What a device is: filled in by its module, shown by bdev_get_bdevs, read by whoever opens it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bdev/io.h"
#include "util/uuid.h"

namespace varve::bdev {

// End-to-end protection information in the metadata (NVMe DIF types; 0: none).
struct protection {
    uint8_t type = 0;
    bool at_head_of_metadata = false;
    uint8_t format = 0;  // 0: 16-bit guard, 1: 32, 2: 64
    bool check_reference = false, check_application = false, check_guard = false;
};

struct properties {
    std::string name;
    std::vector<std::string> aliases;  // further names; the registry adds the uuid's text itself
    varve::uuid uuid;                  // the registry makes one up when it is nil
    std::string product_name;
    std::string creation_time;  // RFC 3339, UTC; empty: not known

    uint32_t block_size = 512;  // bytes of one block as it lies in an iovec, interleaved metadata included
    uint64_t num_blocks = 0;
    uint32_t physical_block_size = 0;  // bytes; 0: as block_size
    uint32_t metadata_size = 0;        // bytes per block
    bool metadata_interleaved = false;
    bdev::protection protection;

    op_set offered = op_bit(op::read) | op_bit(op::write);  // what the module does itself; the rest is emulated
    bool write_cache = false;   // what is written is safe only after a flush; a flush is never lost on the way
    bool is_volatile = false;   // the contents end with the process
    bool unmap_zeroes = false;  // what was unmapped reads as zeroes
    bool read_only = false;
    bool can_abort = false;  // single requests can be recalled
    // No layer down to the medium touches the memory of a read marked io::leave_memory.
    bool leaves_memory = false;

    // Whatever the device below does, it does there: nothing is split, bounced or emulated here.
    bool passes_on = false;

    uint32_t alignment = 1;            // bytes, a power of two: of memory and lengths in iovecs; others are bounced
    uint32_t optimal_io_boundary = 0;  // blocks; 0: none
    bool split_on_boundary = false;    // requests must not cross it (a power of two)
    bool zeroing_crosses_boundary = false;  // but unmap and write_zeroes may
    uint32_t max_blocks = 0;                // of one read or write; 0: no limit. Longer ones are split
    uint32_t max_segments = 0;              // iovecs of one request; 0: no limit
    uint32_t max_unmap_blocks = 0, max_write_zeroes_blocks = 0, max_copy_blocks = 0;  // 0: no limit
    uint32_t atomic_blocks = 0;  // blocks compared and written atomically; 0: one

    // Hints for bdev_get_bdevs and identify, in blocks; 0: none.
    uint32_t preferred_write_alignment = 0, preferred_write_granularity = 0, optimal_write_size = 0;
    uint32_t preferred_unmap_alignment = 0, preferred_unmap_granularity = 0;
    int numa_id = no_numa;
    static constexpr int no_numa = -2;  // not shown

    // Frames a request needs from here down: 1 for the channel itself, more for each a layer pushes, and those of the
    // device below for layers that pass requests on. max_frames bounds it.
    uint8_t frames = 1;
};

}  // namespace varve::bdev
