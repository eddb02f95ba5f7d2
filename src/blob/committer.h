// How metadata pages change that are rewritten in place. Changes that wait at the same time share one round:
//
//   1. flush                       what the round names (new pages, data, cleared clusters) is on the media
//   2. images and header to the double-write area
//   3. flush                       THE COMMIT POINT: a load from now on finds the round and repeats it
//      whoever waited goes on
//   4. the pages in place          made safe by step 1 of the next round, before the area is used again
//
// A flush that fails may have lost what was written before it, also if the next one succeeds. So the images of a round
// are kept until they are known to lie in place, and are written there again; and who wrote fresh pages, or cleared
// clusters, before somebody's flush failed does not get his commit.
//
// Flushes are left out where the device has no volatile cache. A round that fails before 3 is struck out of the area
// before anybody is told, so that what failed stays failed; while that cannot be done, or while step 4 cannot be
// finished, nothing further is changed: ready() tries again and fails if it must.
//
// Without an area a round is written in place at once, and the flush behind it is the commit point. What was there is
// read before, and put back when that fails.
// Store's thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "blob/disk.h"
#include "blob/format/double_write.h"
#include "blob/format/super.h"
#include "thread/sync.h"

namespace varve::blob {

struct page_write {
    uint32_t page = 0;  // of the metadata region
    format::page_bytes bytes;
};

class committer {
  public:
    // Pages of a slot: the header, and two images; with less no change has room.
    static constexpr uint16_t per_slot_least = 3;

    // `used`: the geometry and the area of the store; without an area a power cut may tear pages, and
    // leave a round of several half done.
    committer(disk& on, const format::geometry& layout, const uuid& store, format::double_write_area area,
              uint64_t sequence);
    ~committer();

    // Pages that nothing durable names yet: in place, without ceremony. They are made safe by the round that names
    // them.
    task<> write_fresh(std::vector<page_write> pages);
    // Returns after the commit point; an error means that none of it will ever be seen. `since`: what the pages name
    // was written when so many flushes had failed (disk::flushes_failed); if more have by now, errc::io.
    task<> commit(std::vector<page_write> pages, std::optional<uint64_t> since = {});
    // Fails while the area or the metadata is in a state that must not be built upon.
    task<> ready();
    bool is_ready() noexcept;  // ready() has nothing to do
    // What was committed before lies in place, too.
    task<> placed();
    // Nobody commits any more: waits for the last round. Once.
    task<> stop();
    // After stop(): everything in place and durable, the area empty.
    task<> finish();
    // Makes the area empty; for a store about to be changed for the first time.
    task<> clear_area();

    bool busy() const noexcept { return _running; }
    // Whether a change of so many pages is made as a whole or not at all. One page is as far as its device writes
    // whole.
    bool is_whole(std::size_t pages) const noexcept { return _area.exists() && pages <= _images_max; }
    // Images one round takes: no change may have more.
    std::size_t round_max() const noexcept { return _images_max; }
    uint64_t rounds() const noexcept { return _rounds; }

  private:
    struct waiting {
        std::vector<page_write> pages;
        std::optional<uint64_t> since;
        event over;
        std::optional<error> failed;
    };
    task<> run();
    std::vector<waiting*> next_round();
    task<> last_round_durable();
    task<> to_area(const std::vector<waiting*>& round);
    task<> without_area();
    task<> read_former(uint32_t page, std::span<std::byte> to, std::span<const std::byte> next);
    task<> strike_out();
    task<> in_place();
    task<> heal();
    void notice_failed_flush() noexcept;
    task<> write_page(uint32_t page, const std::byte* bytes);

    disk& _disk;
    const format::geometry& _layout;
    const uuid _store;
    const format::double_write_area _area;
    std::size_t _images_max;
    uint64_t _sequence;
    env::buffer _memory;  // of one round: header and images, md_page_size each
    env::buffer _former;  // without an area: what was in the pages of the round
    std::vector<uint32_t> _targets;
    std::vector<waiting*> _queue;
    bool _running = false;
    bool _must_strike = false;  // a failed round may lie whole in the area, or in place where there is none
    bool _must_write = false;   // a committed one is not in place
    bool _committed = false;    // _memory holds a round that was committed and may not be durable in place
    uint64_t _placed_at = 0;    // it was written in place when so many flushes had failed
    uint64_t _rounds = 0, _placements = 0;
    mutex _healing;
    gate _tasks;
};

}  // namespace varve::blob
