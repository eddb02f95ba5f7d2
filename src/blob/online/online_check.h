// Checks a store while it serves: whether what lies on the device is what memory says, and whether memory contradicts
// itself. Store's thread.
//
// One blob at a time, under its `md` mutex: its first writes wait for the few pages that are read, nothing else does.
// What an operation works on is looked at when that is over; after some tries it is left out with a note.
#pragma once

#include <vector>

#include "blob/check/finding.h"
#include "blob/store.h"

namespace varve::blob {

class online_check {
  public:
    online_check(store& of, jobs::job& progress);
    // errc::cancelled. Findings of severity note are no faults.
    task<std::vector<check::finding>> run();

  private:
    enum class visit : uint8_t { done, gone, busy };
    task<visit> look_at(blob_id id);
    task<> look_at_chain(const blob_state& b);
    task<> look_at_extents(const blob_state& b);
    task<> look_at_super();
    task<> claim_clusters(const blob_state& b);
    task<> find_unclaimed();
    bool owns(blob_id id, uint32_t cluster) const noexcept;
    task<result<>> read_page(uint32_t page, format::page_bytes& to);
    void found(check::problem what, check::severity how_bad, const blob_state* b, std::string text);

    store& _store;
    jobs::job& _progress;
    env::buffer _memory;  // of one page
    std::vector<check::finding> _found;
    std::vector<blob_id> _ids;      // those looked at
    std::vector<uint32_t> _owners;  // by cluster: index in _ids + 1; 0: nobody yet
    bool _all_seen = true;
};

}  // namespace varve::blob
