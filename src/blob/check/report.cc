#include "blob/check/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "util/escape.h"

namespace varve::blob::check {

namespace {

std::string id_text(format::blob_id id) { return fmt::format("{:#x}", id); }

json::array numbers(const std::vector<uint32_t>& from) {
    json::array out;
    for (uint32_t n : from) out.emplace_back(n);
    return out;
}
json::array run_list(const std::vector<format::cluster_run>& runs) {
    json::array out;
    for (const auto& run : runs) out.emplace_back(json::object{{"first", run.first}, {"count", run.count}});
    return out;
}

// Text as it is, anything else as hexadecimal digits after "0x".
std::string printable(std::string_view value) {
    std::string_view text = value.substr(0, value.find_last_not_of('\0') + 1);
    const bool plain =
        !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c <= '~'; });
    if (plain) return std::string(text);
    std::string out = "0x";
    for (char c : value) fmt::format_to(std::back_inserter(out), "{:02x}", static_cast<unsigned char>(c));
    return value.empty() ? std::string() : out;
}

std::string shortened(std::string text) {
    constexpr std::size_t shown = 80;
    const std::size_t all = text.size();
    if (all <= shown) return text;
    text.resize(shown);
    return text + fmt::format("... ({} characters)", all);
}

// As many as somebody reads; JSON has all.
template <class Things, class Text>
std::string listed(const Things& things, Text text_of) {
    constexpr std::size_t shown = 1000;
    std::string out;
    for (std::size_t i = 0; i < things.size() && i < shown; ++i) out += (i == 0 ? "" : ", ") + text_of(things[i]);
    return things.size() <= shown ? out : out + fmt::format(" and {} more", things.size() - shown);
}

json::object store_as_json(const evidence& e) {
    const auto& s = *e.store();
    const auto& g = e.layout();
    return json::object{
        {"version", s.version},
        {"clean", s.clean},
        {"type", s.type_text()},
        {"super_blob", s.super_blob == format::no_blob ? json::value() : json::value(id_text(s.super_blob))},
        {"size", g.size.value},
        {"cluster_size", g.cluster_size},
        {"io_unit_size", g.io_unit_size},
        {"md_page_size", g.md_page_size},
        {"clusters", g.cluster_count},
        {"first_data_cluster", g.first_data_cluster},
        {"md_start", g.md.first},
        {"md_pages", g.md.count},
        {"uuid", s.extension ? json::value(s.extension->store.to_string()) : json::value()},
        {"rebuilt_from", e.rebuilt_from().empty() ? json::value() : json::value(e.rebuilt_from())}};
}

json::object finding_as_json(const finding& f) {
    json::array blobs;
    for (auto id : f.blobs) blobs.emplace_back(id_text(id));
    json::object out{{"kind", name_of(f.what)},    {"severity", f.how_bad == severity::error ? "error" : "note"},
                     {"repairable", f.repairable}, {"blobs", std::move(blobs)},
                     {"pages", numbers(f.pages)},  {"clusters", run_list(f.clusters)}};
    if (f.not_listed > 0) out.add("not_listed", f.not_listed);
    out.add("text", f.text);
    return out;
}

// Of a table no more than the size of the blob asks for: eight bytes name 2^32 extent pages.
std::vector<format::cluster_run> clusters_of(const examined_blob& b) {
    if (!b.record.uses_extent_table) return b.record.runs;
    std::vector<format::cluster_run> out;
    const auto add_none = [&out](uint64_t count) {
        for (uint64_t now = 0; count > 0; count -= now) {
            now = std::min<uint64_t>(count, UINT32_MAX);
            append(out, 0, static_cast<uint32_t>(now));
        }
    };
    uint64_t at = 0;  // cluster of the blob
    for (const auto& use : b.extents) {
        if (use.index >= b.record.extent_page_count()) break;
        const uint64_t begin = use.index * format::clusters_per_extent_page;
        add_none(begin - at);
        const uint32_t mine = b.record.clusters_in_extent_page(use.index);
        for (uint32_t i = 0; i < mine; ++i) append(out, i < use.clusters.size() ? use.clusters[i] : 0);
        at = begin + mine;
    }
    add_none(b.record.cluster_count - at);
    return out;
}

std::string_view name_of(format::blob_access access) noexcept {
    switch (access) {
        case format::blob_access::full:
            return "full";
        case format::blob_access::data_only:
            return "data_only";
        case format::blob_access::read_only:
            return "read_only";
        case format::blob_access::none:
            return "none";
    }
    return "?";
}

json::object blob_as_json(const examined_blob& b) {
    const auto& r = b.record;
    json::object xattrs, internal;
    for (const auto& x : r.xattrs) xattrs.add(x.name, printable(x.value));
    for (const auto& x : r.internal_xattrs) internal.add(x.name, printable(x.value));
    json::array extents;
    for (const auto& use : b.extents) extents.emplace_back(json::object{{"index", use.index}, {"page", use.page}});
    return json::object{{"id", id_text(b.id())},
                        {"name", b.name()},
                        {"access", name_of(r.access())},
                        {"thin", r.thin()},
                        {"parent", b.parent ? json::value(id_text(*b.parent)) : json::value()},
                        {"clusters", r.cluster_count},
                        {"allocated", b.allocated},
                        {"flags", json::object{{"invalid", id_text(r.flags.invalid)},
                                               {"data_read_only", id_text(r.flags.data_read_only)},
                                               {"md_read_only", id_text(r.flags.md_read_only)}}},
                        {"stamp", r.stamp},
                        {"pages", numbers(r.pages)},
                        {"extent_table", r.uses_extent_table},
                        {"extent_pages", std::move(extents)},
                        {"map", run_list(clusters_of(b))},
                        {"xattrs", std::move(xattrs)},
                        {"internal_xattrs", std::move(internal)},
                        {"wrong", b.broken() ? json::value(b.wrong) : json::value()}};
}

std::string store_in_words(const evidence& e, const examination& found) {
    const auto& g = e.layout();
    return fmt::format("{} of {} clusters of {} bytes, {} in use, {} blobs, {} metadata pages, {} in use, {}\n",
                       e.store()->type_text().empty() ? "blobstore" : e.store()->type_text(), g.cluster_count,
                       g.cluster_size, found.used_clusters.count(), found.blobs.size(), g.md.count,
                       found.used_pages.count(), e.store()->clean ? "unloaded" : "not unloaded");
}

}  // namespace

json::value as_json(const evidence& e, const examination& found, const repair_plan& plan, const outcome& end) {
    json::array findings, left;
    for (const finding& f : found.findings) findings.emplace_back(finding_as_json(f));
    for (const finding& f : (end.after == nullptr ? found : *end.after).findings)
        if (f.how_bad == severity::error) left.emplace_back(finding_as_json(f));
    json::array changes;
    for (const change& c : plan.changes)
        if (!c.is_witness())
            changes.emplace_back(json::object{{"offset", c.offset}, {"length", c.after.size()}, {"why", c.why}});
    return json::object{{"loadable", found.loadable},
                        {"errors", found.errors()},
                        {"notes", found.findings.size() - found.errors()},
                        {"store", e.store() == nullptr ? json::value() : json::value(store_as_json(e))},
                        {"findings", std::move(findings)},
                        {"changes", std::move(changes)},
                        {"repaired", end.repaired},
                        {"changes_written", end.changes_written},
                        {"journal", end.journal.empty() ? json::value() : json::value(end.journal)},
                        {"left", std::move(left)}};
}

std::string in_words(const evidence& e, const examination& found, const repair_plan& plan, bool notes) {
    std::string out;
    if (e.store() != nullptr) out += store_in_words(e, found);
    for (const finding& f : found.findings) {
        if (f.how_bad == severity::error)
            fmt::format_to(std::back_inserter(out), "error: {}{}\n", escaped(f.text),
                           f.repairable ? "" : " [cannot be repaired]");
        else if (notes)
            fmt::format_to(std::back_inserter(out), "note: {}\n", escaped(f.text));
    }
    for (const change& c : plan.changes)
        if (!c.is_witness())
            fmt::format_to(std::back_inserter(out), "change: {} ({} bytes at {})\n", escaped(c.why), c.after.size(),
                           c.offset);
    return out;
}

json::value dump_as_json(const evidence& e, const examination& found) {
    json::array blobs;
    for (const examined_blob& b : found.blobs) blobs.emplace_back(blob_as_json(b));
    return json::object{{"store", e.store() == nullptr ? json::value() : json::value(store_as_json(e))},
                        {"blobs", std::move(blobs)}};
}

std::string dump_in_words(const evidence& e, const examination& found) {
    if (e.store() == nullptr) return e.why_no_store() + "\n";
    std::string out = store_in_words(e, found);
    if (!e.rebuilt_from().empty())
        fmt::format_to(std::back_inserter(out), "damaged super block ({}), known from {}\n", escaped(e.why_no_store()),
                       e.rebuilt_from());
    auto line = [&out](std::string_view key, std::string_view value) {
        if (!value.empty()) fmt::format_to(std::back_inserter(out), "  {:<14} {}\n", escaped(key), escaped(value));
    };
    for (const examined_blob& b : found.blobs) {
        const auto& r = b.record;
        fmt::format_to(std::back_inserter(out), "blob {:#x}{}{}\n", b.id(), b.name().empty() ? "" : " ",
                       escaped(b.name()));
        line("clusters", fmt::format("{}, {} allocated{}{}", r.cluster_count, b.allocated, r.thin() ? ", thin" : "",
                                     r.uses_extent_table ? "" : ", without extent table"));
        line("access", r.access() == format::blob_access::full ? "" : std::string(name_of(r.access())));
        line("parent", b.parent ? id_text(*b.parent) : "");
        line("flags", fmt::format("{:#x} {:#x} {:#x}", r.flags.invalid, r.flags.data_read_only, r.flags.md_read_only));
        line("pages", listed(r.pages, [](uint32_t page) { return fmt::to_string(page); }));
        line("extent pages", listed(b.extents, [](auto& use) { return fmt::format("{}:{}", use.index, use.page); }));
        line("map", listed(clusters_of(b), [](auto& run) {
                 return run.first == 0 ? fmt::format("none x {}", run.count) : in_words(std::span(&run, 1));
             }));
        for (const auto& x : r.xattrs) line(x.name, shortened(printable(x.value)));
        for (const auto& x : r.internal_xattrs) line(x.name, shortened(printable(x.value)) + " (internal)");
        line("wrong", b.wrong);
    }
    return out;
}

}  // namespace varve::blob::check
