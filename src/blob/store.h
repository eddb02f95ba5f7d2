// A blobstore on one bdev: blobs (volumes of clusters) with their metadata, in SPDK's format.
//
//   auto s = co_await store::load(registry, std::move(descriptor), {});
//   blob_id id = co_await s->create({.clusters = 100, .thin = true});
//   blob_ref b = co_await s->open(id);
//   ... a bdev::device whose open_channel() is b.open_channel() and whose properties are b.properties(name) ...
//   co_await s->unload();                                          when every blob_ref has gone
//
// Threads: the app thread, except blob_ref::open_channel().
// Every operation that returns without error is durable; one that fails changed nothing, whatever failed. What a crash
// interrupts is found done or not done.
// Errors: errc::not_found (no such blob), busy (a long operation works on it, or it is open), no_space, invalid,
// not_permitted (metadata is read-only), io.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "blob/blob_state.h"
#include "blob/committer.h"
#include "blob/disk.h"
#include "blob/external.h"
#include "blob/space.h"
#include "jobs/job.h"
#include "util/log.h"

namespace varve::blob {

using format::blob_id;

struct init_options {
    uint32_t cluster_size = 1024 * 1024;    // bytes; a multiple of 4096
    uint32_t md_page_count = 0;             // 0: one for each cluster
    uint32_t md_page_size = 0;              // bytes; 0: 4096, or the device's physical block if that is larger
    std::string type;                       // at most 16 bytes
    bool trim = true;                       // clear what is free in the background, the rest in unload()
    external_devices* externals = nullptr;  // for clones of devices outside; null: there can be none
    const logger* log = nullptr;            // for what nobody waits for
};

struct load_options {
    std::string type;                       // empty: whatever it is; else errc::invalid when it is another
    bool trim = true;                       // clear free clusters in the background
    external_devices* externals = nullptr;  // null: clones of devices outside stay degraded
    const logger* log = nullptr;            // for what nobody waits for
    uint64_t* steps = nullptr;              // for tests: counts blobs, pages and clusters that are looked at
};

struct blob_options {
    uint64_t clusters = 0;
    bool thin = false;
    format::clear_method clear = format::clear_method::unspecified;
    std::vector<format::xattr> xattrs;
    std::string external;  // not empty: thin, and shows the device of this id where nothing was written
};

// An open blob. What it shows is as of now; it may change with each co_await.
class blob_ref {
  public:
    blob_ref() noexcept = default;
    explicit blob_ref(blob_state& b) noexcept : _blob(&b) { ++b.opens; }
    blob_ref(blob_ref&& other) noexcept : _blob(std::exchange(other._blob, nullptr)) {}
    blob_ref& operator=(blob_ref&& other) noexcept {
        std::swap(_blob, other._blob);
        return *this;
    }
    ~blob_ref() { close(); }
    void close() noexcept {
        if (blob_state* b = std::exchange(_blob, nullptr)) --b->opens;
    }
    explicit operator bool() const noexcept { return _blob != nullptr; }

    blob_id id() const noexcept { return _blob->id; }
    uint64_t clusters() const noexcept { return _blob->record.cluster_count; }
    uint64_t clusters_allocated() const noexcept { return _blob->allocated; }
    bool thin() const noexcept { return _blob->thin(); }
    bool read_only() const noexcept { return _blob->read_only(); }
    bool is_snapshot() const noexcept { return !_blob->clones.empty(); }
    bool is_clone() const noexcept { return _blob->parent != nullptr; }
    // The device outside of the store that it shows directly; not one that a snapshot below shows.
    bool is_external_clone() const noexcept { return _blob->current->external != nullptr; }
    // As the metadata has it; empty when there is none.
    std::string external_id() const;
    // A device that it, or a snapshot below it, shows is not there: what shows through cannot be read.
    bool degraded() const noexcept;
    const format::xattr_map& xattrs() const noexcept { return _blob->record.xattrs; }
    const format::xattr_map& internal_xattrs() const noexcept { return _blob->record.internal_xattrs; }
    // Where cluster `index` lies on the device; 0: not allocated in this blob.
    uint32_t cluster_at(uint64_t index) const noexcept { return _blob->current->at(index); }

    // Why what shows through cannot be read; empty when it can.
    std::string degraded_reason() const;
    // For the device made of it. Any blob of the store may come to show any of its external parents.
    std::vector<bdev::device*> lower_devices() const;

    // What a bdev on it is like; `name` and the rest that is not the blob's is left to the caller.
    bdev::properties properties(std::string name) const;
    // For bdev::device::open_channel(), on the thread that is to use it. The blob stays open while there are channels.
    std::unique_ptr<bdev::channel> open_channel() const;
    // The device made of it, once it is registered, null when it is about to be removed: it is frozen while the blob's
    // clusters change hands. One device a blob.
    void serve_through(bdev::device* d) noexcept;

    blob_state& state() const noexcept { return *_blob; }

  private:
    blob_state* _blob = nullptr;
};

class store {
  public:
    // Makes a new store; what was on the device is gone.
    static task<std::unique_ptr<store>> init(bdev::registry& devices, bdev::descriptor base, init_options how);
    // errc::bad_sequence: there is no store, or its super block is beyond repair.
    static task<std::unique_ptr<store>> load(bdev::registry& devices, bdev::descriptor base, load_options how);
    ~store();  // after unload() or abandon()
    store(const store&) = delete;

    // Clears what has become free and was not cleared yet; where that fails or takes more than ten seconds the store
    // stays one that is in use, and the next load reads all of it. errc::busy when blobs are open. After an error it
    // can be tried again.
    task<> unload();
    // Stops without writing anything: the device has gone, or a crash is being played. Nothing is open any more.
    task<> abandon();
    // After abandon(): nothing on the device says any more that there was a store.
    task<> wipe();
    // All clusters but those that are free and clear: of a store that was abandoned, and is none any more on the
    // device, or of a new one. zero_all makes zeroes; errc::unsupported when the device cannot unmap.
    task<> unmap_all(jobs::job& progress);
    task<> zero_all(jobs::job& progress);

    // Clusters of a thick blob are zeroes: of those that are not yet, `progress` counts the clearing (null: nobody
    // looks), and can cancel it.
    task<blob_id> create(blob_options how, jobs::job* progress = nullptr);
    // errc::busy while it is being removed.
    result<blob_ref> open(blob_id id);
    class remains;
    // What the blob had (and its clone, if it has one, does not take over) becomes free little by little, or is `left`
    // to the caller. errc::busy when it is open, or has more than one clone, or one that is set aside, or when it is a
    // snapshot and nobody knows whose clone a blob is that was set aside. One that was set aside can be removed when
    // it has no clones, and leaves alone what others claim, too.
    task<> remove(blob_id id, remains* left = nullptr);
    // Clears the clusters as the clear method of the blob says that had them, and frees them, a part at a time.
    // Cancelled, and when clearing fails, they become free at once: whoever gets them next clears them.
    task<> release(remains left, jobs::job& progress);
    // More clusters read as zeroes, or as the snapshot or device below, where that has something: a clone that was
    // shrunk and grows again shows its parent's again. `progress` as with create(). What is cut off becomes free, or is
    // `left` to the caller, as with remove(). The device made of it changes with it, at once when that is durable, and
    // not at all when it fails.
    task<> resize(blob_ref& b, uint64_t clusters, jobs::job* progress = nullptr, remains* left = nullptr);
    task<> set_xattr(blob_ref& b, std::string name, std::string value);
    task<> remove_xattr(blob_ref& b, std::string name);
    // That xattr goes when other clusters become the blob's own: by inflating, decoupling or detaching it, or when the
    // snapshot below is removed. Before any of these.
    void tie_to_clusters(std::string xattr) { _tied = std::move(xattr); }
    // All at once, also of a snapshot. What is to be erased need not be there.
    task<> change_xattrs(blob_ref& b, std::vector<format::xattr> set, std::vector<std::string> erase = {});
    task<> set_read_only(blob_ref& b);
    task<> set_super_blob(blob_id id);
    blob_id super_blob() const noexcept { return _super.super_blob; }
    // What was mapped for writes that have ended is on the media, and their data with it. errc::io also when not this
    // flush of the device but one since the blob's last has failed, whoever's it was.
    task<> flush(blob_ref& b) { return flush(b.state()); }

    // Freezes what is there: the blob goes on as a clone of the snapshot, with the same contents. Writes to it wait
    // meanwhile. errc::invalid for a blob that is read-only.
    task<blob_id> snapshot(blob_ref& b, std::vector<format::xattr> xattrs);
    // A thin blob that shows the contents of a read-only one. errc::invalid when it is not read-only.
    task<blob_id> clone(blob_ref& snapshot, std::vector<format::xattr> xattrs);
    // Every cluster becomes the blob's own, and the blob thick and nobody's clone.
    task<> inflate(blob_ref& b, jobs::job& progress);
    // What shows through from the direct parent becomes the blob's own; then it is the parent's parent's clone.
    // errc::invalid when it has no parent.
    task<> decouple(blob_ref& b, jobs::job& progress);
    // The blob is nobody's clone any more, and what it has not written reads as zeroes. errc::invalid when it has no
    // parent.
    task<> detach_parent(blob_ref& b);
    // What the blob has not written shows `parent` from now on. errc::exists when it does already.
    task<> set_parent(blob_ref& b, blob_ref& parent);
    // What the blob has not written shows the device `id` from now on. errc::exists when it does already, no_device
    // when it cannot be had, invalid when its size is not a multiple of the cluster size or its blocks do not fit.
    task<> set_external_parent(blob_ref& b, std::string id);
    // A device has appeared that may be somebody's external parent. The error of open_external(), if that fails;
    // errc::invalid when it does not fit, or lies on this very store and a read might never end;
    // errc::not_found when no blob names it. Nothing when it is in use already.
    task<> attach_external(std::string id);
    // All blobs that show it, directly or through snapshots; ascending.
    std::vector<blob_id> blobs_on_external(std::string_view id) const;
    // The device it lies on, and all external parents that are there.
    std::vector<bdev::device*> lower_devices() const;
    // Takes all of a device that has become larger; errc::no_space when the metadata has no room for so many clusters.
    task<> grow();

    // An operation that excludes others on the same blob, for its scope.
    class operation {
      public:
        explicit operation(blob_state& b) noexcept : _blob(&b) { b.busy = true; }
        operation(operation&& other) noexcept : _blob(std::exchange(other._blob, nullptr)) {}
        operation& operator=(operation&&) = delete;
        ~operation() {
            if (_blob != nullptr) _blob->busy = _blob->going = false;
        }
        // It is being removed: nobody opens it meanwhile.
        void remove() noexcept { _blob->going = true; }

      private:
        blob_state* _blob;
    };
    // For who reads its clusters one after another: it is not removed, resized or given others meanwhile. errc::busy.
    result<operation> hold(blob_ref& b) { return begin_on(b.state()); }

    // All blobs, also those set aside; ascending.
    std::vector<blob_id> blobs() const;
    const blob_state* find(blob_id id) const noexcept;

    const format::geometry& geometry() const noexcept { return _super.layout; }
    const format::super_block& super() const noexcept { return _super; }
    // Why clusters that nobody is known to have are not free, or that changes are not made as a whole, and what can be
    // done; empty when there is nothing.
    std::string trouble() const;
    uint32_t free_clusters() const noexcept { return _space.free_clusters(); }
    uint32_t data_clusters() const noexcept { return _space.data_clusters(); }
    uint64_t io_units(uint64_t clusters) const noexcept {
        return clusters * (_super.layout.cluster_size / _super.layout.io_unit_size);
    }
    const space& room() const noexcept { return _space; }
    disk& base() noexcept { return _disk; }
    // Clusters made ready for first writes; the rest is cleared in the background from now on.
    void start_trimming();
    // Of a new store: what was on the device before is not to be seen in it, by whoever serves it next either.
    void clear_all_that_is_free();
    // Of a new store all of whose clusters were written as zeroes when so many flushes had failed: nobody need clear
    // them again, if they are on the media. The error of the flush.
    task<> all_that_is_free_is_zeroes(uint64_t flushes_failed_before);
    // No background work is under way.
    task<> settle();

    // --- for channels: a request that waits for its cluster; store's thread
    void want(errand& e) noexcept;
    // Nobody has a channel of the blob any more.
    void no_requests(blob_state& b) noexcept;
    thread::thread& home() const noexcept { return _home; }

  private:
    friend class loader;
    friend class online_check;
    store(bdev::registry& devices, bdev::descriptor base, format::super_block super);

    std::string clusters_without_owner() const;
    task<> write_new_store();
    void adopt_area();
    void adopt_copy_page();
    format::bit_mask pages_used() const;
    uint32_t next_stamp() noexcept { return ++_stamp == 0 ? ++_stamp : _stamp; }
    // The latest there was when the masks on disk were exact; 0: nobody knows, or it is too long ago.
    uint32_t stamp_of_masks() const noexcept;

    // Before anything is changed: the area can be relied upon and the super block says that the store is in use.
    task<> begin_change();
    bool may_change() noexcept;  // begin_change() has nothing to do
    bool says_in_use() const noexcept;
    task<> write_super(format::super_block next);
    task<> put_page(uint64_t offset, const format::page_bytes& bytes);
    task<> put_super(const format::page_bytes& bytes);
    task<> put_copy(const format::super_block& s);
    task<> write_masks();

    result<operation> begin_on(blob_state& b);
    result<blob_state*> find_blob(blob_id id);

    // What a blob's metadata is to become. Made, committed, then taken over; destroyed before, it leaves nothing.
    struct revision {
        explicit revision(store& s) : mine(s._space), since(s._disk.flushes_failed()) {}
        format::blob_record record;
        extent_table extent_pages;
        std::vector<page_write> fresh;  // to be written before
        std::vector<page_write> also;   // to be committed with the root
        taken mine;                     // pages and clusters that are not the blob's yet
        uint64_t since;                 // flushes that had failed before anything of it was written
        bool hands_over = false;        // the blob's extent pages are somebody else's afterwards
        bool saves = false;             // what is unsaved: takes pages that are promised
    };
    revision revise(const blob_state& b);
    // Extent pages `indices` as `l` has them, on new pages.
    result<> add_extent_pages(revision& r, const layout& l, const std::vector<uint64_t>& indices);
    result<> add_extent_page(revision& r, uint64_t index, std::vector<uint32_t> clusters);
    // The commit point of most operations. Then record and extent_pages are the blob's, and what is in them that was
    // not before; the pages that are not any more are free.
    task<> commit(blob_state& b, revision& r);
    // Its parts: all but the pages to be committed is written, which r.also has then; and what follows the commit.
    task<> prepare(revision& r);
    void adopt(blob_state& b, revision& r) noexcept;
    static void lay_out_runs(revision& r, const layout& l, const std::vector<wish*>& added = {});
    // What extent page `index` of a blob of `clusters` holds.
    static std::vector<uint32_t> extents_of(const layout& l, uint64_t index, uint64_t clusters);
    static format::page_bytes extent_page(const blob_state& b, uint64_t index, std::vector<uint32_t> clusters);
    result<uint32_t> take_page(revision& r, uint32_t from = 0);
    // What saving so many new extent pages or runs of the blob takes at most.
    static uint32_t pages_to_save(const blob_state& b, uint64_t added) noexcept;
    // A mapping there in memory only would find the pages that saving it takes: they are nobody else's from now on.
    bool promise(blob_state& b, uint64_t extent) noexcept;
    void renew_promise(blob_state& b) noexcept;
    void set_promise(blob_state& b,
                     uint64_t added) noexcept;  // a save in hand counts what it has taken as promised, too

    enum class clearing : uint8_t { zero, unmap, write_zeroes };
    // So many clusters of zeroes.
    task<std::vector<uint32_t>> allocate(taken& mine, uint64_t count, jobs::job* progress);
    task<> clear(std::vector<uint32_t> clusters, clearing how, jobs::job* progress);
    // Gives the next clusters in a row, at most so many; none of them: ask again after a turn of the thread.
    using clusters_to_clear = std::move_only_function<std::optional<cluster_range>(uint32_t at_most)>;
    task<> clear(clusters_to_clear next, uint64_t count, clearing how, jobs::job* progress);
    task<> clear_all(clearing how, jobs::job& progress);
    std::unique_ptr<blob_state> forget(blob_state& b) noexcept;
    task<> free_space_of(std::unique_ptr<blob_state> b);
    // Of what a blob that is still there, or shared them, had.
    void part_with(const blob_state& former, const std::vector<uint32_t>& clusters, remains* left);
    void free_clusters_of(const blob_state& b, uint64_t from, uint64_t to, cluster_state as) noexcept;
    void free_pages_of(const blob_state& b) noexcept;
    clearing clearing_of(const blob_state& b) const noexcept;
    // Whether clusters are being cleared that somebody wants now: they are free at once then, and he clears them.
    bool hurry_remains() noexcept;
    task<> remove_damaged(blob_state& b);
    // busy: a blob that is set aside needs it, or may: nobody can tell whose clone that is.
    result<> needed_by_the_damaged(const blob_state& b) const;
    void free_what_nobody_claims(const blob_state& b);
    // What could not be read of a blob that is gone and is nobody else's, so that no load must think it may be
    // anybody's (load/unreadable.cc).
    task<> make_readable(const blob_state& gone);
    task<bdev::registry::frozen> freeze(blob_state& b);
    // Destroyed when every thread has been elsewhere.
    void retire(std::unique_ptr<layout> old);
    void retire(std::unique_ptr<blob_state> old);
    void background(task<> t);

    // Snapshots (snapshot.cc).
    task<> commit_both(blob_state& made, revision& draft, blob_state& origin, revision& clone);
    task<> unhide(blob_id id);
    // Before a blob gets another parent or goes: its parent carries no mark that the next load would take that for.
    task<> settle_parent(blob_state& b);
    // Nobody reads through `of` any more what was its parent's before: no request, and no copy.
    task<> drain_descendants(blob_id of);
    task<> try_twice(blob_id id, task<> (store::*what)(blob_id));
    task<> merge_into_clone(blob_state& snapshot, remains* left);
    task<> take_over(blob_state& clone, blob_state& snapshot, remains* left);
    result<> merge_extents(revision& r, const blob_state& clone, const blob_state& snapshot, const layout& merged);
    task<> clear_root(blob_id id);
    // Pages and clusters that only a root page names which is to be cleared; the first page is that one.
    struct stale_root {
        std::vector<uint32_t> pages, clusters;
    };
    // What a snapshot has that did not become its clone's.
    static stale_root left_of(const blob_state& snapshot, const layout& merged, const extent_table& extent_pages);
    // Never fails: while the root page cannot be cleared, nothing else is changed (begin_change). What it names may be
    // the clone's as well; if that gave a page to others, a load would take them for damaged. Gives the clusters that
    // are nobody's now and not free yet.
    task<std::vector<uint32_t>> bury(blob_id id, stale_root left);
    task<> clear_stale_roots();
    task<> clear_old_roots();
    void free_stale_root(const stale_root& of) noexcept;

    // Inflating (inflate.cc).
    task<> detach(blob_state& b, bool all, jobs::job& progress);
    task<> drop_parent(blob_state& b, bool all);
    task<> reparent(blob_state& b, blob_state* above, external_parent* external);
    void change_parent(blob_state& b, std::unique_ptr<layout> next, blob_state* above);
    // The former parent has the blob among its clones until nothing is read through it any more.
    task<> part_from(blob_state* former, blob_state& b);

    // Clones of devices outside (external_clones.cc).
    external_parent& external(const std::string& id);
    // Keeps its device open although no blob shows it yet; when none does in the end, it is let go.
    class keeping {
      public:
        keeping(store& s, external_parent& p) noexcept : _store(s), _parent(p) { ++_parent.wanted; }
        keeping(const keeping&) = delete;
        ~keeping() {
            --_parent.wanted;
            _store.let_go_of_externals();
        }

      private:
        store& _store;
        external_parent& _parent;
    };
    task<> open_external(external_parent& p);
    task<> open_externals();
    task<> lose_external(external_parent& p);
    bool shows(const external_parent& p) const noexcept;
    void let_go_of_externals();
    task<> let_go_when_unused(external_parent& p);
    task<> end_externals();

    // First writes (first_write.cc).
    task<> ensure_cluster(blob_state& b, uint64_t index, bool blank = false);
    bool serve_at_once(blob_state& b, wish& w) noexcept;
    task<> serve(blob_state& b, wish& w, bool blank);
    task<> find_cluster(blob_state& b, wish& w, bool blank);
    void place(blob_state& b, wish& w) noexcept;
    // Ends the wish. When it has failed, its cluster is free.
    void answer(blob_state& b, wish& w, const result<>& outcome) noexcept;
    task<> fill(uint32_t cluster, uint64_t index, source from, bool clean);
    semaphore _copies{external_parent::copies_at_once};  // from snapshots: each has memory
    task<> fills_ended(const std::vector<blob_id>& of);  // those that are under way now
    task<uint32_t> take_cluster(taken& mine, bool& clean);
    std::string kept_in_words() const;
    task<> run_mapping(blob_state& b);
    task<> commit_mappings(blob_state& b, const std::vector<wish*>& batch, const std::set<uint64_t>& extents);
    task<> save(blob_state& b);
    task<> save_locked(blob_state& b);  // b.md is held
    task<> flush(blob_state& b);
    void flush_failed() noexcept;
    void take_back_unsaved(blob_state& b);
    // Those an operation is about to commit, or has copied the layout of; what it leaves is the blob's again.
    class unsaved_in_hand {
      public:
        unsaved_in_hand(store& s, blob_state& b, std::vector<unsaved_mapping> which)
            : those(std::move(which)), _store(s), _blob(b), _since(s._disk.flushes_failed()) {}
        unsaved_in_hand(const unsaved_in_hand&) = delete;
        ~unsaved_in_hand() {
            std::vector<unsaved_mapping>& its = _blob.unsaved_mappings;
            its.insert(its.end(), those.begin(), those.end());
            if (_since != _store._disk.flushes_failed()) _store.take_back_unsaved(_blob);
        }
        std::vector<unsaved_mapping> those;

      private:
        store& _store;
        blob_state& _blob;
        const uint64_t _since;
    };
    task<> lose_writes(blob_state& b);
    task<> save_all();
    task<> trim();
    task<bool> trim_stale();
    uint32_t trimmed_at_once() const noexcept;
    task<bool> trim_range(cluster_range r);
    // Mappings that nobody flushes are saved after a while.
    void save_soon() noexcept;
    void save_now();
    task<> save_one(blob_state& b, mutex::holder chores);

    // Unmap and write-zeroes (discard.cc).
    struct zeroing;
    task<> zero(blob_state& b, const bdev::io& r);
    void plan(zeroing& z) const noexcept;
    bool releases(const blob_state& b, uint64_t index) const noexcept;
    void give_up(blob_state& b, uint64_t index, uint32_t cluster);
    task<> zero_below(zeroing& z);
    task<> zero_after_filling(blob_state& b, uint64_t at, uint64_t bytes);
    void saved(blob_state& b);
    void start_release(blob_state& b);
    task<> release(blob_state& b);
    void free_given_up(blob_state& b) noexcept;

    bdev::registry& _devices;
    thread::thread& _home;
    disk _disk;
    format::super_block _super;
    space _space;
    std::unique_ptr<committer> _commits;
    std::map<std::string, std::unique_ptr<external_parent>> _outside;  // by id; longer than any layout
    external_devices* _externals = nullptr;
    const logger* _log = nullptr;
    uint32_t _pages_promised = 0;  // of the free ones; to all blobs
    std::map<blob_id, std::unique_ptr<blob_state>> _blobs;
    std::map<blob_id, stale_root> _stale_roots;
    std::vector<uint32_t> _old_roots;  // pages that begin blobs which the masks call deleted; free, and nobody's
    mutex _burying;
    // Nobody's, but somebody who was set aside may know more: free when nobody is any more.
    bitmap _kept_clusters;
    std::vector<uint32_t> _kept_pages;
    uint32_t _stamp = 0;
    uint64_t _round = 0;  // the last in the double-write area
    // Of the metadata, when the store was loaded: what is written of it later may be incomplete.
    struct unreadable {
        bool mask = false;
        std::map<uint32_t, std::string> of_blobs;         // pages, and why; whose they are is known
        std::map<uint32_t, std::string> of_nobody_known;  // there may be blobs that nobody has seen
        bool any() const noexcept { return mask || !of_blobs.empty() || !of_nobody_known.empty(); }
    } _unreadable;
    bool _super_unsure = false;   // what is on disk may not be _super
    bool _area_is_new = false;    // the super block, or the mask of used pages, does not know of it or of the copy
    bool _masks_doubted = false;  // those on disk are not what was found
    format::page_bytes _copy{};   // the copy of the super block as it is on the media; clear: nobody knows, or none
    mutex _super_lock;
    std::string _tied;
    bool _trimming = false;
    bool _stopping = false;
    std::vector<jobs::job*> _clearing;  // of what removed blobs had; not free before
    event _more_room;                   // pulsed: clusters have become free, or the trimmer has given some back
    unsigned _releases = 0;             // under way: clusters will become free
    // One of them, or something that may come to be one.
    class releasing {
      public:
        explicit releasing(store& s) noexcept : _store(&s) { ++s._releases; }
        releasing(const releasing&) = delete;
        ~releasing() { end(); }
        void end() noexcept;

      private:
        store* _store;
    };
    bool save_for_room();
    // A cluster that is being filled for a blob.
    struct filling : list_node<> {
        filling(store& s, blob_id id) noexcept : where(s), of(id), number(s._fills_begun++) {
            s._fills.push_back(*this);
        }
        ~filling() {
            unlink();
            where._fill_over.pulse();
        }
        store& where;
        const blob_id of;
        const uint64_t number;
    };
    list<filling> _fills;
    uint64_t _fills_begun = 0;
    event _fill_over;    // pulsed
    event _device_gone;  // pulsed: of a blob
    struct saving : work {
        store* of = nullptr;
    } _save;
    thread::timer _save_timer{_save};
    gate _tasks;
};

// What was a blob's and is nobody's, and is not free yet. Destroyed, it is free; the store is not unloaded before.
class store::remains {
  public:
    remains() noexcept = default;  // of nothing
    remains(store& s, std::unique_ptr<blob_state> b) : _blob(std::move(b)), _stays(s._tasks.enter()) {}
    remains(remains&& other) noexcept = default;
    remains& operator=(remains&& other) noexcept {
        std::swap(_blob, other._blob);
        std::swap(_stays, other._stays);
        return *this;
    }
    ~remains();
    explicit operator bool() const noexcept { return _blob != nullptr; }
    // Something is to be written to the device first.
    bool must_be_cleared() const noexcept;

  private:
    friend class store;
    std::unique_ptr<blob_state> _blob;
    gate::holder _stays;
};

}  // namespace varve::blob
