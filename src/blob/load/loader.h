// loader: how a store is opened (loader.cc says in which steps). Private to this folder; store's thread.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "blob/format/mask.h"
#include "blob/format/stale.h"
#include "blob/store.h"
#include "util/sparse.h"

namespace varve::blob {

class loader {
  public:
    // `steps`: counts blobs, pages and clusters that are looked at, each as often as it is; null: nobody wants to know.
    loader(store& s, uint64_t* steps)
        : _s(s), _g(s._super.layout), _steps(steps == nullptr ? _own_steps : *steps), _pages(_g.md.count) {}
    task<> run();

  private:
    static uint64_t pages_to_spare(env::system& world);
    // Twice, if it must be.
    task<result<>> read_patiently(uint64_t offset, std::span<std::byte> to);
    task<> read_masks();
    task<std::optional<format::bit_mask>> read_mask(format::mask_type type, format::page_range where, uint32_t bits);
    task<> doubt_masks();
    task<> repeat_round();
    task<> write_in_place(const format::double_write_header& header, std::span<const format::page_bytes> images,
                          std::span<const format::image_seen> seen);
    task<> find_data();
    task<> read_metadata();
    struct progress;  // of those who read side by side
    task<> read_pieces(progress& all);
    task<> read_one_by_one(uint32_t first, uint32_t count, std::span<std::byte> memory);
    void take_page(uint32_t number, format::page_view bytes);
    bool wanted(uint32_t page) const noexcept {
        return !_clean || _read_all || _used_pages->test(page) || _used_ids->test(page);
    }
    const format::page_bytes* page(uint32_t number) const noexcept {
        const auto* found = _pages.find(number);
        return found == nullptr ? nullptr : found->get();
    }

    task<> find_blobs();
    bool is_nothing(uint32_t page) const;
    bool is_root(uint32_t page) const;
    // Pages that begin blobs which were deleted: they are nothing from now on.
    task<> forget_the_deleted();
    task<> look_at_one();
    struct named;  // pages and clusters
    named named_by_all() const;
    format::bit_mask pages_named() const;
    bool area_is_ours() const noexcept;
    bool copy_is_ours() const noexcept;
    bool super_is_ours() const noexcept;
    void judge_unreadable();
    bool masks_fit() const;
    bool is_alive(const blob_state& unmarked, const named& by_others) const;
    void decode(blob_state& b);
    static result<std::unique_ptr<layout>> make_layout(uint64_t clusters);
    std::unique_ptr<layout> claims_of(blob_state& b);
    format::decoded_chain decode_chain(blob_state& b);
    std::optional<error> decode_extents(blob_state& b, layout& l);
    result<format::extent_page> decode_extent_page(blob_state& b, uint64_t index, std::optional<error>& wrong);
    bool use_of_run(uint32_t cluster);
    error cannot_read(uint32_t page, std::string_view what) const;
    void link_parents();
    struct census;
    void settle_drafts();
    void unmark(blob_state& b, std::string_view mark);
    void drop(const std::set<blob_id>& dropped);
    task<> claim(blob_state& b);
    void set_aside(blob_state& b, std::string why);
    void judge_lineage();
    bool set_aside_clones_of_the_damaged();
    void step(uint64_t n = 1) noexcept { _steps += n; }
    task<> keep_what_the_damaged_may_have();
    void claim_area();
    bool claim_copy();
    void find_old_roots();
    task<> tidy();
    task<bool> write_unmarked(blob_state& b);
    task<> rewrite_in_place(blob_state& b);

    store& _s;
    const format::geometry& _g;
    uint64_t _own_steps = 0;
    uint64_t& _steps;
    uint64_t _claimed = 0;  // since others had their turn
    uint64_t _pages_held = 0, _pages_held_max = UINT64_MAX;
    bool _clean = false;
    bool _read_all = false;
    bool _masks_lied = false;      // those of a store that says it was unloaded
    bool _owners_unknown = false;  // pages of blobs, or what may be such, tell nothing: who knows what they have
    std::optional<format::bit_mask> _used_pages, _used_clusters, _used_ids;
    std::vector<format::page_range> _with_data;          // parts of the region that may hold anything, numbers in it
    sparse<std::unique_ptr<format::page_bytes>> _pages;  // of the region; null: clear, or not wanted
    unsigned _looked_at = 0;                             // pages, since others had their turn
    std::map<uint32_t, std::string> _unreadable;         // pages
    std::vector<uint32_t> _guessed;                      // clusters that damaged pages name
    sparse<uint8_t> _extent_page_users, _cluster_users;  // the latter: by runs
    std::vector<uint32_t> _old_roots;
    sparse<blob_state*> _page_owner, _cluster_owner;
    std::vector<uint32_t> _to_clear;                   // roots of drafts that came to nothing
    std::vector<uint32_t> _dropped_pages;              // theirs: nobody else's before the roots are cleared
    std::map<blob_id, format::xattr_map> _to_rewrite;  // whose records are not as on disk, and what that has
};

}  // namespace varve::blob
