// Making a clone independent of its parent, or giving it another one.
#include <fmt/format.h>

#include <algorithm>

#include "blob/store.h"
#include "thread/awaits.h"

namespace varve::blob {

namespace {
constexpr unsigned copies_at_once = 4;
constexpr uint64_t looked_at_once = 16384;  // clusters, before others have their turn

// A cluster that has to be the blob's own without its parent, or without any.
bool must_be_own(const blob_state& b, uint64_t i, bool all) noexcept {
    return all || b.parent->current->at(i) != no_cluster || hides(*b.parent->current, i);
}

// From `i` on to the next such cluster. False: not found yet, others may have their turn; or there is none, and `i` is
// the blob's size.
bool find_shown(const blob_state& b, uint64_t& i, bool all) noexcept {
    const uint64_t size = b.current->size;
    for (uint64_t n = 0; n < looked_at_once && i < size; ++n, ++i) {
        if (!all && i < b.parent->current->size) i = std::min(size, b.parent->current->next(i));
        if (i < size && b.current->at(i) == no_cluster && must_be_own(b, i, all)) return true;
    }
    i = std::min(i, size);
    return false;
}
}  // namespace

task<> store::inflate(blob_ref& b, jobs::job& progress) { return detach(b.state(), true, progress); }
task<> store::decouple(blob_ref& b, jobs::job& progress) { return detach(b.state(), false, progress); }

// Clusters are given one by one, as first writes would, and each is durable in itself; then one commit takes the parent
// away.
task<> store::detach(blob_state& b, bool all, jobs::job& progress) {
    operation mine = co_await begin_on(b);
    if (!b.record.may_be_changed()) co_await fail(errc::not_permitted, "it has features unknown here");
    if (b.current->external != nullptr) all = true;  // of what shows through nobody knows what is there
    if (!all && b.parent == nullptr) {
        co_await fail(errc::invalid, fmt::format("blob 0x{:x} has no parent", b.id));
    }
    if (!b.thin()) co_return;
    // What the parent has must not change while it is copied: nobody merges into it, and it is not removed.
    std::optional<operation> its;
    if (!all) its.emplace(co_await begin_on(*b.parent));
    uint64_t wanted = 0;
    for (uint64_t i = 0; i < b.current->size;) {
        if (find_shown(b, i, all)) {
            ++i;
            if (++wanted % looked_at_once != 0) continue;
        }
        if (i < b.current->size) co_await yield();
        co_await progress.turn();
    }
    if (wanted > _space.free_clusters()) {
        co_await fail(errc::no_space,
                      fmt::format("{} clusters are wanted, {} are free", wanted, _space.free_clusters()));
    }
    progress.expect(wanted);
    semaphore slots(copies_at_once);
    crew copies;
    result<> outcome;
    for (uint64_t i = 0; i < b.current->size && outcome && !copies.failed(); ++i) {
        while (!find_shown(b, i, all) && i < b.current->size && !progress.cancelled()) co_await yield();
        if (i >= b.current->size) break;
        auto slot = co_await slots.acquire();
        outcome = co_await as_result(progress.turn(_super.layout.cluster_size));  // the last thing: it may be paused
        auto one = [](store& s, blob_state& of, uint64_t index, jobs::job& told, semaphore::units) -> task<> {
            co_await s.ensure_cluster(of, index);
            told.did();
        };
        if (outcome) copies.start(one(*this, b, i, progress, std::move(slot)));
    }
    co_await copies.done();
    co_await std::move(outcome);
    co_await drop_parent(b, all);
}

// Nothing of the direct parent shows through any more. That one is held when its own parent gets the blob for a clone:
// so that has a clone somebody works on, and does not go meanwhile, whatever else is done to it.
task<> store::drop_parent(blob_state& b, bool all) {
    co_await settle_parent(b);
    auto held = co_await b.md.lock();
    co_await begin_change();
    co_await save_locked(b);
    blob_state* above = all || b.parent == nullptr ? nullptr : b.parent->parent;
    revision r = revise(b);  // it fails when a flush does from here on
    for (uint64_t i = 0; i < b.current->size;) {
        if (find_shown(b, i, all)) co_await fail(errc::io, "a flush has failed, and copies are lost");
        if (i < b.current->size) co_await yield();
    }
    // Nor may one have been lost, and been made again since it was saved.
    for (const unsaved_mapping& m : b.unsaved_mappings) {
        if (must_be_own(b, m.index, all) && b.current->at(m.index) == m.cluster) {
            co_await fail(errc::io, "a flush has failed, and copies are lost");
        }
    }
    r.record.xattrs.erase(_tied);
    r.record.internal_xattrs.erase(format::xattr_parent);
    r.record.internal_xattrs.erase(format::xattr_external_parent);
    r.record.flags.invalid &= ~format::invalid_flag::external_snapshot;
    if (all) r.record.flags.invalid &= ~format::invalid_flag::thin;
    if (!all) {
        const format::blob_record& its = b.parent->record;
        for (auto name : {format::xattr_parent, format::xattr_external_parent}) {
            if (const std::string* v = its.internal_xattrs.find(name)) r.record.internal_xattrs.set(name, *v);
        }
        r.record.flags.invalid |= its.flags.invalid & format::invalid_flag::external_snapshot;
    }
    auto next = co_await layout::make(b.current->size);
    next->below = all ? nullptr : b.parent->current->below;
    next->external = all ? nullptr : b.parent->current->external;
    co_await commit(b, r);
    blob_state* former = b.parent;
    change_parent(b, std::move(next), above);
    held.release();
    co_await part_from(former, b);
}

task<> store::detach_parent(blob_ref& ref) {
    blob_state& b = ref.state();
    operation mine = co_await begin_on(b);
    if (!b.record.may_be_changed()) co_await fail(errc::not_permitted, "it has features unknown here");
    if (b.parent == nullptr && !b.is_external_clone()) {
        co_await fail(errc::invalid, fmt::format("blob 0x{:x} has no parent", b.id));
    }
    co_await reparent(b, nullptr, nullptr);
}

// Nothing is copied: the blob's clusters stay what they are, and elsewhere the new parent shows.
task<> store::reparent(blob_state& b, blob_state* above, external_parent* external) {
    co_await settle_parent(b);
    auto still = co_await freeze(b);
    auto held = co_await b.md.lock();
    co_await begin_change();
    co_await save_locked(b);
    revision r = revise(b);
    r.record.xattrs.erase(_tied);
    format::xattr_map& internal = r.record.internal_xattrs;
    internal.erase(format::xattr_parent);
    internal.erase(format::xattr_external_parent);
    r.record.flags.invalid &= ~format::invalid_flag::external_snapshot;
    if (above != nullptr) internal.set(format::xattr_parent, text_of(above->id));
    if (external != nullptr) {
        internal.set(format::xattr_external_parent, external->id());
        r.record.flags.invalid |= format::invalid_flag::external_snapshot;
    }
    auto next = co_await layout::make(b.current->size);
    next->below = above != nullptr ? &above->slot : nullptr;
    next->external = external;
    co_await commit(b, r);
    blob_state* former = b.parent;
    change_parent(b, std::move(next), above);
    held.release();
    still = {};
    co_await part_from(former, b);
}

void store::change_parent(blob_state& b, std::unique_ptr<layout> next, blob_state* above) {
    const layout& l = *b.current;
    for (uint64_t i = l.next(0); i < l.size; i = l.next(i + 1)) next->put(i, l.at(i));
    retire(b.replace_layout(std::move(next)));
    b.parent = above;
    if (above != nullptr) above->clones.push_back(&b);
}

task<> store::part_from(blob_state* former, blob_state& b) {
    co_await drain_descendants(b.id);
    if (former != nullptr) std::erase(former->clones, &b);
    let_go_of_externals();
}

task<> store::set_parent(blob_ref& ref, blob_ref& parent) {
    blob_state& b = ref.state();
    blob_state& above = parent.state();
    if (&b == &above) co_await fail(errc::invalid, "a blob cannot be its own parent");
    operation mine = co_await begin_on(b), its = co_await begin_on(above);
    if (!b.record.may_be_changed()) co_await fail(errc::not_permitted, "it has features unknown here");
    if (!above.read_only()) co_await fail(errc::invalid, fmt::format("blob 0x{:x} is no snapshot", above.id));
    if (!b.thin()) co_await fail(errc::invalid, fmt::format("blob 0x{:x} is not thin", b.id));
    if (b.parent == &above) co_await fail(errc::exists, fmt::format("0x{:x} is its parent already", above.id));
    if (b.record.cluster_count != above.record.cluster_count) {
        co_await fail(errc::invalid, "a blob and its parent have the same size");
    }
    for (const blob_state* up = &above; up != nullptr; up = up->parent) {
        if (up == &b) co_await fail(errc::invalid, "a blob cannot be its own ancestor");
    }
    co_await reparent(b, &above, nullptr);
}

// --- the device has become larger

task<> store::grow() {
    const format::device_shape shape{{_disk.size()}, _disk.block_size()};
    co_await begin_change();
    auto one = co_await _super_lock.lock();
    format::super_block next = _super;
    next.layout = co_await format::grown(_super.layout, shape);
    co_await write_super(std::move(next));
    _space.grow(_super.layout.cluster_count);
    start_trimming();
}

}  // namespace varve::blob
