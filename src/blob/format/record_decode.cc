// Reads chains. Nothing is believed before it is checked: first that the pages are one chain, then that each
// descriptor lies inside its page, then what it says.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "blob/format/record.h"

namespace varve::blob::format {

namespace {

constexpr uint64_t cluster_count_max = UINT32_MAX;

class chain_reader {
  public:
    explicit chain_reader(const geometry& g) : _geometry(g) {}

    void read(std::span<const numbered_page> pages) {
        if (pages.empty()) return complain("no page");
        _out.record.id = id_of_root_page(pages[0].number);
        for (std::size_t i = 0; i < pages.size(); ++i) {
            _page = pages[i].number;
            if (!is_next(pages, i)) return;
            _out.record.pages.push_back(_page);
            read_descriptors(pages[i].bytes.subspan<offsetof(md_page_wire, descriptors), descriptor_space>());
        }
        check_whole();
    }
    decoded_chain take() && { return std::move(_out); }

  private:
    void complain(std::string_view what) {
        if (!_out.wrong) _out.wrong = damaged(fmt::format("page {}: {}", _page, what)).error();
    }
    void complain_at(std::string_view descriptor, std::string_view what) {
        complain(
            fmt::format("{} descriptor at byte {}: {}", descriptor, offsetof(md_page_wire, descriptors) + _at, what));
    }

    // Whether page i is whole and the i-th of this chain.
    bool is_next(std::span<const numbered_page> pages, std::size_t i) {
        const page_view bytes = pages[i].bytes;
        const page_header h = header_of(bytes);
        md_page_wire w;
        std::memcpy(&w, bytes.data(), sizeof w);
        auto refuse = [&](std::string_view what) {
            complain(what);
            return false;
        };
        if (!_geometry.has_md_page(_page))
            return refuse(fmt::format("the store has {} metadata pages", _geometry.md.count));
        if (w.crc != crc_of(bytes))
            return refuse(fmt::format("crc is {:#010x}, its bytes make {:#010x}", w.crc.get(), crc_of(bytes)));
        if (h.id != _out.record.id)
            return refuse(fmt::format("id is {:#x}, it should belong to blob {:#x}", h.id, _out.record.id));
        if (h.sequence != i) return refuse(fmt::format("sequence is {}, it should be {}", h.sequence, i));
        if (i == 0)
            _out.record.stamp = h.stamp;
        else if (h.stamp != _out.record.stamp)
            return refuse(fmt::format("stamp is {}, that of the chain's first page {}: it is of another time", h.stamp,
                                      _out.record.stamp));
        const uint32_t wanted = i + 1 < pages.size() ? pages[i + 1].number : no_page;
        if (h.next != wanted) {
            complain(h.next == no_page ? std::string("next is none, but the chain goes on")
                                       : fmt::format("next is {}, it should be {}", h.next,
                                                     wanted == no_page ? "none" : std::to_string(wanted)));
        }
        return true;  // a wrong `next` speaks against the page after this one
    }

    void read_descriptors(std::span<const std::byte> space) {
        for (_at = 0; _at + sizeof(descriptor_header_wire) <= space.size();) {
            descriptor_header_wire h;
            std::memcpy(&h, space.data() + _at, sizeof h);
            const bool padding = h.type == static_cast<uint8_t>(descriptor_type::padding);
            if (padding && h.length == 0) return;
            const std::size_t room = space.size() - _at - sizeof h;
            if (h.length > room)
                return complain(fmt::format("descriptor of type {} at byte {}: length is {}, {} are left", h.type,
                                            offsetof(md_page_wire, descriptors) + _at, h.length.get(), room));
            if (!padding) read_descriptor(h.type, space.subspan(_at + sizeof h, h.length));
            _at += sizeof h + h.length;
        }
    }

    void read_descriptor(uint8_t type, std::span<const std::byte> body) {
        switch (static_cast<descriptor_type>(type)) {
            case descriptor_type::flags:
                return read_flags(body);
            case descriptor_type::xattr:
                return read_xattr(body, _out.record.xattrs);
            case descriptor_type::internal_xattr:
                return read_xattr(body, _out.record.internal_xattrs);
            case descriptor_type::extent_rle:
                return read_runs(body);
            case descriptor_type::extent_table:
                return read_extent_table(body);
            case descriptor_type::extent_page:
                return complain_at("extent page", "inside a chain");
            case descriptor_type::padding:
                return;
        }
        const auto* bytes = reinterpret_cast<const char*>(body.data());
        _out.record.unknown.push_back({type, std::string(bytes, body.size())});
    }

    void read_flags(std::span<const std::byte> body) {
        flags_wire w;
        if (body.size() != sizeof w - sizeof w.header)
            return complain_at("flags", fmt::format("length is {}, not 24", body.size()));
        std::memcpy(&w.invalid, body.data(), body.size());
        _out.record.flags = {w.invalid, w.data_read_only, w.md_read_only};
    }

    void read_xattr(std::span<const std::byte> body, xattr_map& into) {
        xattr_wire w;
        constexpr std::size_t lengths = sizeof w - sizeof w.header;
        if (body.size() < lengths) return complain_at("xattr", fmt::format("length is {}", body.size()));
        std::memcpy(&w.name_length, body.data(), lengths);
        const std::size_t name = w.name_length, value = w.value_length;
        if (lengths + name + value != body.size())
            return complain_at("xattr", fmt::format("name_length {} and value_length {} do not make its length {}",
                                                    name, value, body.size()));
        const auto* bytes = reinterpret_cast<const char*>(body.data()) + lengths;
        into.append({std::string(bytes, name), std::string(bytes + name, value)});
    }

    void read_runs(std::span<const std::byte> body) {
        if (_out.record.uses_extent_table) return complain_at("extent", "the blob has an extent table, too");
        if (body.empty() || body.size() % sizeof(extent_run_wire) != 0)
            return complain_at("extent", fmt::format("length is {}, no multiple of 8", body.size()));
        _has_runs = true;
        for (std::size_t i = 0; i < body.size(); i += sizeof(extent_run_wire)) {
            extent_run_wire w;
            std::memcpy(&w, body.data() + i, sizeof w);
            if (w.count == 0) continue;
            if (w.cluster != 0 && (!_geometry.has_data_cluster(w.cluster) ||
                                   !range_inside(w.cluster, w.count, _geometry.cluster_count))) {
                complain_at("extent",
                            fmt::format("{} clusters from {}, data clusters are {} to {}", w.count.get(),
                                        w.cluster.get(), _geometry.first_data_cluster, _geometry.cluster_count - 1));
                continue;
            }
            if (_out.record.cluster_count + w.count > cluster_count_max)
                return complain_at("extent", "the blob has more than 2^32 - 1 clusters");
            _out.record.cluster_count += w.count;
            _out.record.runs.push_back({w.cluster, w.count});
        }
    }

    void read_extent_table(std::span<const std::byte> body) {
        if (_has_runs) return complain_at("extent table", "the blob has extents outside of a table, too");
        if (body.size() < sizeof(le64) || (body.size() - sizeof(le64)) % sizeof(extent_table_run_wire) != 0)
            return complain_at("extent table", fmt::format("length is {}", body.size()));
        le64 count;
        std::memcpy(&count, body.data(), sizeof count);
        if (count > cluster_count_max)
            return complain_at("extent table",
                               fmt::format("the blob has {} clusters, 2^32 - 1 are possible", count.get()));
        if (_out.record.uses_extent_table && count != _out.record.cluster_count)
            complain_at("extent table", fmt::format("num_clusters is {}, an earlier part said {}", count.get(),
                                                    _out.record.cluster_count));
        _out.record.uses_extent_table = true;
        _out.record.cluster_count = count;
        for (std::size_t i = sizeof(le64); i < body.size(); i += sizeof(extent_table_run_wire)) {
            extent_table_run_wire w;
            std::memcpy(&w, body.data() + i, sizeof w);
            if (w.page != 0 && (w.count != 1 || !_geometry.has_md_page(w.page))) {
                complain_at("extent table", fmt::format("names {} extent pages from {}, the store has {}",
                                                        w.count.get(), w.page.get(), _geometry.md.count));
                w.page = 0;
            }
            if (w.count == 0) continue;
            _pages_in_table += w.count;
            _out.record.extent_pages.push_back({w.page, w.count});
        }
    }

    void check_whole() {
        blob_record& r = _out.record;
        if (r.uses_extent_table && _pages_in_table != r.extent_page_count())
            complain(fmt::format("the blob's extent table has {} extent pages, its {} clusters need {}",
                                 _pages_in_table, r.cluster_count, r.extent_page_count()));
        if (r.thin()) return;
        auto hole = [](const auto& runs, auto member) {
            return std::any_of(runs.begin(), runs.end(), [member](const auto& run) { return run.*member == 0; });
        };
        if (hole(r.runs, &cluster_run::first) || hole(r.extent_pages, &extent_page_run::page))
            complain("the blob has unallocated clusters, but is not thin");
    }

    const geometry& _geometry;
    decoded_chain _out;
    uint32_t _page = 0;
    std::size_t _at = 0;  // of the descriptor being read
    bool _has_runs = false;
    uint64_t _pages_in_table = 0;
};

}  // namespace

decoded_chain decode_chain_as_far_as_possible(std::span<const numbered_page> pages, const geometry& g) {
    chain_reader reader(g);
    reader.read(pages);
    return std::move(reader).take();
}

result<blob_record> decode_chain(std::span<const numbered_page> pages, const geometry& g) {
    auto out = decode_chain_as_far_as_possible(pages, g);
    if (out.wrong) return fail(*std::move(out.wrong));
    return std::move(out.record);
}

}  // namespace varve::blob::format
