// Fuzzes check and repair: a whole store is damaged as the input says (pokes of metadata pages, masks and super block,
// with or without the checksum made right, pages moved over others, pages that cannot be read, super blocks of which
// little is left), checked, repaired and checked again. It must never crash, the repair must leave a store that is
// loadable and in which nothing more can be repaired, and must not write to clusters. Whatever became of the super
// block: while its copy and two masks are whole there is a store.
#include "blob/check/report.h"
#include "blob/check/test_store.h"
#include "json/write.h"
#include "util/assert.h"

namespace varve::blob::check {
namespace {

struct input {
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

void damage(test_store& s, input& in) {
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

// False: there was nothing to be done.
bool repair(test_store& s, examine_options how) {
    auto read = inspect(s, {.search = true});
    if (!read) return false;
    auto found = examine(*read, how);
    const auto plan = plan_repair(*read, found);
    (void)json::write(as_json(*read, found, plan));
    (void)dump_in_words(*read, found);
    (void)json::write(dump_as_json(*read, found));
    VARVE_ASSERT(found.loadable || plan.empty());
    for (const change& c : plan.changes)
        VARVE_ASSERT(c.offset + c.after.size() <= s.layout().offset_of_cluster(s.layout().first_data_cluster));
    if (plan.empty()) {
        for (const finding& f : found.findings) VARVE_ASSERT(!f.repairable);
        return false;
    }
    s.apply(plan);
    if (how.give_up_unreadable) return true;
    auto again = inspect(s);
    VARVE_ASSERT(again);
    const auto left = examine(*again, how);
    VARVE_ASSERT(left.loadable);
    for (uint32_t c = 0; c < s.layout().cluster_count; ++c)
        VARVE_ASSERT(!found.used_clusters.test(c) || left.used_clusters.test(c));
    return true;
}

// What a rebuilt super block must be, if the damage left that much.
bool must_be_found(const test_store& now, const test_store& was) {
    auto same = [&](uint64_t offset, std::size_t bytes) {
        const auto at = static_cast<long>(offset);
        return std::equal(now.bytes.begin() + at, now.bytes.begin() + at + static_cast<long>(bytes),
                          was.bytes.begin() + at);
    };
    const auto& g = was.layout();
    if (!now.bad_pages.empty() || !same(was.offset_of(test_store::copy), format::page_size)) return false;
    if (!same(g.offset_of(g.page_mask), 5) || !same(g.offset_of(g.blobid_mask), 5)) return false;
    std::size_t moved = 0;
    for (uint32_t page = 0; page < g.md.count; ++page)
        moved += format::look_at(now.get(page), page).content == format::page_content::elsewhere;
    return moved <= 2 &&
           format::look_at(now.get(test_store::thick), test_store::thick).content == format::page_content::root;
}

void check(test_store& s, examine_options how) {
    // What a repair takes from a blob because it cannot be read is given up by the next.
    int repairs = 0;
    while (repair(s, how)) ++repairs;
    VARVE_ASSERT(repairs <= (how.give_up_unreadable ? 2 : 1));
}

}  // namespace
}  // namespace varve::blob::check

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
    using namespace varve::blob::check;
    if (size == 0 || size > 400) return 0;
    input in{{data, size}};
    static const test_store clean(true), dirty(false);
    const uint8_t how = in.byte();
    test_store s = (how & 1) != 0 ? clean : dirty;
    for (int unreadable = (how >> 2) % 8; unreadable > 0; --unreadable)
        s.bad_pages.push_back(s.offset_of(in.byte() % s.layout().md.count));
    while (!in.left.empty()) damage(s, in);
    auto read = inspect(s, {.search = true});
    const bool later = read && read->is_of_unknown_version();
    VARVE_ASSERT(later || !must_be_found(s, (how & 1) != 0 ? clean : dirty) || (read && read->store() != nullptr));
    check(s, {.give_up_unreadable = (how & 2) != 0});
    return 0;
}
