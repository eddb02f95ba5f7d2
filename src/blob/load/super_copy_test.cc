// The copy of the super block: made with the store or with its first change, never behind the super block, and worth a
// store when that is lost.
#include <gmock/gmock.h>

#include <bit>
#include <cstring>

#include "blob/check/repair.h"
#include "blob/format/super_copy.h"
#include "blob/load/test_doubt.h"

namespace varve::blob {
namespace {

using env::sim::cut_outcome;
using testing::HasSubstr;

template <class Body>
void live(sim_machine& m, Body body) {
    auto outcome = m.live(body);
    ASSERT_TRUE(outcome) << outcome.error().message();
}
format::device_shape shape_of(const env::sim::disk& d) { return {{d.size()}, 512}; }
format::page_bytes page_at(const env::sim::disk& d, uint64_t offset) {
    format::page_bytes page;
    d.peek(offset, page);
    return page;
}
uint64_t place_of_copy(const store& s) { return s.geometry().offset_of_md_page(s.super().extension->copy_page); }
// On the disk: the copy says what the super block does.
void expect_same(const env::sim::disk& d) {
    auto s = format::decode_super(page_at(d, 0), shape_of(d));
    ASSERT_TRUE(s) << s.error().message();
    ASSERT_TRUE(s->extension && s->extension->copy_page != 0);
    EXPECT_TRUE(format::says_the_same(page_at(d, s->layout.offset_of_md_page(s->extension->copy_page)), *s));
}
struct on_disk final : check::storage {
    explicit on_disk(env::sim::disk& on) : disk(on) {}
    format::device_shape shape() const noexcept override { return shape_of(disk); }
    void read(std::span<check::piece> pieces) override {
        for (check::piece& p : pieces) disk.peek(p.offset, p.bytes);
    }
    env::sim::disk& disk;
};
// What fsck --repair does; from what it made the super block anew.
std::string repair(env::sim::disk& d) {
    on_disk from(d);
    auto read = check::inspect(from, {.search = true});
    if (!read) return read.error().message();
    auto found = check::examine(*read);
    for (const check::change& c : check::plan_repair(*read, found).changes) d.poke(c.offset, c.after);
    return read->store() == nullptr ? read->why_no_store() : read->rebuilt_from();
}

TEST(super_copy, brings_back_a_store_that_has_grown_and_says_which_blob_comes_first) {
    sim_machine m(1, 8 << 20, {.volatile_cache = true});
    std::string before;
    uint32_t clusters = 0;
    live(m, [&](life& l) -> task<> {
        bdev::device& base = *l.devices.find("base");
        co_await l.devices.resize(base, 8192);
        auto s = co_await store::init(l.devices, l.base(), {.cluster_size = cluster, .type = "TEST", .trim = false});
        expect_same(m.disk());
        blob_id id = co_await s->create({.clusters = 6, .thin = true});
        co_await s->set_super_blob(id);
        expect_same(m.disk());
        co_await l.devices.resize(base, 16384);
        co_await s->grow();
        expect_same(m.disk());
        co_await write_pattern(l, *s, id, 3, 90, 'g');
        clusters = s->geometry().cluster_count;
        before = co_await describe(l, *s);
        co_await s->abandon();
    });
    m.disk().cut_power(cut_outcome::keep_all);
    m.disk().poke(0, data_bytes(4096, std::byte{0x5a}));
    EXPECT_THAT(repair(m.disk()), HasSubstr("the copy in page"));
    EXPECT_EQ(fsck(m.disk(), true), "");
    live(m, [&](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), {.type = "TEST", .trim = false});
        expect_sound(*s);
        EXPECT_EQ(s->geometry().cluster_count, clusters);
        EXPECT_EQ(co_await describe(l, *s), before);
        co_await s->unload();
    });
    EXPECT_EQ(fsck(m.disk(), true), "");
    expect_same(m.disk());
}

// As an older varve left it.
void forget_copy(env::sim::disk& d) {
    auto s = *format::decode_super(page_at(d, 0), shape_of(d));
    const uint64_t at = s.layout.offset_of_md_page(s.extension->copy_page);
    std::byte bits{};
    const uint64_t mask = s.layout.offset_of(s.layout.page_mask) + 5 + s.extension->copy_page / 8;
    d.peek(mask, std::span(&bits, 1));
    bits &= ~(std::byte{1} << s.extension->copy_page % 8);
    d.poke(mask, std::span(&bits, 1));
    s.extension->copy_page = 0;
    d.poke(0, format::encode_super(s));
    d.poke(at, format::page_bytes{});
}

TEST(super_copy, an_older_store_gets_one_with_its_first_change_and_not_before) {
    doubtful d;
    forget_copy(d.machine.disk());
    EXPECT_EQ(fsck(d.machine.disk(), true), "");
    d.live([&](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), plain);
        expect_sound(*s);
        co_await s->unload();
    });
    EXPECT_EQ(format::decode_super(page_at(d.machine.disk(), 0), shape_of(d.machine.disk()))->extension->copy_page, 0u);
    d.live([&](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), plain);
        blob_ref b = co_await s->open(d.old);
        co_await s->set_xattr(b, "name", "x");
        b.close();
        expect_same(d.machine.disk());
        co_await s->unload();
    });
    expect_same(d.machine.disk());
    EXPECT_EQ(fsck(d.machine.disk(), true), "");
}

TEST(super_copy, another_page_is_taken_when_its_own_holds_something_else) {
    doubtful d;
    uint32_t copy = 0;
    d.live([&](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), plain);
        copy = s->super().extension->copy_page;
        co_await s->unload();
    });
    // a page of a blob, as somebody who does not know of the copy may write it there
    d.machine.disk().poke(d.g.offset_of_md_page(copy),
                          page_at(d.machine.disk(), d.g.offset_of_md_page(format::root_page_of(d.old))));
    d.live([&](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), plain);
        expect_sound(*s);
        co_await s->set_super_blob(d.old);
        co_await s->unload();
    });
    expect_same(d.machine.disk());
    EXPECT_EQ(fsck(d.machine.disk(), true), "");
}

TEST(super_copy, that_is_damaged_is_written_anew_with_the_first_change) {
    doubtful d;
    uint64_t at = 0;
    d.live([&](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), plain);
        at = place_of_copy(*s);
        co_await s->unload();
    });
    d.machine.disk().flip_bit(at + 80, 3);
    d.machine.disk().flip_bit(at + 99, 3);
    EXPECT_THAT(fsck(d.machine.disk(), true), HasSubstr("the copy of the super block is damaged"));
    d.live([&](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), plain);
        blob_ref b = co_await s->open(d.old);
        co_await s->set_xattr(b, "name", "x");
        b.close();
        co_await s->unload();
    });
    expect_same(d.machine.disk());
    EXPECT_EQ(fsck(d.machine.disk(), true), "");
}

TEST(super_copy, that_cannot_be_read_degrades_nothing) {
    for (bool unload : {true, false}) {
        doubtful d;
        d.allocate_more(unload);
        auto super = *format::decode_super(page_at(d.machine.disk(), 0), shape_of(d.machine.disk()));
        d.cannot_read(d.g.offset_of_md_page(super.extension->copy_page));
        d.live([&](life& l) -> task<> {
            auto s = co_await store::load(l.devices, l.base(), plain);
            EXPECT_EQ(s->trouble(), "");
            EXPECT_GT(s->free_clusters(), 0u);
            co_await d.expect_contents(l, *s, d.young, 'y');
            co_await s->unload();
        });
    }
}

TEST(super_copy, that_cannot_be_written_costs_only_itself) {
    doubtful d;
    d.live([&](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), plain);
        const uint64_t at = place_of_copy(*s);
        d.machine.disk().inject(
            {.kind = env::file_op_kind::write, .first = at, .end = at + 4096, .times = uint64_t{1} << 40});
        co_await s->set_super_blob(d.old);
        d.machine.disk().clear_faults();
        co_await s->unload();
    });
    expect_same(d.machine.disk());
    EXPECT_EQ(fsck(d.machine.disk(), true), "");
}

// Wherever the power goes: what the super block says, its copy says, or the super block is whole while the copy is not.
TEST(super_copy, one_of_both_is_whole_wherever_the_power_goes) {
    for (bool cached : {false, true}) {
        for (auto how : {cut_outcome::lose_all, cut_outcome::keep_all, cut_outcome::tear_all, cut_outcome::drawn}) {
            bool cut = true;
            for (uint64_t n = 0; cut; ++n) {
                SCOPED_TRACE("I/O " + std::to_string(n));
                sim_machine m(n + 1, 4 << 20, {.volatile_cache = cached});
                blob_id id = 0;
                live(m, [&](life& l) -> task<> {
                    auto s = co_await store::init(l.devices, l.base(), small);
                    id = co_await s->create({.clusters = 2});
                    const uint64_t first = m.disk().ops_issued();
                    m.disk().cut_power_at(first + n, how);
                    (void)co_await as_result(s->set_super_blob(id));
                    cut = m.disk().ops_issued() > first + n;
                    co_await s->abandon();
                });
                m.disk().cut_power(how);
                auto super = format::decode_super(page_at(m.disk(), 0), shape_of(m.disk()));
                ASSERT_TRUE(super) << super.error().message();
                const auto copy_page = page_at(m.disk(), super->layout.offset_of_md_page(super->extension->copy_page));
                auto copy = format::decode_super_copy(copy_page, shape_of(m.disk()));
                if (!copy) {
                    EXPECT_EQ(super->origin, format::super_origin::whole);
                    EXPECT_EQ(super->super_blob, format::no_blob);
                    continue;
                }
                if (super->super_blob == id) EXPECT_EQ(copy->super.super_blob, id);
                m.disk().poke(0, format::page_bytes{});
                EXPECT_THAT(repair(m.disk()), HasSubstr("the copy in page"));
                live(m, [&](life& l) -> task<> {
                    auto s = co_await store::load(l.devices, l.base(), plain);
                    expect_sound(*s);
                    EXPECT_NE(s->find(id), nullptr);
                    co_await s->unload();
                });
                if (testing::Test::HasFailure()) return;
            }
        }
    }
}

TEST(super_copy, goes_with_the_store) {
    sim_machine m(1, 4 << 20, {.volatile_cache = true});
    live(m, [&](life& l) -> task<> {
        auto s = co_await store::init(l.devices, l.base(), small);
        co_await s->abandon();
        co_await s->wipe();
    });
    EXPECT_THAT(repair(m.disk()), testing::Not(HasSubstr("copy in page")));
}

TEST(super_copy, a_store_with_few_metadata_pages_has_none) {
    sim_machine m(1, 4 << 20, {.volatile_cache = true});
    live(m, [&](life& l) -> task<> {
        auto s =
            co_await store::init(l.devices, l.base(), {.cluster_size = cluster, .md_page_count = 23, .trim = false});
        EXPECT_EQ(s->super().extension->copy_page, 0u);
        co_await s->create({.clusters = 2});
        expect_sound(*s);
        co_await s->unload();
    });
    EXPECT_EQ(fsck(m.disk(), true), "");
}

TEST(super_copy, whoever_cannot_load_is_told_of_fsck) {
    doubtful d;
    d.machine.disk().flip_bit(30, 1);
    d.machine.disk().flip_bit(50, 1);
    d.live([&](life& l) -> task<> {
        auto refused = co_await as_result(store::load(l.devices, l.base(), plain));
        EXPECT_EQ(refused.error().code(), errc::bad_sequence);
        EXPECT_THAT(refused.error().message(), HasSubstr("varve fsck --repair"));
    });
}

}  // namespace
}  // namespace varve::blob
