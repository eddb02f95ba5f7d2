// Repairs that end half way, and taking them back.
#include "blob/check/journal.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <bit>

#include "blob/check/test_repair.h"

namespace varve::blob::check {
namespace {

using store = test_store;

std::vector<std::byte> filled(std::size_t size, char with) { return std::vector(size, static_cast<std::byte>(with)); }

// What is there when some sectors of a change reached the disk.
void tear(store& s, const change& c, unsigned sectors) {
    for (std::size_t at = 0; at < c.after.size(); at += 512)
        if ((sectors >> at / 512 & 1) != 0) std::memcpy(s.bytes.data() + c.offset + at, c.after.data() + at, 512);
}

void take_back_after_each(store s, const repair_plan& plan, const std::vector<std::byte>& wanted) {
    for (std::size_t done = 0; done <= plan.changes.size(); ++done) {
        SCOPED_TRACE(done);
        store half = s;
        half.apply({.changes = {plan.changes.begin(), plan.changes.begin() + static_cast<std::ptrdiff_t>(done)}});
        if (done < plan.changes.size()) tear(half, plan.changes[done], 0x5a);
        const auto undo = plan_undo(plan, half);
        ASSERT_TRUE(undo) << undo.error().message();
        for (std::size_t taken_back = 0; taken_back <= undo->changes.size(); ++taken_back) {
            SCOPED_TRACE(taken_back);
            store again = half;
            again.apply(
                {.changes = {undo->changes.begin(), undo->changes.begin() + static_cast<std::ptrdiff_t>(taken_back)}});
            const auto rest = plan_undo(plan, again);
            ASSERT_TRUE(rest) << rest.error().message();
            again.apply(*rest);
            EXPECT_TRUE(again.bytes == wanted);
            EXPECT_TRUE(plan_undo(plan, again)->empty());
        }
    }
}

// A page of 16 KiB that was written anew whole, and then changed in what means anything of it.
TEST(blob_journal, one_place_in_two_lengths) {
    const store s;
    const uint64_t at = s.offset_of(20);
    for (bool longer_first : {true, false}) {
        SCOPED_TRACE(longer_first);
        change whole{.offset = at, .before = filled(16384, '\0'), .after = filled(16384, 'a'), .why = "whole"};
        change part{.offset = at, .before = filled(4096, '\0'), .after = filled(4096, 'b'), .why = "part"};
        (longer_first ? part : whole).before = longer_first ? filled(4096, 'a') : filled(16384, '\0');
        if (!longer_first) std::ranges::copy(part.after, whole.before.begin());
        repair_plan plan;
        plan.changes = longer_first ? std::vector{whole, part} : std::vector{part, whole};
        take_back_after_each(s, plan, s.bytes);
    }
}

TEST(blob_journal, what_was_lost_and_then_changed_stays_what_it_was_written_as) {
    store s;
    const uint64_t at = s.offset_of(20);
    const repair_plan plan{
        .changes = {
            {.offset = at, .before = filled(16384, '\0'), .after = filled(16384, 'a'), .why = "anew", .lost = true},
            {.offset = at, .before = filled(4096, 'a'), .after = filled(4096, 'b'), .why = "changed"}}};
    s.bad_pages = {at};
    EXPECT_TRUE(plan_undo(plan, s)->empty()) << "nothing was written";
    s.apply(plan);
    const auto undo = plan_undo(plan, s);
    ASSERT_TRUE(undo) << undo.error().message();
    s.apply(*undo);
    EXPECT_TRUE(std::ranges::equal(std::span(s.bytes).subspan(at, 16384), filled(16384, 'a')));
    s.bytes[at + 5000] = std::byte{1};
    EXPECT_EQ(plan_undo(plan, s).error().code(), errc::busy);
}

// Over a super block without a seal, which SPDK wrote, comes the sealed sector first: whatever is torn then is known.
TEST(blob_journal, a_super_block_is_known_however_its_repair_or_undo_is_torn) {
    store s;
    auto w = std::bit_cast<format::super_block_wire>(format::encode_super(s.super));
    w.clean = 0;
    w.super_blob = format::id_of_root_page(store::thick);  // or a bit that flipped would explain the seal
    w.crc = format::crc_of(std::bit_cast<format::page_bytes>(w));
    std::memcpy(s.bytes.data(), &w, sizeof w);
    ASSERT_EQ(inspect(s)->store()->origin, format::super_origin::foreign);
    s.damage(13);
    const auto before = s.bytes;
    evidence e = *inspect(s);
    const auto plan = plan_repair(e, examine(e));
    take_back_after_each(s, plan, before);
    auto expect_known = [&s](const repair_plan& all) {
        for (const change& c : all.changes) {
            for (unsigned sectors = 0; c.offset == 0 && sectors < 256; ++sectors) {
                store torn = s;
                tear(torn, c, sectors);
                const evidence seen = *inspect(torn);
                ASSERT_NE(seen.store(), nullptr) << seen.why_no_store();
                EXPECT_TRUE(seen.rebuilt_from().empty()) << sectors;
                EXPECT_TRUE(seen.store()->extension);
            }
            s.apply({.changes = {c}});
        }
    };
    expect_known(plan);
    EXPECT_EQ(inspect(s)->store()->origin, format::super_origin::whole);
    expect_known(*plan_undo(plan, s));
    EXPECT_TRUE(s.bytes == before);
}

}  // namespace
}  // namespace varve::blob::check
