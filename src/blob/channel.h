// A blob on one thread. Requests to clusters the blob has go straight down: one lookup, one changed address. The rest:
//   reads of what it does not have   come from the snapshot or device below, or are zeroes
//   writes to what it does not have  wait while the store's thread gives it a cluster with the contents it had, then
//                                    go the common way
//   unmap and write-zeroes           of part of a cluster go down; of more are the store's business (discard.cc)
//   flushes, and those of FUA        are the store's, which has one of the device at a time and saves mappings with it
// Every other request lies in one cluster (properties: optimal_io_boundary).
//
// A blob's blocks are the store's io units. Stores from before the super block named the unit have 4,096 bytes, also on
// devices with blocks of 512: there a request is put into the device's blocks on its way down, and back on its way up.
#pragma once

#include <memory>

#include "bdev/channel.h"
#include "bdev/descriptor.h"
#include "blob/cluster_map.h"
#include "blob/external.h"
#include "util/list.h"

namespace varve::blob {

struct blob_state;
class blob_channel;

// A request on its way to the store's thread and back.
struct errand : work {
    blob_channel* from = nullptr;
    bdev::io* request = nullptr;
    blob_state* blob = nullptr;
    uint64_t index = 0;  // cluster of the blob
    enum class purpose : uint8_t { cluster, flush, zero, seek } what = purpose::cluster;
    bdev::status outcome = bdev::status::ok;
    errand* next_free = nullptr;
};

class blob_channel final : public bdev::channel {
  public:
    // The base's channel of this thread.
    blob_channel(blob_state& of, bdev::channel_ref base);

    // The store has done it: back to the request, on the channel's thread.
    void come_back(errand& e) noexcept;

  private:
    void do_submit(bdev::io& r) noexcept override;
    void uncommon(bdev::io& r, uint64_t index) noexcept;
    void absent(bdev::io& r, uint64_t index, source from) noexcept;
    void zero(bdev::io& r, uint64_t index) noexcept;
    void go_down(bdev::io& r, uint64_t index, uint32_t cluster) noexcept;
    // To the device; r is in io units, and at its address there.
    void submit_below(bdev::io& r) noexcept;
    static void back_in_units(bdev::io& r, void* self) noexcept;
    errand& errand_for(bdev::io& r, uint64_t index, errand::purpose what) noexcept;
    void send(bdev::io& r, uint64_t index, errand::purpose what) noexcept;
    void seek(errand& e) noexcept;
    void returned(errand& e) noexcept;
    static void forced_written(bdev::io& r, void* self) noexcept;
    external_channel& channel_of(external_parent& p);
    uint64_t cluster_of(uint64_t lba) const noexcept { return _shift != 0 ? lba >> _shift : lba / _cluster_blocks; }

    const layout_slot& _slot;
    bdev::channel_ref _base;
    const uint32_t _cluster_blocks;
    const uint8_t _shift;       // 0: cluster_blocks is no power of two, or one
    const uint8_t _unit_shift;  // blocks of the device in an io unit, as a power of two
    const uint8_t _direct;      // operations below this number may go straight down: none unless _unit_shift is 0
    const uint32_t _io_unit;
    const bool _cached;  // the device has a volatile cache
    blob_state& _blob;
    errand* _free = nullptr;
    std::vector<std::unique_ptr<errand>> _errands;
    struct outside {
        external_parent* parent;
        thread::channel_ref<external_channel> channel;
    };
    std::vector<outside> _outside;  // those it has read from
};

}  // namespace varve::blob
