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
    damage_input in{{data, size}};
    static const test_store clean(true), dirty(false);
    const uint8_t how = in.byte();
    test_store s = damaged_store(how, in);
    auto read = inspect(s, {.search = true});
    const bool later = read && read->is_of_unknown_version();
    VARVE_ASSERT(later || !must_be_found(s, (how & 1) != 0 ? clean : dirty) || (read && read->store() != nullptr));
    check(s, {.give_up_unreadable = (how & 2) != 0});
    return 0;
}
