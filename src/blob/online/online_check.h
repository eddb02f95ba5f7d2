// Checks a store while it serves: whether what lies on the device is what memory says, and whether memory contradicts
// itself. Store's thread.
//
// One blob at a time, a few pages at once under its `md` mutex: its first writes wait for that one read, nothing else
// does. Between two of these the job can be paused, slowed down and cancelled, and the blob may change: what has
// changed is looked at again. What an operation works on is looked at when that is over; after some tries it is left
// out with a note.
#pragma once

#include <optional>
#include <vector>

#include "blob/check/finding.h"
#include "blob/store.h"
#include "util/sparse.h"

namespace varve::blob {

class online_check {
  public:
    online_check(store& of, jobs::job& progress);
    // errc::cancelled. Findings of severity note are no faults.
    task<std::vector<check::finding>> run();

  private:
    enum class visit : uint8_t { done, gone, busy };
    struct held {  // its metadata stands still
        visit why = visit::done;
        const blob_state* blob = nullptr;  // null: `why` says why not
        mutex::holder md;
    };
    struct page_read {
        std::optional<error> failed;
        format::page_bytes bytes{};
    };
    struct collision {
        uint64_t index = 0;
        uint32_t cluster = no_cluster;
        blob_id first = 0;  // who had it before
    };
    task<held> hold(blob_id id);
    task<visit> look_at(blob_id id);
    task<visit> look_at_chain(blob_id id);
    task<visit> look_at_extents(blob_id id);
    void compare_chain(const blob_state& b, const std::vector<page_read>& pages);
    void compare_extent_page(const blob_state& b, std::size_t index, const std::vector<uint32_t>& wanted,
                             const page_read& there);
    bool is_known(const blob_state& b) const;
    task<> look_at_super();
    task<visit> claim_clusters(blob_id id);
    task<visit> look_at_collisions(blob_id id, const std::vector<collision>& all);
    // Calls what(index, cluster) for each cluster it has; others have their turns meanwhile.
    template <class What>
    task<> each_cluster(blob_id id, What what);
    task<> find_unclaimed();
    // To the end of `to`.
    task<> read_pages(std::vector<uint32_t> pages, std::vector<page_read>& to);
    task<> read_page(uint32_t page, std::span<std::byte> memory, page_read& to);
    void found(check::problem what, check::severity how_bad, const blob_state* b, std::string text);

    store& _store;
    jobs::job& _progress;
    env::buffer _memory;  // of the pages that are read at once
    std::vector<check::finding> _found;
    std::vector<blob_id> _ids;  // those looked at
    sparse<uint32_t> _owners;   // by cluster: index in _ids + 1; 0: nobody yet
    bool _all_seen = true;
};

}  // namespace varve::blob
