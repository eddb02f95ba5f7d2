#include "modules/malloc.h"

#include "bdev/awaits.h"
#include "bdev/test_module.h"

namespace varve::modules {
namespace {

using namespace bdev;

class malloc_test : public thread::in_every_world {};
#define MALLOC_TEST(name) MODULE_TEST(TEST_P, malloc_test, name, make_malloc())

MALLOC_TEST(keeps_what_is_written) {
    EXPECT_EQ(co_await s.call("bdev_malloc_create", R"({"num_blocks": 64, "block_size": 512})"),
              json::value("Malloc0"));
    EXPECT_EQ(co_await s.call("bdev_malloc_create", R"({"num_blocks": 64, "block_size": 512})"),
              json::value("Malloc1"));
    descriptor opened = co_await s.open("Malloc0");
    channel_ref c = opened.channel();
    auto out = pattern(512 * 5, 1);
    co_await write(*c, 3, out);
    std::vector<std::byte> in(512 * 5);
    co_await read(*c, 3, in);
    EXPECT_EQ(in, out);
    co_await compare(*c, 3, out);
    co_await copy(*c, 3, 40, 5);
    co_await compare(*c, 40, out);
    co_await unmap(*c, 41, 1);
    co_await write_zeroes(*c, 43, 1);
    co_await read(*c, 40, in);
    std::vector<std::byte> expected = out;
    std::fill_n(expected.begin() + 512, 512, std::byte{});
    std::fill_n(expected.begin() + 3 * 512, 512, std::byte{});
    EXPECT_EQ(in, expected);
    EXPECT_EQ((co_await as_result(compare(*c, 40, out))).error().code(), errc::bad_sequence);
}

// Data in several pieces, and metadata in a buffer of its own.
MALLOC_TEST(scatters_and_keeps_metadata) {
    co_await s.call("bdev_malloc_create", R"({"name": "m", "num_blocks": 8, "block_size": 512, "md_size": 8})");
    descriptor opened = co_await s.open("m");
    channel_ref c = opened.channel();
    auto out = pattern(1024, 1), metadata = pattern(16, 2);
    iovec pieces[] = {{out.data(), 100}, {out.data() + 100, 600}, {out.data() + 700, 324}};
    pending w(op::write, 2, 2);
    w.iov = pieces;
    w.iov_count = 3;
    w.metadata = metadata.data();
    w.go(*c);
    co_await w.over.wait();
    EXPECT_EQ(w.status, status::ok);
    std::vector<std::byte> in(1024), in_metadata(16);
    for (op what : {op::read, op::compare}) {
        pending r(what, 2, 2);
        r.data(in);
        r.metadata = in_metadata.data();
        r.go(*c);
        co_await r.over.wait();
        EXPECT_EQ(r.status, status::ok);
        EXPECT_EQ(in, out);
        EXPECT_EQ(in_metadata, metadata);
    }
    in_metadata[9] ^= std::byte{1};
    pending r(op::compare, 2, 2);
    r.data(in);
    r.metadata = in_metadata.data();
    r.go(*c);
    co_await r.over.wait();
    EXPECT_EQ(r.status, status::compare_failed);
}

// What takes long is done piece by piece: others have their turns meanwhile, and it can be recalled.
MALLOC_TEST(clears_much_piece_by_piece) {
    constexpr uint32_t mib = (1 << 20) / 512, large = 9 * mib + 3;
    co_await s.call("bdev_malloc_create", R"({"name": "m", "num_blocks": 40960, "block_size": 512, "md_size": 8})");
    descriptor opened = co_await s.open("m");
    channel_ref c = opened.channel();
    auto block = pattern(512, 1);
    std::vector<std::byte> in(512);
    for (uint64_t lba : {uint64_t{0}, uint64_t{1}, uint64_t{large}, uint64_t{large} + 1})
        co_await write(*c, lba, block);
    for (op what : {op::unmap, op::write_zeroes}) {
        pending first(what, 1, large), second(what, 20 * mib - 5 * mib, 4 * mib), last(what, 1, large);
        for (pending* r : {&first, &second, &last}) r->go(*c);
        for (int i = 0; i < 5; ++i) co_await read(*c, 0, in);
        EXPECT_EQ(in, block);
        EXPECT_FALSE(first.over.is_set());
        EXPECT_TRUE(c->abort(second));
        for (pending* r : {&first, &second, &last}) co_await r->over.wait();
        EXPECT_EQ(first.status, status::ok);
        EXPECT_EQ(second.status, status::aborted);
        EXPECT_EQ(last.status, status::ok);
        for (uint64_t lba : {uint64_t{1}, uint64_t{large}}) {
            co_await read(*c, lba, in);
            EXPECT_EQ(in, std::vector<std::byte>(512)) << lba;
        }
        for (uint64_t lba : {uint64_t{0}, uint64_t{large} + 1}) {
            co_await read(*c, lba, in);
            EXPECT_EQ(in, block) << lba;
        }
        co_await write(*c, large, block);
    }
}

MALLOC_TEST(refuses) {
    for (const char* params : {R"({"num_blocks": 0, "block_size": 512})", R"({"num_blocks": 8, "block_size": 511})",
                               R"({"num_blocks": 8, "block_size": 512, "physical_block_size": 1000})",
                               R"({"num_blocks": 8, "block_size": 512, "optimal_io_boundary": 3})",
                               R"({"num_blocks": 8, "block_size": 512, "dif_type": 1})"}) {
        EXPECT_EQ(co_await s.code("bdev_malloc_create", params), -22) << params;
    }
    EXPECT_EQ(co_await s.code("bdev_malloc_create", R"({"num_blocks": 72057594037927936, "block_size": 4096})"), -12);
    EXPECT_EQ(co_await s.code("bdev_malloc_create", R"({"num_blocks": 8, "block_size": 512, "md_size": 7})"), -32602);
    EXPECT_TRUE(s.bdevs.devices.devices().empty());
}

MALLOC_TEST(what_is_saved_makes_the_same_again) {
    co_await s.call("bdev_malloc_create", R"({"num_blocks": 8, "block_size": 512, "md_size": 16, "md_interleave": true,
        "optimal_io_boundary": 4})");
    std::string lines = s.saved();
    co_await s.call("bdev_malloc_delete", R"({"name": "Malloc0"})");
    co_await s.load(lines);
    EXPECT_EQ(s.saved(), lines);
    EXPECT_EQ(s.find("Malloc0")->block_size(), 528u);
}

INSTANTIATE_TEST_SUITE_P(worlds, malloc_test, thread::every_world(), thread::world_name);

}  // namespace
}  // namespace varve::modules
