// A flush that fails may lose what was written before it, although the next one succeeds. What was committed is there
// all the same, and nothing is committed that may be lost.
#include <gtest/gtest.h>

#include "blob/test_check.h"
#include "blob/test_store.h"
#include "thread/awaits.h"

namespace varve::blob {
namespace {

constexpr uint32_t cluster = 8 * 1024;
const init_options small{.cluster_size = cluster, .md_page_count = 120, .trim = false};
const env::sim::disk_options forgetful{.volatile_cache = true, .failed_flush_forgets = true};

void fail_a_flush(env::sim::disk& d, time_ns after = 0) {
    if (after != 0) {
        d.inject({.what = env::sim::disk_fault::effect::slow, .kind = env::file_op_kind::flush, .delay = after});
    }
    d.inject({.kind = env::file_op_kind::flush});
}

task<> rename(store& s, blob_id id, std::string name) {
    blob_ref b = co_await s.open(id);
    co_await s.set_xattr(b, "name", std::move(name));
}

// What a life does, then the power goes; the second life finds the names.
template <class Body>
std::string names_after(Body body) {
    sim_machine m(1, 2 << 20, forgetful);
    auto outcome = m.live([&](life& l) -> task<> {
        auto s = co_await store::init(l.devices, l.base(), small);
        for (const char* name : {"a", "b"}) co_await s->create({.clusters = 2, .xattrs = {{"name", name}}});
        co_await s->settle();
        co_await body(m.disk(), l, *s);
        co_await s->settle();
        expect_sound(*s);
        co_await s->abandon();
    });
    EXPECT_TRUE(outcome) << outcome.error().message();
    m.disk().cut_power(env::sim::cut_outcome::lose_all);
    std::string names;
    outcome = m.live([&](life& l) -> task<> {
        auto s = co_await store::load(l.devices, l.base(), {.trim = false});
        expect_sound(*s);
        for (blob_id id : s->blobs()) names += s->find(id)->record.xattrs.find("name")->substr(0, 9) + " ";
        co_await s->unload();
    });
    EXPECT_TRUE(outcome) << outcome.error().message();
    EXPECT_EQ(fsck(m.disk(), true), "");
    return names;
}

TEST(store_commit, is_not_lost_when_the_flush_after_it_fails) {
    EXPECT_EQ(names_after([](env::sim::disk& d, life&, store& s) -> task<> {
                  const blob_id a = s.blobs()[0], b = s.blobs()[1];
                  co_await rename(s, a, "A");
                  co_await s.settle();
                  fail_a_flush(d);
                  EXPECT_FALSE(co_await as_result(rename(s, b, "lost")));
                  for (const char* name : {"B", "C", "D"}) co_await rename(s, b, name);
              }),
              "A D ");
}

TEST(store_commit, is_not_lost_when_a_hosts_flush_fails) {
    EXPECT_EQ(names_after([](env::sim::disk& d, life& l, store& s) -> task<> {
                  const blob_id a = s.blobs()[0], b = s.blobs()[1];
                  co_await rename(s, a, "A");
                  co_await s.settle();
                  fail_a_flush(d);
                  EXPECT_FALSE(co_await as_result(write_pattern(l, s, b, 0, 8, 'x')));
                  for (const char* name : {"B", "C", "D"}) co_await rename(s, b, name);
              }),
              "A D ");
}

TEST(store_commit, does_not_name_pages_that_a_failed_flush_may_have_lost) {
    EXPECT_EQ(names_after([](env::sim::disk& d, life&, store& s) -> task<> {
                  fail_a_flush(d, 1 * seconds);
                  result<> first, second;
                  crew both;
                  auto keep = [](task<> t, result<>& out) -> task<> { out = co_await as_result(std::move(t)); };
                  both.start(keep(rename(s, s.blobs()[0], "A"), first));
                  co_await sleep(100 * milliseconds);
                  blob_ref b = co_await s.open(s.blobs()[1]);
                  std::vector<format::xattr> many{{"name", "B"}};  // a chain of several pages
                  for (const char* x : {"x", "y", "z"}) many.push_back({x, std::string(3000, 'x')});
                  both.start(keep(s.change_xattrs(b, many), second));
                  co_await both.done();
                  EXPECT_FALSE(first);
                  EXPECT_FALSE(second);
              }),
              "a b ");
}

// The images are written while a host flushes, and are gone when that fails; the flush that was to keep them succeeds.
TEST(store_commit, is_none_when_a_hosts_flush_loses_the_images) {
    bool renamed = true;
    const std::string names = names_after([&](env::sim::disk& d, life& l, store& s) -> task<> {
        const auto area = s.super().extension->double_write;
        using effect = env::sim::disk_fault::effect;
        d.inject({.what = effect::slow,
                  .kind = env::file_op_kind::write,
                  .first = s.geometry().offset_of_md_page(area.first),
                  .end = s.geometry().offset_of_md_page(area.first + area.page_count()),
                  .delay = 1 * seconds});
        crew both;
        auto keep = [](task<> t, bool& done) -> task<> { done = (co_await as_result(std::move(t))).has_value(); };
        both.start(keep(rename(s, s.blobs()[0], "A"), renamed));
        co_await sleep(100 * milliseconds);
        fail_a_flush(d, 2 * seconds);
        bool flushed = true;
        both.start(keep(write_pattern(l, s, s.blobs()[1], 0, 8, 'x'), flushed));
        co_await both.done();
        EXPECT_FALSE(flushed);
    });
    EXPECT_EQ(names, renamed ? "A b " : "a b ");
}

}  // namespace
}  // namespace varve::blob
