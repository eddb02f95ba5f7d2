// For tests: what a store holds, as text that can be compared, and whether it is sound.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "blob/check/examine.h"
#include "blob/check/inspect.h"
#include "blob/test_store.h"

namespace varve::blob {

inline std::string hash_of(std::span<const std::byte> bytes) {
    uint64_t hash = 0xcbf29ce484222325;
    bool zero = true;
    for (std::byte b : bytes) {
        hash = (hash ^ static_cast<uint8_t>(b)) * 0x100000001b3;
        zero = zero && b == std::byte{0};
    }
    return zero ? "-" : fmt::format("{:x}", hash & 0xffffff);
}

// Every blob with its attributes and contents. Reads all of them.
inline task<std::string> describe(life& l, store& s) {
    std::string text = fmt::format("super blob {:x}, {} data clusters\n", s.super_blob(), s.data_clusters());
    for (blob_id id : s.blobs()) {
        const blob_state& b = *s.find(id);
        text += fmt::format("{:x}: {} clusters, thin {}, read-only {}, below {:x}", id, b.record.cluster_count,
                            b.thin(), b.read_only(), b.parent == nullptr ? 0 : b.parent->id);
        std::set<std::string> xattrs;
        for (const auto& x : b.record.xattrs)
            xattrs.insert(fmt::format(" {}={}*{}", x.name, x.value.substr(0, 9), x.value.size()));
        for (const std::string& x : xattrs) text += x;
        if (b.current->external != nullptr) text += " on " + b.current->external->id();
        if (b.set_aside()) text += " SET ASIDE " + b.damage;
        text += " :";
        if (!b.set_aside()) {
            auto d = co_await l.serve(s, id);
            auto memory = co_await s.base().memory(s.geometry().cluster_size);
            {
                auto io = d.channel();
                const uint64_t blocks = memory.size() / d->block_size();
                for (uint64_t i = 0; i < std::min<uint64_t>(b.record.cluster_count, 20); ++i) {
                    co_await bdev::read(*io, i * blocks, memory.bytes());
                    text += " " + hash_of(memory.bytes());
                }
            }
            d.close();
            co_await l.stop_serving(id);
        }
        text += '\n';
    }
    co_return text;
}

// No cluster or page is lost or has two owners, and nothing had to be set aside.
inline void expect_sound(const store& s) {
    std::set<uint32_t> clusters, pages;
    for (blob_id id : s.blobs()) {
        const blob_state& b = *s.find(id);
        EXPECT_FALSE(b.set_aside()) << b.damage;
        uint64_t allocated = 0;
        for (uint64_t i = 0; i < b.current->size; ++i) {
            uint32_t c = b.current->at(i);
            if (c == no_cluster) continue;
            ++allocated;
            EXPECT_TRUE(clusters.insert(c).second) << "cluster " << c << " has two owners";
            EXPECT_TRUE(s.room().cluster_used(c)) << "cluster " << c << " is taken for free";
        }
        EXPECT_EQ(allocated, b.allocated);
        for (const std::vector<uint32_t>* away : {&b.leaving, &b.departed}) {
            for (uint32_t c : *away) EXPECT_TRUE(clusters.insert(c).second) << "cluster " << c << " was given up twice";
        }
        for (uint32_t p : b.record.pages) EXPECT_TRUE(pages.insert(p).second) << "page " << p << " has two owners";
        for (uint32_t p : b.extent_pages) EXPECT_TRUE(pages.insert(p).second) << "page " << p << " has two owners";
    }
    EXPECT_EQ(s.data_clusters() - s.free_clusters(), clusters.size()) << "clusters are lost";
    std::string lost;
    for (uint32_t p = 0; p < s.room().page_count(); ++p) {
        bool ours = s.super().extension && s.super().extension->holds(p);
        if (s.room().page_used(p) != (ours || pages.contains(p))) lost += fmt::format(" {}", p);
    }
    EXPECT_EQ(lost, "") << "pages are lost, or taken for free";
}

// What fsck says of the disk, other than that the store was in use: nothing, once it was unloaded.
inline std::string fsck(const env::sim::disk& on, bool unloaded) {
    struct contents final : check::storage {
        explicit contents(const env::sim::disk& d) : disk(d) {}
        format::device_shape shape() const noexcept override {
            return {{disk.size()}, disk.options().logical_block_size};
        }
        void read(std::span<check::piece> pieces) override {
            for (check::piece& p : pieces) disk.peek(p.offset, p.bytes);
        }
        const env::sim::disk& disk;
    } reader(on);
    auto evidence = check::inspect(reader);
    if (!evidence) return evidence.error().message();
    std::string text;
    for (const check::finding& f : check::examine(*evidence).findings) {
        using enum check::problem;
        bool of_a_crash = f.what == not_unloaded || f.what == half_made_snapshot || f.what == torn_write ||
                          f.what == torn_super || f.what == bad_copy || f.what == lost_copy || f.what == unmarked ||
                          f.what == leaked || f.what == stale_root;
        if (unloaded || !of_a_crash) text += std::string(check::name_of(f.what)) + ": " + f.text + '\n';
    }
    return text;
}

// 512-byte sectors as blocks of a device: those that they are in.
struct block_range {
    block_range(const bdev::device& d, uint64_t sector, uint64_t count)
        : lba(sector * 512 / d.block_size()),
          blocks(static_cast<uint32_t>(round_up((sector + count) * 512, d.block_size()) / d.block_size() - lba)) {}
    uint64_t lba;
    uint32_t blocks;
};

// Writes `count` sectors from `sector` on, and flushes.
inline task<> write_pattern(life& l, store& s, blob_id id, uint64_t sector, uint32_t count, char c, bool flush = true) {
    auto d = co_await l.serve(s, id);
    const block_range at(*d, sector, count);
    data_bytes data(std::size_t{at.blocks} * d->block_size(), static_cast<std::byte>(c));
    result<> outcome;
    {
        auto io = d.channel();
        outcome = co_await as_result(bdev::write(*io, at.lba, data));
        if (outcome && flush) outcome = co_await as_result(bdev::flush(*io));
    }
    d.close();
    co_await l.stop_serving(id);
    co_await std::move(outcome);
}

// The end of a store of which nothing is open any more.
inline task<> unload_sound(store& s) {
    co_await s.settle();
    expect_sound(s);
    co_await s.unload();
}

}  // namespace varve::blob
