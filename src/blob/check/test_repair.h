// For tests of check and repair: what must hold before and after.
#pragma once

#include <gmock/gmock.h>

#include <initializer_list>
#include <string>

#include "blob/check/examine.h"
#include "blob/check/journal.h"
#include "blob/check/test_store.h"

namespace varve::blob::check {

inline examination check_of(test_store& s) {
    evidence e = *inspect(s);
    return examine(e);
}
inline std::string all_text(const examination& found) {
    std::string out;
    for (const auto& f : found.findings)
        out += std::string(name_of(f.what)) + (f.how_bad == severity::error ? " error " : " note ") + f.text + '\n';
    return out;
}
inline repair_plan repair(test_store& s) {
    evidence e = *inspect(s);
    auto found = examine(e);
    auto plan = plan_repair(e, found);
    s.apply(plan);
    return plan;
}
// What must hold after every repair: it is loadable, what remains cannot be repaired, no data cluster was written,
// every cluster that had an owner is still marked.
inline void expect_settled(test_store& s, const examination& before) {
    auto after = check_of(s);
    EXPECT_TRUE(after.loadable);
    for (const auto& f : after.findings) EXPECT_FALSE(f.repairable) << f.text;
    for (uint32_t c = 0; c < s.layout().cluster_count; ++c)
        if (before.used_clusters.test(c)) EXPECT_TRUE(after.used_clusters.test(c)) << c;
    EXPECT_TRUE(repair(s).empty());
}
inline void expect_repaired(test_store& s, std::initializer_list<const char*> found_texts, uint64_t errors_left) {
    const auto found = check_of(s);
    for (const char* text : found_texts) EXPECT_THAT(all_text(found), testing::HasSubstr(text));
    const auto bytes_before = s.bytes;
    const auto plan = repair(s);
    for (const change& c : plan.changes)
        EXPECT_LE(c.offset + c.after.size(), s.layout().offset_of_cluster(s.layout().first_data_cluster)) << c.why;
    const auto left = check_of(s);
    EXPECT_EQ(left.errors(), errors_left) << all_text(left);
    expect_settled(s, found);
    // and back
    s.apply(*plan_undo(*decode_journal(encode_journal(plan)), s));
    EXPECT_EQ(s.bytes, bytes_before);
}
// As after a deletion that never came to the root page.
inline void forget_in_masks(test_store& s, uint32_t root) {
    const auto found = check_of(s);
    const examined_blob& b = *found.find(format::id_of_root_page(root));
    s.ids_used.reset(root);
    for (uint32_t page : b.record.pages) s.pages_used.reset(page);
    for (const auto& use : b.extents) s.pages_used.reset(use.page);
    for (const auto& run : b.owned)
        for (uint32_t i = 0; i < run.count; ++i) s.clusters_used.reset(run.first + i);
    s.write_masks();
}

}  // namespace varve::blob::check
