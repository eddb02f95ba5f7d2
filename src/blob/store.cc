#include "blob/store.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "blob/format/super_copy.h"
#include "env/system.h"
#include "thread/awaits.h"
#include "thread/runtime.h"

namespace varve::blob {

namespace {

constexpr uint32_t stamps_compared_max = uint32_t{1} << 30;

}  // namespace

store::store(bdev::registry& devices, bdev::descriptor base, format::super_block super)
    : _devices(devices),
      _home(*thread::thread::current()),
      _disk(devices, std::move(base)),
      _super(std::move(super)),
      _space(_super.layout.first_data_cluster, _super.layout.cluster_count, _super.layout.md.count) {
    if (_super.extension) _stamp = _super.extension->next_stamp;
    _disk.on_failed_flush([this] { flush_failed(); });
}

store::~store() { VARVE_ASSERT(_tasks.inside() == 0); }

// --- making

task<std::unique_ptr<store>> store::init(bdev::registry& devices, bdev::descriptor base, init_options how) {
    if (how.type.size() > sizeof(format::super_block::type)) {
        co_await fail(errc::invalid, "the type of a blobstore has at most 16 bytes");
    }
    format::device_shape shape{{base->num_blocks() * base->block_size()}, base->block_size()};
    format::geometry layout =
        co_await format::plan_store(shape, {.cluster_size = how.cluster_size,
                                            .md_page_count = how.md_page_count,
                                            .md_page_size = how.md_page_size,
                                            .physical_block_size = base->props().physical_block_size});
    std::unique_ptr<store> made(new store(devices, std::move(base), format::new_super(layout, how.type)));
    store& s = *made;
    s._externals = how.externals;
    s._log = how.log;
    auto outcome = co_await as_result(s.write_new_store());
    if (!outcome) {
        co_await s.abandon();
        co_await std::move(outcome);
    }
    if (how.trim) s.clear_all_that_is_free();
    co_return made;
}

// The old super block goes first and the new one comes last, so that there is no store in between.
task<> store::write_new_store() {
    const format::geometry& g = _super.layout;
    co_await _disk.zero(0, g.md_page_size);
    co_await _disk.flush();
    co_await _disk.zero(g.md_page_size, uint64_t{g.md.first + g.md.count - 1} * g.md_page_size);
    _super.extension.emplace().store = _devices.world().make_uuid();
    adopt_area();
    adopt_copy_page();
    co_await write_masks();
    co_await _disk.flush();
    co_await write_super(_super);
    _commits =
        std::make_unique<committer>(_disk, _super.layout, _super.extension->store, _super.extension->double_write, 0);
}

format::bit_mask store::pages_used() const {
    format::bit_mask used(_space.page_count());
    for (uint32_t p = 0; p < _space.page_count(); ++p) {
        if (_space.page_used(p)) used.set(p);
    }
    return used;
}

void store::adopt_area() {
    const format::bit_mask used = pages_used();
    const uint16_t pages = format::longest_free_run(used, format::area_pages(_space.page_count()));
    if (pages < committer::per_slot_least) return;
    auto area = format::place_double_write(used, 1, pages);
    if (!area) return;
    for (uint32_t p = 0; p < area->page_count(); ++p) _space.claim_page(area->first + p);
    _super.extension->double_write = *area;
}

void store::adopt_copy_page() {
    const auto page = format::place_super_copy(pages_used());
    if (page) _space.claim_page(*page);
    _super.extension->copy_page = page.value_or(0);
    _copy = {};
}

// --- the super block and the masks

task<> store::put_page(uint64_t offset, const format::page_bytes& bytes) {
    env::buffer memory = co_await _disk.memory(_super.layout.md_page_size);
    std::memcpy(memory.data(), bytes.data(), bytes.size());
    co_await _disk.write_durably(offset, memory.bytes());
}

// A write that tears leaves a super block only if the first sector is sealed before and after it. Where it is not (SPDK
// made the store), the sealed first sector is written by itself, before the rest or, when the old one comes back,
// after.
task<> store::put_super(const format::page_bytes& bytes) {
    const uint32_t block = _disk.block_size();
    const bool seals = format::first_sector_sealed(bytes);
    const bool sealed = format::first_sector_sealed(_super.raw) && !_super.flipped;
    if (block < bytes.size() && !(seals && sealed)) {
        env::buffer memory = co_await _disk.memory(bytes.size());
        std::memcpy(memory.data(), bytes.data(), bytes.size());
        const auto all = memory.bytes().first(bytes.size());
        co_await _disk.write_durably(seals ? 0 : block, seals ? all.first(block) : all.subspan(block));
    }
    co_await put_page(0, bytes);
}

// Before the super block that says the same: one of both is whole at any time, and the copy never knows less. When it
// fails, the store has one copy less until the next super block is written.
task<> store::put_copy(const format::super_block& s) {
    if (!s.extension || s.extension->copy_page == 0 || format::says_the_same(_copy, s)) co_return;
    const format::page_bytes bytes = format::encode_super_copy(s);
    _copy = {};
    co_await put_page(_super.layout.offset_of_md_page(s.extension->copy_page), bytes);
    _copy = bytes;
}

// When it fails, the old one is put back; while that fails, too, nothing is changed (begin_change).
task<> store::write_super(format::super_block next) {
    if (next.extension) {
        ++next.extension->sequence;
        next.extension->next_stamp = _stamp;
    }
    next.raw = format::encode_super(next);
    co_await as_result(put_copy(next));
    result<> outcome = co_await as_result(put_super(next.raw));
    if (!outcome) {
        _super_unsure = !co_await as_result(put_super(_super.raw));
        co_await std::move(outcome);
    }
    next.flipped = false;
    _super = std::move(next);
}

task<> store::write_masks() {
    const format::geometry& g = _super.layout;
    const format::bit_mask pages = pages_used();
    format::bit_mask ids(g.md.count), clusters(g.cluster_count);
    for (const auto& [id, b] : _blobs) ids.set(format::root_page_of(id));
    for (uint32_t c = 0; c < g.cluster_count; ++c) {
        if (_space.cluster_used(c)) clusters.set(c);
    }
    struct region {
        const format::bit_mask& bits;
        format::mask_type type;
        format::page_range where;
    };
    for (const region& r : {region{pages, format::mask_type::used_pages, g.page_mask},
                            region{clusters, format::mask_type::used_clusters, g.cluster_mask},
                            region{ids, format::mask_type::used_blobids, g.blobid_mask}}) {
        if (r.where.count == 0) continue;  // stores of the first versions
        env::buffer memory = co_await _disk.memory(g.bytes_of_mask(r.where, r.bits.size()));
        format::encode_mask(r.bits, r.type, memory.bytes());
        co_await _disk.write(g.offset_of(r.where), memory.bytes());
    }
}

uint32_t store::stamp_of_masks() const noexcept {
    uint32_t known = _super.extension->masks_stamp;
    if (_super.clean) known = _stamp;
    if (_masks_doubted) known = 0;
    if (_area_is_new) known = _stamp;  // they are written
    return _stamp - known <= stamps_compared_max ? known : 0;
}

bool store::says_in_use() const noexcept {
    return !_super.clean && !_area_is_new && _super.extension->masks_stamp == stamp_of_masks();
}

bool store::may_change() noexcept {
    return _commits->is_ready() && _stale_roots.empty() && _old_roots.empty() && says_in_use() && !_super_unsure;
}

task<> store::begin_change() {
    co_await _commits->ready();
    if (!_stale_roots.empty()) co_await clear_stale_roots();
    if (!_old_roots.empty()) co_await clear_old_roots();
    if (says_in_use() && !_super_unsure) co_return;
    auto one = co_await _super_lock.lock();
    if (_super_unsure) {
        co_await put_super(_super.raw);
        _super_unsure = false;
    }
    if (says_in_use()) co_return;
    // What is in the area is of an earlier life, and others may have changed the store since: it goes before the mask
    // says that the area can be trusted.
    if (_super.clean || _area_is_new) co_await _commits->clear_area();
    if (_area_is_new) {
        const uint64_t since = _disk.flushes_failed();
        co_await write_masks();
        co_await _disk.flush_since(since);
    }
    format::super_block next = _super;
    next.clean = false;
    next.extension->masks_stamp = stamp_of_masks();
    co_await write_super(std::move(next));
    _area_is_new = _masks_doubted = false;
}

task<> store::set_super_blob(blob_id id) {
    if (id != format::no_blob) co_await find_blob(id);
    co_await begin_change();
    auto one = co_await _super_lock.lock();
    format::super_block next = _super;
    next.super_blob = id;
    co_await write_super(std::move(next));
}

// --- the end

task<> store::unload() {
    for (const auto& [id, b] : _blobs) {
        if (b->opens != 0 || b->busy) co_await fail(errc::busy, fmt::format("blob 0x{:x} is in use", id));
    }
    co_await save_all();
    if (!_stale_roots.empty()) co_await clear_stale_roots();
    _save_timer.cancel();
    if (!std::exchange(_stopping, true)) {
        co_await _tasks.close();
        co_await _commits->stop();
        co_await end_externals();
    }
    if (_super.clean) co_return;
    co_await _commits->finish();
    for (auto& [id, b] : _blobs) free_given_up(*b);
    const bool cleared = co_await trim_stale();
    const uint64_t since = _disk.flushes_failed();
    co_await write_masks();
    co_await _disk.flush_since(since);
    // The masks say what is known, but the next load looks again.
    if (_unreadable.any() || !cleared) co_return;
    format::super_block next = _super;
    next.clean = true;
    co_await write_super(std::move(next));
}

task<> store::abandon() {
    _save_timer.cancel();
    if (std::exchange(_stopping, true)) co_return;
    co_await _tasks.close();
    if (_commits) co_await _commits->stop();
    co_await end_externals();
}

// The copy first: without it a store goes on.
task<> store::wipe() {
    const format::geometry& g = _super.layout;
    const uint32_t copy = _super.extension ? _super.extension->copy_page : 0;
    if (copy != 0) co_await _disk.zero(g.offset_of_md_page(copy), g.md_page_size);
    co_await _disk.zero(0, g.md_page_size);
    co_await _disk.flush();
}

// --- what all use

result<blob_state*> store::find_blob(blob_id id) {
    auto found = _blobs.find(id);
    if (found == _blobs.end() || found->second->hidden) {
        return fail(errc::not_found, fmt::format("there is no blob 0x{:x}", id));
    }
    return found->second.get();
}

const blob_state* store::find(blob_id id) const noexcept {
    auto found = _blobs.find(id);
    return found == _blobs.end() ? nullptr : found->second.get();
}

std::vector<blob_id> store::blobs() const {
    std::vector<blob_id> all;
    for (const auto& [id, b] : _blobs) {
        if (!b->hidden) all.push_back(id);
    }
    return all;
}

result<blob_ref> store::open(blob_id id) {
    result<blob_state*> b = find_blob(id);
    if (!b) return fail(std::move(b).error());
    if ((*b)->set_aside()) return fail(errc::io, fmt::format("blob 0x{:x} is set aside: {}", id, (*b)->damage));
    if ((*b)->going) return fail(errc::busy, fmt::format("blob 0x{:x} is being removed", id));
    return blob_ref(**b);
}

result<store::operation> store::begin_on(blob_state& b) {
    if (b.set_aside()) return fail(errc::io, fmt::format("blob 0x{:x} is set aside: {}", b.id, b.damage));
    if (b.busy) return fail(errc::busy, fmt::format("another operation works on blob 0x{:x}", b.id));
    return operation(b);
}

void store::background(task<> t) {
    _tasks.spawn(std::move(t), [](const error&) {});
}

namespace {
task<> after_everyone(thread::runtime& threads) {
    co_await yield();  // whoever retired it may still be at it
    co_await threads.for_each_thread([](thread::thread&) {});
}
task<> destroy(thread::runtime& threads, std::unique_ptr<layout> old) {
    co_await after_everyone(threads);
    old.reset();
}
// Who was waiting for one of its mutexes finds that it is gone, and lets go of it. Nobody new comes.
task<> destroy(thread::runtime& threads, std::unique_ptr<blob_state> old) {
    co_await after_everyone(threads);
    for (mutex* m : {&old->chores, &old->md}) (co_await m->lock()).release();
    old.reset();
}
}  // namespace

void store::retire(std::unique_ptr<layout> old) {
    if (old) background(destroy(_devices.threads(), std::move(old)));
}
void store::retire(std::unique_ptr<blob_state> old) { background(destroy(_devices.threads(), std::move(old))); }

task<bdev::registry::frozen> store::freeze(blob_state& b) {
    if (b.device == nullptr) co_return bdev::registry::frozen();
    co_return co_await _devices.freeze(*b.device);
}

task<> store::settle() {
    while (_tasks.inside() > 0 || _commits->busy()) co_await yield();
}

}  // namespace varve::blob
