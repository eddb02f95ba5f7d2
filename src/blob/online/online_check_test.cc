#include "blob/online/online_check.h"

#include <gtest/gtest.h>

#include "blob/test_check.h"
#include "thread/awaits.h"
#include "thread/test_world.h"

namespace varve::blob {
namespace {

constexpr uint32_t cluster = 16 * 1024;
const init_options small{.cluster_size = cluster, .type = "TEST"};
constexpr uint64_t disk_bytes = 8 << 20;

#define CHECK_TEST(name)                                              \
    task<> name(life& l);                                             \
    TEST(online_check, name) {                                        \
        for (bool cached : {false, true}) {                           \
            sim_machine m(1, disk_bytes, {.volatile_cache = cached}); \
            auto outcome = m.live([](life& l) { return name(l); });   \
            EXPECT_TRUE(outcome) << outcome.error().message();        \
        }                                                             \
    }                                                                 \
    task<> name(life& l)

task<std::string> findings(store& s) {
    jobs::job j;
    std::string text;
    for (const check::finding& f : co_await online_check(s, j).run()) {
        text += fmt::format("{}{} ", f.how_bad == check::severity::note ? "note:" : "", check::name_of(f.what));
    }
    co_return text;
}

// A thin blob, its snapshot, and a thick one.
task<std::unique_ptr<store>> make_store(life& l) {
    auto s = co_await store::init(l.devices, l.base(), small);
    blob_id id = co_await s->create({.clusters = 200, .thin = true});
    co_await write_pattern(l, *s, id, 0, 400, 'a');
    blob_ref b = co_await s->open(id);
    co_await s->snapshot(b, {});
    b.close();
    co_await write_pattern(l, *s, id, 64, 100, 'b');
    co_await s->create({.clusters = 3});
    co_return s;
}

// As somebody who writes to the device behind the store's back.
task<> damage(life& l, store& s, uint32_t page, std::size_t at) {
    disk raw(l.devices, l.base());
    env::buffer memory = co_await raw.memory(4096);
    const uint64_t offset = s.geometry().offset_of_md_page(page);
    co_await raw.read(offset, memory.bytes());
    memory.bytes()[at] ^= std::byte{1};
    co_await raw.write(offset, memory.bytes());
}

CHECK_TEST(finds_nothing_in_a_sound_store) {
    auto s = co_await make_store(l);
    EXPECT_EQ(co_await findings(*s), "");
    co_await s->unload();
}

task<> keep_writing(life& l, store& s, blob_id id, bool& stop) {
    auto d = co_await l.serve(s, id);
    {
        auto io = d.channel();
        data_bytes data(4096, std::byte{'w'});
        for (uint64_t i = 0; i < 180 && !stop; ++i) co_await bdev::write(*io, i * 32 + 3, data);
        co_await bdev::flush(*io);
    }
    d.close();
    co_await l.stop_serving(id);
}

CHECK_TEST(finds_nothing_while_the_store_works) {
    auto s = co_await make_store(l);
    bool stop = false;
    crew busy;
    busy.start(keep_writing(l, *s, s->blobs()[0], stop));
    auto comes_and_goes = [](store& of, bool& enough) -> task<> {
        while (!enough) {
            blob_id id = co_await of.create({.clusters = 2, .thin = false});
            blob_ref b = co_await of.open(id);
            co_await of.resize(b, 5);
            b.close();
            co_await of.remove(id);
        }
    };
    busy.start(comes_and_goes(*s, stop));
    for (int i = 0; i < 20; ++i) {
        std::string text = co_await findings(*s);
        EXPECT_EQ(text.find("shared"), std::string::npos) << text;
        EXPECT_EQ(text.find("bad"), std::string::npos) << text;
        EXPECT_EQ(text.find("unmarked"), std::string::npos) << text;
        co_await sleep(1 * milliseconds);
    }
    stop = true;
    co_await busy.done();
    co_await s->settle();
    EXPECT_EQ(co_await findings(*s), "");
    co_await s->unload();
}

CHECK_TEST(finds_pages_that_rot) {
    auto s = co_await make_store(l);
    const blob_state& thin = *s->find(s->blobs()[0]);
    co_await damage(l, *s, thin.extent_pages[0], 200);
    EXPECT_EQ(co_await findings(*s), "bad_page ");
    co_await damage(l, *s, thin.extent_pages[0], 200);  // undone
    EXPECT_EQ(co_await findings(*s), "");
    co_await damage(l, *s, thin.record.pages[0], 100);
    EXPECT_EQ(co_await findings(*s), "bad_page ");
    co_await damage(l, *s, thin.record.pages[0], 100);
    co_await s->unload();
}

CHECK_TEST(finds_pages_that_are_whole_and_old) {
    auto s = co_await make_store(l);
    blob_ref b = co_await s->open(s->blobs()[0]);
    disk raw(l.devices, l.base());
    env::buffer memory = co_await raw.memory(4096);
    const uint64_t offset = s->geometry().offset_of_md_page(b.state().record.pages[0]);
    jobs::job j;
    co_await s->set_xattr(b, "name", "first");
    co_await online_check(*s, j).run();  // it is in place now
    co_await raw.read(offset, memory.bytes());
    co_await s->set_xattr(b, "name", "second");
    EXPECT_EQ(co_await findings(*s), "");
    co_await raw.write(offset, memory.bytes());
    EXPECT_EQ(co_await findings(*s), "bad_page ");
    co_await s->set_xattr(b, "name", "third");
    EXPECT_EQ(co_await findings(*s), "");
    b.close();
    co_await s->unload();
}

CHECK_TEST(finds_clusters_with_two_owners_and_with_none) {
    auto s = co_await make_store(l);
    co_await s->settle();
    blob_state& thick = blob_ref(co_await s->open(s->blobs()[2])).state();
    const uint32_t own = thick.current->at(0), other = s->find(s->blobs()[0])->current->at(2);
    EXPECT_NE(other, no_cluster);
    thick.current->put(0, other);
    std::string text = co_await findings(*s);
    EXPECT_NE(text.find("shared_clusters"), std::string::npos) << text;
    EXPECT_NE(text.find("note:leaked"), std::string::npos) << text;
    thick.current->put(0, own);
    EXPECT_EQ(co_await findings(*s), "");
    co_await s->unload();
}

// With the flag and the reason that fsck puts into it: what fsck calls no error is none here, either.
CHECK_TEST(calls_no_error_what_fsck_set_aside) {
    auto s = co_await make_store(l);
    const blob_id id = s->blobs()[2];
    format::blob_record r = s->find(id)->record;
    co_await s->unload();
    r.flags.invalid |= format::invalid_flag::set_aside;
    r.internal_xattrs.set(format::xattr_set_aside, "it was damaged");
    {
        disk raw(l.devices, l.base());
        env::buffer memory = co_await raw.memory(4096);
        std::ranges::copy((*format::encode_chain(r))[0], memory.bytes().begin());
        co_await raw.write(s->geometry().offset_of_md_page(r.pages[0]), memory.bytes());
    }
    s = co_await store::load(l.devices, l.base(), {.type = "TEST"});
    EXPECT_EQ(co_await findings(*s), "note:set_aside ");
    co_await s->unload();
}

// A thin blob with clusters in forty extent pages.
task<blob_id> make_large(life& l, store& s) {
    blob_id id = co_await s.create({.clusters = 40 * 512, .thin = true});
    for (uint64_t i = 0; i < 40; ++i) co_await write_pattern(l, s, id, i * 512 * (cluster / 512), 1, 'l');
    co_await s.settle();
    co_return id;
}
void make_reads_slow(sim_machine& m, const store& s) {
    m.disk().inject({.what = env::sim::disk_fault::effect::slow,
                     .kind = env::file_op_kind::read,
                     .first = s.geometry().offset_of_md_page(0),
                     .end = s.geometry().offset_of_cluster(s.geometry().first_data_cluster),
                     .times = uint64_t{1} << 40,
                     .delay = 20 * milliseconds});
}
task<> check_all(store& s, jobs::job& j, result<>& outcome, bool& over) {
    online_check check(s, j);
    auto found = co_await as_result(check.run());
    over = true;
    if (!found) {
        outcome = fail(std::move(found).error());
    } else {
        for (const auto& f : *found) EXPECT_EQ(f.how_bad, check::severity::note) << f.text;
    }
}

TEST(online_check, first_writes_wait_for_few_pages) {
    sim_machine m(1, disk_bytes, {.volatile_cache = false});
    auto outcome = m.live([&m](life& l) -> task<> {
        auto s = co_await store::init(l.devices, l.base(), small);
        const blob_id id = co_await make_large(l, *s);
        make_reads_slow(m, *s);
        jobs::job j;
        result<> checked;
        bool over = false;
        crew busy;
        busy.start(check_all(*s, j, checked, over));
        time_ns longest = 0;
        uint64_t i = 0;
        while (!over) {
            const time_ns begun = thread::thread::current()->now();
            co_await write_pattern(l, *s, id, (i++ % 40 * 512 + 1) * (cluster / 512), 1, 'f');
            longest = std::max(longest, thread::thread::current()->now() - begun);
            co_await sleep(5 * milliseconds);
        }
        co_await busy.done();
        EXPECT_LT(longest, 100 * milliseconds);
        EXPECT_TRUE(checked) << checked.error().message();
        m.disk().clear_faults();
        co_await s->unload();
    });
    EXPECT_TRUE(outcome) << outcome.error().message();
}

TEST(online_check, can_be_paused_and_cancelled_within_a_blob) {
    sim_machine m(1, disk_bytes, {.volatile_cache = false});
    auto outcome = m.live([&m](life& l) -> task<> {
        auto s = co_await store::init(l.devices, l.base(), small);
        const blob_id id = co_await make_large(l, *s);
        make_reads_slow(m, *s);
        jobs::job j;
        result<> checked;
        bool over = false;
        crew busy;
        busy.start(check_all(*s, j, checked, over));
        co_await sleep(50 * milliseconds);  // within its extent pages
        j.pause();
        co_await sleep(1 * seconds);
        EXPECT_FALSE(over);
        co_await write_pattern(l, *s, id, 7 * (cluster / 512), 1, 'f');  // nobody waits for one that is paused
        j.cancel();
        co_await busy.done();
        EXPECT_EQ(checked.error().code(), errc::cancelled);
        m.disk().clear_faults();
        co_await s->unload();
    });
    EXPECT_TRUE(outcome) << outcome.error().message();
}

CHECK_TEST(can_be_cancelled) {
    auto s = co_await make_store(l);
    jobs::job j;
    j.cancel();
    auto outcome = co_await as_result(online_check(*s, j).run());
    EXPECT_EQ(outcome.error().code(), errc::cancelled);
    co_await s->unload();
}

}  // namespace
}  // namespace varve::blob
