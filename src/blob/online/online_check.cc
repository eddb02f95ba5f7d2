#include "blob/online/online_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "thread/awaits.h"

namespace varve::blob {

namespace {
constexpr uint64_t entries_at_once = 65536;  // between two turns of the thread
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

task<result<>> online_check::read_page(uint32_t page, format::page_bytes& to) {
    const auto& g = _store.geometry();
    auto outcome =
        co_await as_result(_store._disk.read(g.offset_of_md_page(page), _memory.bytes().first(g.md_page_size)));
    if (outcome) std::memcpy(to.data(), _memory.data(), to.size());
    co_return outcome;
}

task<std::vector<check::finding>> online_check::run() {
    _memory = co_await _store._disk.memory(_store.geometry().md_page_size);
    _owners.assign(_store._space.cluster_count(), 0);
    co_await look_at_super();
    std::vector<blob_id> left;
    for (const auto& [id, b] : _store._blobs) left.push_back(id);
    _progress.expect(left.size());
    for (unsigned tries = 0; !left.empty() && tries < tries_max; ++tries) {
        if (tries != 0) co_await sleep(between_tries);
        std::vector<blob_id> busy;
        for (blob_id id : left) {
            co_await _progress.turn(format::page_size);
            if (co_await look_at(id) == visit::busy) {
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

task<online_check::visit> online_check::look_at(blob_id id) {
    auto at = _store._blobs.find(id);
    if (at == _store._blobs.end()) co_return visit::gone;
    auto held = co_await at->second->md.lock();
    // Whoever removes it, or changes it as a whole, is busy with it before and takes the mutex: it stays from here on.
    at = _store._blobs.find(id);
    if (at == _store._blobs.end()) co_return visit::gone;
    const blob_state& b = *at->second;
    if (b.hidden) co_return visit::gone;
    if (b.set_aside()) {
        _all_seen = false;
        found(problem::set_aside, severity::error, &b, fmt::format("blob 0x{:x} is set aside: {}", id, b.damage));
        co_return visit::done;
    }
    if (b.busy) co_return visit::busy;
    co_await _store._commits->placed();
    co_await look_at_chain(b);
    co_await look_at_extents(b);
    co_await claim_clusters(b);
    co_return visit::done;
}

task<> online_check::look_at_chain(const blob_state& b) {
    std::vector<format::page_bytes> pages(b.record.pages.size());
    std::vector<format::numbered_page> chain;
    for (std::size_t i = 0; i < pages.size(); ++i) {
        auto outcome = co_await read_page(b.record.pages[i], pages[i]);
        if (!outcome) {
            co_return found(
                problem::unreadable, severity::error, &b,
                fmt::format("blob 0x{:x}, page {}: {}", b.id, b.record.pages[i], outcome.error().message()));
        }
        chain.push_back({b.record.pages[i], pages[i]});
    }
    auto there = format::decode_chain(chain, _store.geometry());
    if (!there) {
        found(problem::bad_page, severity::error, &b, fmt::format("blob 0x{:x}: {}", b.id, there.error().message()));
    } else if (*there != b.record) {
        found(problem::bad_page, severity::error, &b,
              fmt::format("blob 0x{:x}: its pages are whole, but not what was written last", b.id));
    }
}

task<> online_check::look_at_extents(const blob_state& b) {
    for (uint64_t i = b.extent_pages.next(0); i < b.extent_pages.size(); i = b.extent_pages.next(i + 1)) {
        const uint32_t page = b.extent_pages[i];
        const auto wanted = store::extents_of(*b.current, i, b.current->size);
        format::page_bytes bytes;
        auto outcome = co_await read_page(page, bytes);
        if (b.unsaved_extents.contains(i)) continue;  // the next flush writes it
        auto said = [&](problem what, std::string_view text) {
            found(what, severity::error, &b, fmt::format("blob 0x{:x}, extent page {}: {}", b.id, page, text));
        };
        if (!outcome) {
            said(problem::unreadable, outcome.error().message());
            continue;
        }
        auto there = format::decode_extent_page(bytes, page, _store.geometry());
        result<> place;
        if (there) place = format::check_place(*there, page, b.record, i);
        if (!there || !place) {
            said(problem::bad_page, there ? place.error().message() : there.error().message());
            continue;
        }
        there->clusters.resize(wanted.size());
        if (there->clusters != wanted) said(problem::bad_page, "whole, but not what was written last");
    }
}

bool online_check::owns(blob_id id, uint32_t cluster) const noexcept {
    const blob_state* b = _store.find(id);
    if (b == nullptr) return false;
    for (uint64_t i = 0; i < b->current->size; ++i) {
        if (b->current->at(i) == cluster) return true;
    }
    return false;
}

// A cluster may have changed hands since its first owner was looked at: two have it only if both have it now.
task<> online_check::claim_clusters(const blob_state& b) {
    _ids.push_back(b.id);
    for (uint64_t i = 0; i < b.current->size; ++i) {
        if (i % entries_at_once == entries_at_once - 1) co_await yield();
        const uint32_t c = b.current->at(i);
        if (c == no_cluster) continue;
        if (_owners.size() < _store._space.cluster_count()) _owners.resize(_store._space.cluster_count());  // it grew
        if (c >= _owners.size() || !_store._space.cluster_used(c)) {
            found(
                problem::unmarked, severity::error, &b,
                fmt::format("cluster {} of blob 0x{:x} is taken for free: the next to need one would get it", c, b.id));
            continue;
        }
        if (_owners[c] != 0 && _ids[_owners[c] - 1] != b.id && owns(_ids[_owners[c] - 1], c)) {
            found(problem::shared_clusters, severity::error, &b,
                  fmt::format("cluster {} belongs to blobs 0x{:x} and 0x{:x}", c, _ids[_owners[c] - 1], b.id));
        }
        _owners[c] = static_cast<uint32_t>(_ids.size());
    }
}

// Those that are used and were nobody's when their owner was looked at may have found one since.
task<> online_check::find_unclaimed() {
    const space& room = _store._space;
    if (room.in_hand()) co_return;
    std::vector<bool> suspect(_owners.size());
    uint64_t count = 0;
    for (uint32_t c = room.cluster_count() - room.data_clusters(); c < _owners.size(); ++c) {
        if (c % entries_at_once == 0) co_await yield();
        if (_owners[c] == 0 && room.cluster_used(c)) {
            suspect[c] = true;
            ++count;
        }
    }
    if (count == 0) co_return;
    std::vector<blob_id> all = _store.blobs();
    for (blob_id id : all) {
        co_await yield();
        const blob_state* b = _store.find(id);
        for (uint64_t i = 0; b != nullptr && i < b->current->size; ++i) {
            if (const uint32_t c = b->current->at(i); c != no_cluster && c < suspect.size() && suspect[c]) {
                suspect[c] = false;
                --count;
            }
        }
    }
    std::vector<uint32_t> nobodys;
    for (uint32_t c = 0; c < suspect.size(); ++c) {
        if (suspect[c] && room.cluster_used(c)) nobodys.push_back(c);
    }
    if (nobodys.empty()) co_return;
    check::finding f{.what = problem::leaked, .how_bad = severity::note, .clusters = check::as_runs(nobodys)};
    f.text = fmt::format("clusters {} are in use and nobody's, or on their way to somebody", check::in_words(nobodys));
    _found.push_back(std::move(f));
}

}  // namespace varve::blob
