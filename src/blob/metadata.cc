// Writing what is known of a blob: revisions and how they are committed.
#include <fmt/format.h>

#include <algorithm>

#include "blob/store.h"

namespace varve::blob {

namespace {
constexpr uint64_t per_page = format::clusters_per_extent_page;
constexpr uint64_t splits_per_page = 240;  // of an entry of a chain into three, at least
}  // namespace

store::revision store::revise(const blob_state& b) {
    revision r(*this);
    r.record = b.record;
    r.extent_pages = b.extent_pages;
    return r;
}

result<uint32_t> store::take_page(revision& r, uint32_t from) {
    const bool theirs = !r.saves && _space.free_pages() <= _pages_promised;
    uint32_t page = theirs ? UINT32_MAX : _space.take_page(from);
    if (page == UINT32_MAX) return fail(errc::no_space, "no metadata page is free");
    r.mine.add_page(page);
    return page;
}

// --- pages for what is mapped in memory only

uint32_t store::pages_to_save(const blob_state& b, uint64_t added) noexcept {
    if (added == 0) return 0;
    const uint64_t extents = b.record.uses_extent_table ? added : 0;
    // The chain is written anew before the old one is free; with new descriptors it may be filled less well.
    return static_cast<uint32_t>(extents + b.record.pages.size() + added / splits_per_page + 1);
}

void store::set_promise(blob_state& b, uint64_t added) noexcept {
    b.promised_for = added;
    const uint32_t wanted = pages_to_save(b, added);
    _pages_promised += wanted - b.pages_promised;
    b.pages_promised = wanted;
}

bool store::promise(blob_state& b, uint64_t extent) noexcept {
    const bool named = b.record.uses_extent_table &&
                       (b.extent_pages[extent] != extent_table::none || b.unsaved_extents.contains(extent));
    if (named) return true;
    const uint32_t more = pages_to_save(b, b.promised_for + 1) - b.pages_promised;
    if (_space.free_pages() < uint64_t{_pages_promised} + more) return false;
    set_promise(b, b.promised_for + 1);
    return true;
}

void store::renew_promise(blob_state& b) noexcept {
    if (!b.record.uses_extent_table) return set_promise(b, b.unsaved_mappings.size());
    set_promise(b, static_cast<uint64_t>(std::ranges::count_if(b.unsaved_extents, [&b](uint64_t extent) {
                    return extent < b.extent_pages.size() && b.extent_pages[extent] == extent_table::none;
                })));
}

std::vector<uint32_t> store::extents_of(const layout& l, uint64_t index, uint64_t clusters) {
    const uint64_t first = index * per_page, count = first < clusters ? std::min(per_page, clusters - first) : 0;
    const std::span<const uint32_t> there = l.run(first, count);
    std::vector<uint32_t> out(there.begin(), there.end());
    out.resize(count, no_cluster);
    return out;
}

format::page_bytes store::extent_page(const blob_state& b, uint64_t index, std::vector<uint32_t> clusters) {
    return format::encode_extent_page(
        {.id = b.id, .first_cluster = static_cast<uint32_t>(index * per_page), .clusters = std::move(clusters)});
}

result<> store::add_extent_page(revision& r, uint64_t index, std::vector<uint32_t> clusters) {
    auto page = take_page(r, 1);  // in an extent table 0 is no page
    if (!page) return fail(std::move(page).error());
    r.extent_pages.set(index, *page);
    r.fresh.push_back({*page, format::encode_extent_page({.id = r.record.id,
                                                          .first_cluster = static_cast<uint32_t>(index * per_page),
                                                          .clusters = std::move(clusters)})});
    return {};
}

result<> store::add_extent_pages(revision& r, const layout& l, const std::vector<uint64_t>& indices) {
    for (uint64_t index : indices) VARVE_TRY(add_extent_page(r, index, extents_of(l, index, r.record.cluster_count)));
    return {};
}

void store::lay_out_runs(revision& r, const layout& l, const std::vector<wish*>& added) {
    std::map<uint64_t, uint32_t> also;
    for (const wish* w : added) also.emplace(w->index, w->cluster);
    r.record.runs.clear();
    for (uint64_t i = 0; i < r.record.cluster_count; ++i) {
        auto found = also.find(i);
        format::append(r.record.runs, found != also.end() ? found->second : l.at(i));
    }
}

// New pages of the chain first, and everything else the root will name; then the root, which is the commit point.
task<> store::commit(blob_state& b, revision& r) {
    co_await prepare(r);
    // What was promised counts on the chain as it was.
    const std::size_t was = b.record.pages.size(), is = r.record.pages.size();
    if (!r.saves && b.promised_for != 0 && is > was && _space.free_pages() + was - 1 < _pages_promised + (is - was)) {
        co_await fail(errc::no_space, "no metadata page is free");
    }
    co_await _commits->commit(std::move(r.also), r.since);  // COMMIT POINT
    adopt(b, r);
}

task<> store::prepare(revision& r) {
    format::blob_record& next = r.record;
    next.extent_pages.clear();
    if (next.uses_extent_table) next.extent_pages = r.extent_pages.runs();
    next.stamp = next_stamp();
    next.flags.invalid &= ~format::invalid_flag::internal_xattrs;
    if (next.internal_xattrs.size() != 0) next.flags.invalid |= format::invalid_flag::internal_xattrs;
    std::size_t pages = co_await format::chain_length(next);
    next.pages.assign(1, format::root_page_of(next.id));
    while (next.pages.size() < pages) next.pages.push_back(co_await take_page(r));
    std::vector<format::page_bytes> chain = co_await format::encode_chain(next);
    for (std::size_t i = 1; i < chain.size(); ++i) r.fresh.push_back({next.pages[i], chain[i]});
    co_await _commits->write_fresh(std::move(r.fresh));
    r.also.push_back({next.pages[0], chain[0]});
}

void store::adopt(blob_state& b, revision& r) noexcept {
    for (std::size_t i = 1; i < b.record.pages.size(); ++i) _space.free_page(b.record.pages[i]);
    const extent_table& its = b.extent_pages;
    for (uint64_t i = its.next(0); i < its.size() && !r.hands_over; i = its.next(i + 1)) {
        if (r.extent_pages[i] != its[i]) _space.free_page(its[i]);
    }
    b.record = std::move(r.record);
    b.extent_pages = std::move(r.extent_pages);
    r.mine.keep();
    set_promise(b, b.promised_for);  // the chain may have become longer
}

// --- attributes

task<> store::set_xattr(blob_ref& ref, std::string name, std::string value) {
    blob_state& b = ref.state();
    auto held = co_await b.md.lock();
    if (b.record.access() != format::blob_access::full) co_await fail(errc::not_permitted, "metadata is read-only");
    co_await begin_change();
    revision r = revise(b);
    r.record.xattrs.set(name, value);
    co_await commit(b, r);
}

task<> store::remove_xattr(blob_ref& ref, std::string name) {
    blob_state& b = ref.state();
    auto held = co_await b.md.lock();
    if (b.record.access() != format::blob_access::full) co_await fail(errc::not_permitted, "metadata is read-only");
    revision r = revise(b);
    if (!r.record.xattrs.erase(name)) co_await fail(errc::not_found, fmt::format("no xattr {}", name));
    co_await begin_change();
    co_await commit(b, r);
}

task<> store::change_xattrs(blob_ref& ref, std::vector<format::xattr> set, std::vector<std::string> erase) {
    blob_state& b = ref.state();
    auto held = co_await b.md.lock();
    if (!b.record.may_be_changed()) co_await fail(errc::not_permitted, "it has features unknown here");
    co_await begin_change();
    revision r = revise(b);
    for (const std::string& name : erase) r.record.xattrs.erase(name);
    for (const format::xattr& x : set) r.record.xattrs.set(x.name, x.value);
    co_await commit(b, r);
}

task<> store::set_read_only(blob_ref& ref) {
    blob_state& b = ref.state();
    auto held = co_await b.md.lock();
    if (!b.record.may_be_changed()) co_await fail(errc::not_permitted, "it has features unknown here");
    co_await begin_change();
    revision r = revise(b);
    r.record.flags.data_read_only |= format::data_ro_flag::read_only;
    co_await commit(b, r);
}

}  // namespace varve::blob
