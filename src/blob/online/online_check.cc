#include "blob/online/online_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "thread/awaits.h"

namespace varve::blob {

namespace {
constexpr uint64_t entries_at_once = 16384;  // between two turns of the thread
constexpr std::size_t pages_at_once = 16;
constexpr unsigned tries_max = 100;
constexpr time_ns between_tries = 20 * milliseconds;
using check::problem;
using check::severity;
}  // namespace

online_check::online_check(store& of, jobs::job& progress) : _store(of), _progress(progress) {}

void online_check::found(problem what, severity how_bad, const blob_state* b, std::string text) {
    check::finding f{.what = what, .how_bad = how_bad, .text = std::move(text)};
    if (b != nullptr) f.blobs.push_back(b->id);
    _found.push_back(std::move(f));
}

task<> online_check::read_page(uint32_t page, std::span<std::byte> memory, page_read& to) {
    auto outcome = co_await as_result(_store._disk.read(_store.geometry().offset_of_md_page(page), memory));
    if (outcome) {
        std::memcpy(to.bytes.data(), memory.data(), to.bytes.size());
    } else {
        to.failed = std::move(outcome).error();
    }
}

task<> online_check::read_pages(std::vector<uint32_t> pages, std::vector<page_read>& to) {
    const std::size_t stride = _store.geometry().md_page_size, before = to.size();
    to.resize(before + pages.size());
    crew all;
    for (std::size_t i = 0; i < pages.size(); ++i) {
        all.start(read_page(pages[i], _memory.bytes().subspan(i * stride, stride), to[before + i]));
    }
    co_await all.done();
}

task<std::vector<check::finding>> online_check::run() {
    _memory = co_await _store._disk.memory(pages_at_once * _store.geometry().md_page_size);
    _owners = sparse<uint32_t>(_store._space.cluster_count());
    co_await look_at_super();
    std::vector<blob_id> left;
    for (const auto& [id, b] : _store._blobs) left.push_back(id);
    _progress.expect(left.size());
    for (unsigned tries = 0; !left.empty() && tries < tries_max; ++tries) {
        if (tries != 0) co_await sleep(between_tries);
        std::vector<blob_id> busy;
        for (blob_id id : left) {
            const std::size_t before = _found.size();
            if (co_await look_at(id) == visit::busy) {
                _found.resize(before);  // it is told of when all of it was seen
                busy.push_back(id);
            } else {
                _progress.did();
            }
        }
        left = std::move(busy);
    }
    for (blob_id id : left) {
        _all_seen = false;
        check::finding f{.what = problem::set_aside, .how_bad = severity::note, .blobs = {id}};
        f.text = fmt::format("blob 0x{:x} was not looked at: an operation works on it", id);
        _found.push_back(std::move(f));
    }
    if (_all_seen) co_await find_unclaimed();
    co_return std::move(_found);
}

task<> online_check::look_at_super() {
    auto one = co_await _store._super_lock.lock();
    env::buffer memory = co_await _store._disk.memory(round_up(format::page_size, _store._disk.block_size()));
    auto outcome = co_await as_result(_store._disk.read(0, memory.bytes()));
    if (!outcome) {
        co_return found(problem::unreadable, severity::error, nullptr, "super block: " + outcome.error().message());
    }
    const format::device_shape shape{{_store._disk.size()}, _store._disk.block_size()};
    auto there = format::decode_super(memory.bytes().first<format::page_size>(), shape);
    if (!there) {
        co_return found(problem::bad_super, severity::error, nullptr, there.error().message());
    }
    if (there->super_blob != _store._super.super_blob || there->clean != _store._super.clean) {
        found(problem::bad_super, severity::error, nullptr, "the super block is not what was written last");
    }
}

task<online_check::held> online_check::hold(blob_id id) {
    auto at = _store._blobs.find(id);
    if (at == _store._blobs.end()) co_return held{.why = visit::gone};
    auto md = co_await at->second->md.lock();
    // Whoever removes it, or changes it as a whole, is busy with it before and takes the mutex: it stays from here on.
    at = _store._blobs.find(id);
    if (at == _store._blobs.end() || at->second->hidden) co_return held{.why = visit::gone};
    const blob_state& b = *at->second;
    if (!b.set_aside() && b.busy) co_return held{.why = visit::busy};
    if (!b.set_aside()) co_await _store._commits->placed();
    co_return held{.blob = &b, .md = std::move(md)};
}

// What fsck calls no error is none here either.
bool online_check::is_known(const blob_state& b) const {
    std::size_t steps = 0;
    for (const blob_state* up = &b; up != nullptr && steps <= _store._blobs.size(); up = up->parent, ++steps) {
        if (check::look_at_aside(up->record)) return true;
    }
    return false;
}

task<online_check::visit> online_check::look_at(blob_id id) {
    co_await _progress.turn();
    {
        held now = co_await hold(id);
        if (now.blob == nullptr) co_return now.why;
        const blob_state& b = *now.blob;
        if (b.set_aside()) {
            _all_seen = false;
            if (auto known = check::look_at_aside(b.record)) {
                _found.push_back(std::move(*known));
            } else {
                found(problem::set_aside, is_known(b) ? severity::note : severity::error, &b,
                      fmt::format("blob 0x{:x} is set aside: {}", id, b.damage));
            }
            co_return visit::done;
        }
    }
    visit outcome = co_await look_at_chain(id);
    if (outcome == visit::done) outcome = co_await look_at_extents(id);
    if (outcome == visit::done) outcome = co_await claim_clusters(id);
    co_return outcome;
}

task<online_check::visit> online_check::look_at_chain(blob_id id) {
    std::vector<page_read> pages;
    std::optional<format::blob_record> since;  // what was begun with
    for (;;) {
        co_await _progress.turn(pages_at_once * format::page_size);
        held now = co_await hold(id);
        if (now.blob == nullptr) co_return now.why;
        const format::blob_record& record = now.blob->record;
        if (since && *since != record) co_return visit::busy;  // from its beginning
        const std::size_t left = record.pages.size() - pages.size();
        const auto from = record.pages.begin() + static_cast<std::ptrdiff_t>(pages.size());
        co_await read_pages({from, from + static_cast<std::ptrdiff_t>(std::min(left, pages_at_once))}, pages);
        if (pages.size() == record.pages.size()) {
            compare_chain(*now.blob, pages);
            co_return visit::done;
        }
        since = record;
    }
}

void online_check::compare_chain(const blob_state& b, const std::vector<page_read>& pages) {
    std::vector<format::numbered_page> chain;
    for (std::size_t i = 0; i < pages.size(); ++i) {
        if (pages[i].failed) {
            return found(problem::unreadable, severity::error, &b,
                         fmt::format("blob 0x{:x}, page {}: {}", b.id, b.record.pages[i], pages[i].failed->message()));
        }
        chain.push_back({b.record.pages[i], pages[i].bytes});
    }
    auto there = format::decode_chain(chain, _store.geometry());
    if (!there) {
        found(problem::bad_page, severity::error, &b, fmt::format("blob 0x{:x}: {}", b.id, there.error().message()));
    } else if (*there != b.record) {
        found(problem::bad_page, severity::error, &b,
              fmt::format("blob 0x{:x}: its pages are whole, but not what was written last", b.id));
    }
}

task<online_check::visit> online_check::look_at_extents(blob_id id) {
    for (uint64_t next = 0;;) {
        co_await _progress.turn(pages_at_once * format::page_size);
        held now = co_await hold(id);
        if (now.blob == nullptr) co_return now.why;
        const blob_state& b = *now.blob;
        std::vector<uint64_t> indices;
        std::vector<uint32_t> pages;
        std::vector<std::vector<uint32_t>> wanted;
        for (next = b.extent_pages.next(next); next < b.extent_pages.size() && pages.size() < pages_at_once;
             next = b.extent_pages.next(next + 1)) {
            indices.push_back(next);
            pages.push_back(b.extent_pages[next]);
            wanted.push_back(store::extents_of(*b.current, next, b.current->size));
        }
        if (pages.empty()) co_return visit::done;
        std::vector<page_read> there;
        co_await read_pages(std::move(pages), there);
        for (std::size_t i = 0; i < there.size(); ++i) compare_extent_page(b, indices[i], wanted[i], there[i]);
    }
}

void online_check::compare_extent_page(const blob_state& b, std::size_t index, const std::vector<uint32_t>& wanted,
                                       const page_read& read) {
    if (b.unsaved_extents.contains(index)) return;  // the next flush writes it
    const uint32_t page = b.extent_pages[index];
    auto said = [&](problem what, std::string_view text) {
        found(what, severity::error, &b, fmt::format("blob 0x{:x}, extent page {}: {}", b.id, page, text));
    };
    if (read.failed) return said(problem::unreadable, read.failed->message());
    auto there = format::decode_extent_page(read.bytes, page, _store.geometry());
    result<> place;
    if (there) place = format::check_place(*there, page, b.record, index);
    if (!there || !place) {
        return said(problem::bad_page, there ? place.error().message() : there.error().message());
    }
    there->clusters.resize(wanted.size());
    if (there->clusters != wanted) said(problem::bad_page, "whole, but not what was written last");
}

template <class What>
task<> online_check::each_cluster(blob_id id, What what) {
    uint64_t seen = 0;
    const blob_state* b = _store.find(id);
    for (uint64_t i = 0; b != nullptr && (i = b->current->next(i)) < b->current->size; ++i) {
        what(i, b->current->at(i));
        if (++seen % entries_at_once != 0) continue;
        co_await yield();
        co_await _progress.turn();
        b = _store.find(id);
    }
}

// A cluster may have changed hands since its first owner was looked at: two have it only if both have it now.
task<online_check::visit> online_check::claim_clusters(blob_id id) {
    _ids.push_back(id);
    const auto me = static_cast<uint32_t>(_ids.size());
    std::vector<collision> collisions;
    co_await each_cluster(id, [&](uint64_t index, uint32_t c) {
        if (_owners.size() < _store._space.cluster_count()) _owners.grow(_store._space.cluster_count());
        if (c >= _owners.size() || !_store._space.cluster_used(c)) {
            return found(
                problem::unmarked, severity::error, _store.find(id),
                fmt::format("cluster {} of blob 0x{:x} is taken for free: the next to need one would get it", c, id));
        }
        uint32_t& owner = _owners[c];
        if (owner != 0 && _ids[owner - 1] != id) collisions.push_back({index, c, _ids[owner - 1]});
        if (owner == 0) owner = me;
    });
    co_return co_await look_at_collisions(id, collisions);
}

task<online_check::visit> online_check::look_at_collisions(blob_id id, const std::vector<collision>& all) {
    for (const collision& each : all) {
        std::optional<uint64_t> its;
        co_await each_cluster(each.first, [&](uint64_t index, uint32_t c) {
            if (c == each.cluster) its = index;
        });
        const blob_state *first = _store.find(each.first), *second = _store.find(id);
        const bool both = its && first != nullptr && first->current->at(*its) == each.cluster && second != nullptr &&
                          second->current->at(each.index) == each.cluster;
        if (!both) {
            _owners[each.cluster] = static_cast<uint32_t>(_ids.size());
            continue;
        }
        if (first->busy || second->busy) co_return visit::busy;  // it goes from one to the other
        found(problem::shared_clusters, severity::error, second,
              fmt::format("cluster {} belongs to blobs 0x{:x} and 0x{:x}", each.cluster, each.first, id));
    }
    co_return visit::done;
}

// Those that are used and were nobody's when their owner was looked at may have found one since.
task<> online_check::find_unclaimed() {
    const space& room = _store._space;
    if (room.in_hand()) co_return;
    std::vector<bool> suspect(_owners.size());
    uint64_t count = 0;
    for (uint32_t c = room.cluster_count() - room.data_clusters(); c < _owners.size(); ++c) {
        if (c % entries_at_once == 0) co_await yield();
        if (_owners.get(c) == 0 && room.cluster_used(c)) {
            suspect[c] = true;
            ++count;
        }
    }
    if (count == 0) co_return;
    std::vector<blob_id> all = _store.blobs();
    for (blob_id id : all) {
        co_await yield();
        co_await each_cluster(id, [&](uint64_t, uint32_t c) {
            if (c < suspect.size()) suspect[c] = false;
        });
    }
    std::vector<uint32_t> nobodys;
    for (uint32_t c = 0; c < suspect.size(); ++c) {
        if (c % entries_at_once == 0) co_await yield();
        if (suspect[c] && room.cluster_used(c)) nobodys.push_back(c);
    }
    if (nobodys.empty()) co_return;
    check::finding f{.what = problem::leaked, .how_bad = severity::note, .clusters = check::as_runs(nobodys)};
    f.text = fmt::format("clusters {} are in use and nobody's, or on their way to somebody", check::in_words(nobodys));
    _found.push_back(std::move(f));
}

}  // namespace varve::blob
