#include "blob/format/record.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

namespace varve::blob::format {

namespace {

constexpr uint64_t cluster_count_max = UINT32_MAX;

// Writes descriptors one after another, and a new page whenever one does not fit.
class chain_writer {
  public:
    explicit chain_writer(const blob_record& r) : _record(r) { add_page(); }

    result<> write(const blob_record& r) {
        const flags_wire flags{.header = {.type = static_cast<uint8_t>(descriptor_type::flags),
                                          .length = sizeof(flags_wire) - sizeof(descriptor_header_wire)},
                               .invalid = r.flags.invalid,
                               .data_read_only = r.flags.data_read_only,
                               .md_read_only = r.flags.md_read_only};
        put(&flags, sizeof flags);
        for (const auto& x : r.xattrs) VARVE_TRY(put_xattr(x, descriptor_type::xattr));
        for (const auto& x : r.internal_xattrs) VARVE_TRY(put_xattr(x, descriptor_type::internal_xattr));
        for (const auto& u : r.unknown) VARVE_TRY(put_unknown(u));
        if (r.uses_extent_table)
            put_extent_table(r);
        else
            put_runs(r);
        return {};
    }
    std::vector<md_page_wire> take() && { return std::move(_pages); }

  private:
    void add_page() {
        md_page_wire& w = _pages.emplace_back();
        std::memset(&w, 0, sizeof w);
        w.id = _record.id;
        w.sequence = static_cast<uint32_t>(_pages.size() - 1);
        w.stamp = _record.stamp;
        w.next = no_page;
        _used = 0;
    }
    std::size_t room() const noexcept { return descriptor_space - _used; }
    void put(const void* bytes, std::size_t size) noexcept {
        std::memcpy(_pages.back().descriptors + _used, bytes, size);
        _used += size;
    }
    result<> put_xattr(const xattr& x, descriptor_type type) {
        if (x.name.size() + x.value.size() > xattr_bytes_max)
            return fail(errc::invalid, fmt::format("xattr {}: name and value are {} bytes, {} fit into a page", x.name,
                                                   x.name.size() + x.value.size(), xattr_bytes_max));
        const std::size_t size = sizeof(xattr_wire) + x.name.size() + x.value.size();
        if (size > room()) add_page();
        const xattr_wire w{.header = {.type = static_cast<uint8_t>(type),
                                      .length = static_cast<uint32_t>(size - sizeof(descriptor_header_wire))},
                           .name_length = static_cast<uint16_t>(x.name.size()),
                           .value_length = static_cast<uint16_t>(x.value.size())};
        put(&w, sizeof w);
        put(x.name.data(), x.name.size());
        put(x.value.data(), x.value.size());
        return {};
    }
    result<> put_unknown(const unknown_descriptor& u) {
        const std::size_t size = sizeof(descriptor_header_wire) + u.bytes.size();
        if (size > descriptor_space)
            return fail(errc::invalid, fmt::format("descriptor of unknown type {}: {} bytes", u.type, u.bytes.size()));
        if (size > room()) add_page();
        const descriptor_header_wire w{.type = u.type, .length = static_cast<uint32_t>(u.bytes.size())};
        put(&w, sizeof w);
        put(u.bytes.data(), u.bytes.size());
        return {};
    }
    // Both kinds of cluster map are a head and runs of eight bytes, in as many descriptors as pages are needed.
    template <class Run, class WriteHead, class WriteRun>
    void put_in_pieces(std::span<const Run> runs, std::size_t head_size, bool one_at_least, bool head_needs_run,
                       WriteHead head, WriteRun run) {
        std::size_t at = 0;
        for (bool first = one_at_least; first || at < runs.size(); first = false) {
            const std::size_t needed = head_size + (head_needs_run && at < runs.size() ? 8 : 0);
            if (room() < needed) add_page();
            const std::size_t count = std::min((room() - head_size) / 8, runs.size() - at);
            head(count);
            for (std::size_t i = 0; i < count; ++i) run(runs[at++]);
            if (at < runs.size()) add_page();
        }
    }
    void put_extent_table(const blob_record& r) {
        put_in_pieces(
            std::span(r.extent_pages), sizeof(extent_table_wire), true, false,
            [&](std::size_t count) {
                const extent_table_wire w{
                    .header = {.type = static_cast<uint8_t>(descriptor_type::extent_table),
                               .length = static_cast<uint32_t>(sizeof(le64) + count * sizeof(extent_table_run_wire))},
                    .cluster_count = r.cluster_count};
                put(&w, sizeof w);
            },
            [&](const extent_page_run& run) {
                const extent_table_run_wire w{.page = run.page, .count = run.count};
                put(&w, sizeof w);
            });
    }
    void put_runs(const blob_record& r) {
        put_in_pieces(
            std::span(r.runs), sizeof(descriptor_header_wire), false, true,
            [&](std::size_t count) {
                const descriptor_header_wire w{.type = static_cast<uint8_t>(descriptor_type::extent_rle),
                                               .length = static_cast<uint32_t>(count * sizeof(extent_run_wire))};
                put(&w, sizeof w);
            },
            [&](const cluster_run& run) {
                const extent_run_wire w{.cluster = run.first, .count = run.count};
                put(&w, sizeof w);
            });
    }

    const blob_record& _record;
    std::vector<md_page_wire> _pages;
    std::size_t _used = 0;
};

}  // namespace

const std::string* xattr_map::find(std::string_view name) const noexcept {
    for (const auto& x : _all)
        if (x.name == name) return &x.value;
    return nullptr;
}

void xattr_map::set(std::string_view name, std::string_view value) {
    for (auto& x : _all)
        if (x.name == name) {
            x.value = value;
            return;
        }
    _all.push_back({std::string(name), std::string(value)});
}

bool xattr_map::erase(std::string_view name) {
    return std::erase_if(_all, [name](const xattr& x) { return x.name == name; }) != 0;
}

void append(std::vector<cluster_run>& runs, uint32_t first, uint32_t count) {
    if (!runs.empty()) {
        auto& last = runs.back();
        const bool goes_on =
            first == 0 ? last.first == 0 : last.first != 0 && uint64_t{last.first} + last.count == first;
        if (goes_on && uint64_t{last.count} + count <= UINT32_MAX) {
            last.count += count;
            return;
        }
    }
    runs.push_back({first, count});
}

void append(std::vector<extent_page_run>& runs, uint32_t page) {
    if (page == 0 && !runs.empty() && runs.back().page == 0)
        ++runs.back().count;
    else
        runs.push_back({page, 1});
}

blob_access blob_record::access() const noexcept {
    if ((flags.invalid & ~invalid_flag::known) != 0) return blob_access::none;
    if ((flags.data_read_only & ~data_ro_flag::known) != 0 || (flags.data_read_only & data_ro_flag::read_only) != 0)
        return blob_access::read_only;
    return (flags.md_read_only & ~md_ro_flag::known) != 0 ? blob_access::data_only : blob_access::full;
}

bool blob_record::may_be_changed() const noexcept {
    return ((flags.invalid & ~invalid_flag::known) | (flags.data_read_only & ~data_ro_flag::known) |
            (flags.md_read_only & ~md_ro_flag::known)) == 0;
}

result<std::optional<blob_id>> blob_record::id_in(std::string_view internal_xattr) const {
    const std::string* value = internal_xattrs.find(internal_xattr);
    if (value == nullptr) return std::nullopt;
    if (value->size() != sizeof(le64))
        return damaged(fmt::format("blob {:#x}: internal xattr {} has {} bytes, a blob id has 8", id, internal_xattr,
                                   value->size()));
    le64 out;
    std::memcpy(&out, value->data(), sizeof out);
    return out.get();
}

uint32_t blob_record::clusters_in_extent_page(uint64_t index) const noexcept {
    const uint64_t before = index * clusters_per_extent_page;
    if (before >= cluster_count) return 0;
    return static_cast<uint32_t>(std::min<uint64_t>(cluster_count - before, clusters_per_extent_page));
}

result<> check_place(const extent_page& page, uint32_t page_number, const blob_record& record, uint64_t index) {
    if (page.first_cluster != index * clusters_per_extent_page)
        return damaged(
            fmt::format("page {}: extent page of clusters from {}, but blob {:#x} names it for those from {}",
                        page_number, page.first_cluster, record.id, index * clusters_per_extent_page));
    if (record.thin()) return {};
    for (std::size_t i = 0; i < page.clusters.size() && i < record.clusters_in_extent_page(index); ++i)
        if (page.clusters[i] == 0)
            return damaged(
                fmt::format("page {}: cluster {} of blob {:#x} is unallocated, but the blob "
                            "is not thin",
                            page_number, page.first_cluster + i, record.id));
    return {};
}

result<std::size_t> chain_length(const blob_record& record) {
    chain_writer writer(record);
    VARVE_TRY(writer.write(record));
    return std::move(writer).take().size();
}

result<std::vector<page_bytes>> encode_chain(const blob_record& record) {
    if (record.cluster_count > cluster_count_max)
        return fail(errc::invalid, fmt::format("blob {:#x}: {} clusters", record.id, record.cluster_count));
    chain_writer writer(record);
    VARVE_TRY(writer.write(record));
    auto wires = std::move(writer).take();
    if (wires.size() != record.pages.size() || record.pages[0] != root_page_of(record.id))
        return fail(errc::invalid, fmt::format("blob {:#x}: its chain takes {} pages, {} are given", record.id,
                                               wires.size(), record.pages.size()));
    std::vector<page_bytes> out;
    out.reserve(wires.size());
    for (std::size_t i = 0; i < wires.size(); ++i) {
        if (i + 1 < wires.size()) wires[i].next = record.pages[i + 1];
        wires[i].crc = crc_of(std::bit_cast<page_bytes>(wires[i]));
        out.push_back(std::bit_cast<page_bytes>(wires[i]));
    }
    return out;
}

}  // namespace varve::blob::format
