// examine() at work: the steps share what they have found out. Private to this folder.
#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>

#include "blob/check/examine.h"
#include "util/sparse.h"

namespace varve::blob::check {

class examiner {
  public:
    examiner(evidence& e, examine_options how)
        : _e(e), _how(how), _super(*e.store()), _g(e.layout()), _bad_roots(_g.md.count) {}
    examination run();

  private:
    finding& report(problem what, severity how_bad, std::string text);
    bool can_be_set_aside(const examined_blob& b) const noexcept;
    finding& report_blob(problem what, const examined_blob& b, std::string text);

    // examine.cc: what is not about one blob
    void look_at_super();
    void doubt_masks();
    bool in_no_chain(uint32_t page) const noexcept;
    void judge_unreadable();
    void judge_cleanness();
    void replay_double_write();
    void mend_flipped_bits();
    void report_flipped_bits();
    bool read_round(format::double_write_header& header, std::vector<format::page_bytes>& images);
    void report_unknown_round(uint32_t page);
    void report_bad_mask_of_area();
    bool clean() const noexcept { return _super.masks_are_true(); }
    bool any_set_aside() const;
    bool owners_unknown() const;
    void compare_masks();
    void compare_mask(format::mask_type type, const format::bit_mask& ours);
    void find_restored();
    void keep_all();
    void keep_what_a_broken_blob_may_own(format::mask_type type, format::bit_mask& ours);

    // blobs.cc: blob after blob
    void find_blobs();
    void find_bad_roots(const format::bit_mask* ids);
    void report_bad_root(uint32_t number, std::string_view what);
    void judge_unmarked_roots(std::span<const uint32_t> roots);
    void report_stale_root(uint32_t number);
    void read_blob(uint32_t root);
    void read_chain(examined_blob& b);
    void read_extents(examined_blob& b);
    void read_extent_page(examined_blob& b, extent_page_use& use);
    static void find_owned(examined_blob& b);
    void break_blob(examined_blob& b, std::string why, uint32_t page);
    void look_at_flags(examined_blob& b);

    // owners.cc: blobs against each other
    void link_parents();
    void find_ancestors();
    void find_half_made(examined_blob& b, std::string_view mark, bool has_clones);
    void claim();
    void claim_double_write();
    void claim_copy();
    template <class Share>
    void hold_against(uint32_t me, std::span<const uint32_t> others, Share share);
    void claim_page(const examined_blob& b, uint32_t page);
    void find_shared_clusters();
    void keep_what_damaged_pages_name();
    bool may_share(const examined_blob& a, const examined_blob& b) const noexcept;
    void report_shared();

    // volumes.cc: what makes a blob a logical volume
    void look_at_volumes();
    void look_at_name(const examined_blob& b, std::map<std::string, format::blob_id>& names);
    void look_at_uuid(const examined_blob& b, std::map<std::string, format::blob_id>& uuids);

    evidence& _e;
    const examine_options _how;
    const format::super_block& _super;
    const format::geometry& _g;
    examination _out;
    format::bit_mask _bad_roots;
    std::set<uint32_t> _named_unreadable;  // by blobs
    std::vector<uint32_t> _unseen;         // unreadable pages in which blobs may begin that nobody knows
    std::vector<uint32_t> _flipped;        // pages that were put right
    sparse<uint8_t> _extent_uses;          // of a page, up to two
    sparse<uint32_t> _page_owner;          // index in _out.blobs, plus one
    std::map<uint32_t, std::vector<uint32_t>> _page_owners;  // indexes, where there is more than one
    std::vector<uint8_t> _shares;                            // with somebody; by index
    using pair_of_blobs = std::pair<uint32_t, uint32_t>;     // indexes in _out.blobs, the smaller first
    std::map<pair_of_blobs, std::vector<uint32_t>> _shared_pages;
    std::map<pair_of_blobs, std::vector<format::cluster_run>> _shared_clusters;
    std::set<uint32_t> _sharers;  // indexes in _out.blobs
    bool _parents_missing = false;
};

}  // namespace varve::blob::check
