// A small store in memory for tests and fuzzing: thick, thin, a chain of snapshots with a clone, one blob without
// extent table on two pages, a double-write area, a copy of the super block. Whole; tests damage it.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "blob/check/inspect.h"
#include "blob/check/repair.h"
#include "blob/format/super_copy.h"
#include "util/assert.h"

namespace varve::blob::check {

class test_store : public storage {
  public:
    static constexpr uint32_t cluster = 64 * 1024;
    static constexpr uint32_t copy = 49;                                                                // page
    enum page : uint32_t { own = 0, thick = 1, thin = 3, snap1 = 6, snap2 = 8, clone = 10, old = 12 };  // roots

    explicit test_store(bool clean = true) : _g(*format::plan_store(shape(), {.cluster_size = cluster})) {
        bytes.resize(_g.offset_of_cluster(_g.first_data_cluster));
        super = format::new_super(_g, "LVOLSTORE");
        super.super_blob = format::id_of_root_page(own);
        super.clean = clean;
        super.extension = format::super_extension{.store = uuid::from_random(1, 2), .sequence = 1};
        super.extension->double_write = {.first = 50, .slots = 1, .per_slot = 14};
        super.extension->next_stamp = old + 2;
        _next = _g.first_data_cluster;
        pages_used = ids_used = format::bit_mask(_g.md.count);
        clusters_used = format::bit_mask(_g.cluster_count);
        clusters_used.set(0, _g.first_data_cluster);
        super.extension->copy_page = copy;
        pages_used.set(copy, 15);
        add(own, "lvs0", {}, {}, false);
        add(thick, "thick", take(5), {2}, false);
        std::vector<uint32_t> sparse(1100);
        sparse[3] = take(1)[0];
        sparse[1030] = take(1)[0];
        add(thin, "thin", sparse, {4, 0, 5}, true);
        add_snapshots();
        add_old();
        write_masks();
        write_super();
    }

    format::device_shape shape() const noexcept override { return {.size = {64 * cluster}, .block_size = 512}; }
    void read(std::span<piece> pieces) override {
        for (piece& p : pieces) {
            if (p.offset >= bytes.size() || !range_inside(p.offset, p.bytes.size(), shape().size.value)) {
                p.failed = "past the end";
                continue;
            }
            const auto there = std::span(bytes).subspan(p.offset).first(
                std::min<std::size_t>(p.bytes.size(), bytes.size() - p.offset));
            std::ranges::fill(p.bytes, std::byte{});
            std::ranges::copy(there, p.bytes.begin());
            reads += p.bytes.size() / format::page_size;
            for (uint64_t bad : bad_pages)
                if (bad >= p.offset && bad < p.offset + p.bytes.size()) p.failed = "Input/output error";
            if (!p.failed.empty() && --bad_times == 0) bad_pages.clear();
        }
    }
    uint64_t next_data(uint64_t offset) override { return offset < bytes.size() ? offset : shape().size.value; }
    void apply(const repair_plan& plan) {
        for (const change& c : plan.changes) {
            if (c.lost) std::erase(bad_pages, c.offset);  // as a medium does where it is written
            VARVE_ASSERT(c.lost || std::equal(c.before.begin(), c.before.end(),
                                              bytes.begin() + static_cast<std::ptrdiff_t>(c.offset)));
            std::memcpy(bytes.data() + c.offset, c.after.data(), c.after.size());
        }
    }

    const format::geometry& layout() const noexcept { return _g; }
    uint64_t offset_of(uint32_t page) const noexcept { return _g.offset_of_md_page(page); }
    std::byte* at(uint32_t page) noexcept { return bytes.data() + offset_of(page); }
    format::page_bytes get(uint32_t page) const {
        format::page_bytes out;
        std::memcpy(out.data(), bytes.data() + offset_of(page), out.size());
        return out;
    }
    void put(uint32_t page, const format::page_bytes& p) { std::memcpy(at(page), p.data(), p.size()); }
    template <class T>
    void poke(uint32_t page, std::size_t offset, T value) {  // and the checksum
        format::page_bytes p = get(page);
        std::memcpy(p.data() + offset, &value, sizeof value);
        const le32 crc = format::crc_of(p);
        std::memcpy(p.data() + 4092, &crc, sizeof crc);
        put(page, p);
    }
    void damage(uint32_t page) {  // more than a checksum can put right
        at(page)[300] ^= std::byte{0x21};
        at(page)[301] ^= std::byte{1};
    }
    void flip(uint32_t page, std::size_t byte, unsigned bit) { at(page)[byte] ^= std::byte{1} << bit; }
    void write_super() {
        std::memcpy(bytes.data(), format::encode_super(super).data(), format::page_size);
        if (super.extension && super.extension->copy_page != 0)
            put(super.extension->copy_page, format::encode_super_copy(super));
    }
    void lose_super() { std::fill_n(bytes.begin(), format::page_size, std::byte{}); }
    void be_spdks() {  // as if varve had never had it
        put(copy, {});
        pages_used = format::bit_mask(_g.md.count);
        for (const auto& r : records) {
            for (uint32_t page : r.pages) pages_used.set(page);
            for (const auto& run : r.extent_pages)
                if (run.page != 0) pages_used.set(run.page, run.count);
        }
        super.extension.reset();
        super.raw = {};
        write_masks();
        write_super();
    }
    void never_unloaded() {
        super.clean = false;
        for (auto region : {_g.page_mask, _g.cluster_mask, _g.blobid_mask})
            std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(_g.offset_of(region)), _g.bytes_of(region),
                        std::byte{});
        write_super();
    }
    void write_masks() {
        auto write = [this](const format::bit_mask& m, format::mask_type type) {
            const auto region = region_of(type, _g);
            format::encode_mask(m, type, std::span(bytes).subspan(_g.offset_of(region), _g.bytes_of(region)));
        };
        write(pages_used, format::mask_type::used_pages);
        write(clusters_used, format::mask_type::used_clusters);
        write(ids_used, format::mask_type::used_blobids);
    }
    // Encodes and marks; `table` names an extent page for each 512 clusters, 0 for none. Empty `table`: runs.
    format::blob_record& add(uint32_t root, std::string name, const std::vector<uint32_t>& clusters,
                             const std::vector<uint32_t>& table, bool is_thin, bool use_table = true,
                             std::vector<uint32_t> more_pages = {}) {
        format::blob_record& r = records.emplace_back();
        r.id = format::id_of_root_page(root);
        r.flags.invalid =
            (is_thin ? format::invalid_flag::thin : 0) | (use_table ? format::invalid_flag::extent_table : 0);
        r.xattrs.set("name", name + '\0');
        r.xattrs.set("uuid", uuid::from_random(root, 7).to_string() + '\0');
        r.uses_extent_table = use_table;
        r.cluster_count = clusters.size();
        r.stamp = root + 1;
        r.pages = {root};
        r.pages.insert(r.pages.end(), more_pages.begin(), more_pages.end());
        for (uint32_t c : clusters) {
            if (c != 0) clusters_used.set(c);
            if (!use_table) append(r.runs, c);
        }
        for (std::size_t i = 0; i < table.size(); ++i) {
            append(r.extent_pages, table[i]);
            if (table[i] == 0) continue;
            const auto begin = clusters.begin() + static_cast<std::ptrdiff_t>(i * 512);
            const auto end = clusters.end() - begin > 512 ? begin + 512 : clusters.end();
            put(table[i], format::encode_extent_page({.id = r.id,
                                                      .stamp = r.stamp,
                                                      .first_cluster = static_cast<uint32_t>(i * 512),
                                                      .clusters = std::vector<uint32_t>(begin, end)}));
            pages_used.set(table[i]);
        }
        write(r);
        return r;
    }
    void write(const format::blob_record& r) {
        const auto encoded = *format::encode_chain(r);
        for (std::size_t i = 0; i < encoded.size(); ++i) {
            put(r.pages[i], encoded[i]);
            pages_used.set(r.pages[i]);
        }
        ids_used.set(format::root_page_of(r.id));
    }
    format::blob_record& record(uint32_t root) {
        return *std::find_if(records.begin(), records.end(),
                             [root](auto& r) { return r.id == format::id_of_root_page(root); });
    }
    std::vector<uint32_t> take(uint32_t count) {
        std::vector<uint32_t> out;
        while (count-- > 0) out.push_back(_next++);
        return out;
    }

    std::vector<std::byte> bytes;  // of the clusters before the first data cluster; the others are a hole
    format::super_block super;
    std::vector<format::blob_record> records;
    format::bit_mask pages_used, clusters_used, ids_used;
    std::vector<uint64_t> bad_pages;  // offsets that cannot be read
    uint64_t bad_times = UINT64_MAX;  // that often
    uint64_t reads = 0;               // pages of 4,096 bytes

  private:
    void set_parent(format::blob_record& r, uint32_t parent) {
        const le64 id = format::id_of_root_page(parent);
        r.internal_xattrs.set(format::xattr_parent, std::string_view(reinterpret_cast<const char*>(&id), sizeof id));
        r.flags.invalid |= format::invalid_flag::internal_xattrs;
        write(r);
    }
    void add_snapshots() {
        auto one_of_four = [this] { return std::vector<uint32_t>{0, take(1)[0], 0, 0}; };
        add(snap1, "snap1", one_of_four(), {7}, true).flags.data_read_only = format::data_ro_flag::read_only;
        write(records.back());
        add(snap2, "snap2", one_of_four(), {9}, true).flags.data_read_only = format::data_ro_flag::read_only;
        set_parent(records.back(), snap1);
        add(clone, "clone", one_of_four(), {11}, true);
        set_parent(records.back(), snap2);
    }
    void add_old() {
        format::blob_record& r = add(old, "old", take(3), {}, false, false);
        r.xattrs.set("note", std::string(3000, 'n'));
        r.xattrs.set("more", std::string(2000, 'm'));
        r.pages = {old, 13};
        write(r);
    }

    format::geometry _g;
    uint32_t _next = 0;
};

// --- for fuzzing: damage as the bytes of an input say

struct damage_input {
    std::span<const uint8_t> left;
    uint8_t byte() {
        if (left.empty()) return 0;
        const uint8_t b = left[0];
        left = left.subspan(1);
        return b;
    }
    uint32_t word() {
        uint32_t v = 0;
        for (int i = 0; i < 4; ++i) v |= uint32_t{byte()} << 8 * i;
        return v;
    }
};

inline void damage(test_store& s, damage_input& in) {
    const uint8_t what = in.byte();
    const uint32_t page = in.byte() % s.layout().md.count;
    const uint32_t where = (in.byte() | uint32_t{in.byte()} << 8) % (format::page_size - 8);
    switch (what % 8) {
        case 0:
            return s.poke(page, where, in.byte());
        case 1:
            return s.poke(page, where, le32(in.word()));
        case 2:
            s.at(page)[where] = std::byte{in.byte()};
            return;
        case 3:
            return s.put(page, s.get(in.byte() % s.layout().md.count));
        case 4:
            s.bytes[(page % 4) * format::page_size + where] = std::byte{in.byte()};
            return;
        case 5:
            s.poke(page, in.byte() % 160, le32(in.word() % 128));
            return;
        case 6: {  // some sectors of the super block
            const uint8_t sectors = in.byte();
            const std::byte with{in.byte()};
            for (std::size_t i = 0; i < 8; ++i)
                if ((sectors >> i & 1) != 0) std::fill_n(s.bytes.begin() + static_cast<long>(i * 512), 512, with);
            return;
        }
        case 7:  // a copy somewhere else, or of something else
            s.put(page, s.get(test_store::copy));
            if ((where & 1) != 0) s.at(page)[where] ^= std::byte{1};
            return;
    }
}

// Which pages cannot be read, and what is damaged.
inline test_store damaged_store(uint8_t how, damage_input& in) {
    static const test_store clean(true), dirty(false);
    test_store s = (how & 1) != 0 ? clean : dirty;
    for (int unreadable = (how >> 2) % 8; unreadable > 0; --unreadable)
        s.bad_pages.push_back(s.offset_of(in.byte() % s.layout().md.count));
    while (!in.left.empty()) damage(s, in);
    return s;
}

}  // namespace varve::blob::check
