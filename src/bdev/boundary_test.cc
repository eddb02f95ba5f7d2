// Requests and the boundaries of a device: what lies inside one goes straight through, what crosses one is taken apart,
// whatever the operation and whether the device does it itself or not.
#include <gtest/gtest.h>

#include "bdev/channel.h"
#include "bdev/test_device.h"
#include "thread/awaits.h"

namespace varve::bdev {
namespace {

constexpr uint32_t block = 512;

task<status> answer_to(channel& c, op what, uint64_t lba, uint32_t blocks, std::span<std::byte> memory = {},
                       uint64_t source = 0) {
    pending r(what, lba, blocks);
    r.data(memory);
    if (what == op::copy) r.source_lba = source;
    r.go(c);
    co_await r.over.wait();
    co_return r.status;
}

properties with_boundary(op_set offered, uint32_t boundary, uint32_t max_blocks) {
    return {.name = "ram",
            .num_blocks = 128,
            .offered = offered,
            .optimal_io_boundary = boundary,
            .split_on_boundary = true,
            .max_blocks = max_blocks};
}

// Unoptimised, == of vectors takes a hundred times as long.
bool same(const std::vector<std::byte>& a, const std::vector<std::byte>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size()) == 0;
}

// Every place and length around two boundaries. The device checks that no request it is given crosses one.
task<> every_range(bdev_system& s, properties how) {
    ram_device* d = co_await s.add(std::move(how));
    descriptor opened = co_await s.open(*d);
    channel_ref c = opened.channel();
    const auto before = pattern(128 * block, 1);
    for (uint64_t lba = 0; lba <= 17; ++lba) {
        for (uint32_t blocks = 1; blocks <= 34; ++blocks) {
            d->blocks = before;
            auto memory = pattern(std::size_t{blocks} * block, 2 + blocks);
            auto expected = before;
            std::byte* at = expected.data() + lba * block;
            EXPECT_EQ(co_await answer_to(*c, op::read, lba, blocks, memory), status::ok);
            EXPECT_EQ(std::memcmp(memory.data(), at, memory.size()), 0) << lba << "+" << blocks;
            EXPECT_EQ(co_await answer_to(*c, op::compare, lba, blocks, memory), status::ok);
            memory.back() ^= std::byte{1};
            EXPECT_EQ(co_await answer_to(*c, op::compare, lba, blocks, memory), status::compare_failed);
            EXPECT_EQ(co_await answer_to(*c, op::write, lba, blocks, memory), status::ok);
            std::memcpy(at, memory.data(), memory.size());
            EXPECT_TRUE(same(d->blocks, expected)) << "write " << lba << "+" << blocks;
            for (uint64_t source : {uint64_t{40}, lba + 3}) {
                EXPECT_EQ(co_await answer_to(*c, op::copy, lba, blocks, {}, source), status::ok);
                std::memmove(at, expected.data() + source * block, memory.size());
                EXPECT_TRUE(same(d->blocks, expected)) << "copy " << source << " to " << lba << "+" << blocks;
            }
            for (op o : {op::write_zeroes, op::unmap}) {
                d->blocks = before;
                expected = before;
                EXPECT_EQ(co_await answer_to(*c, o, lba, blocks), status::ok);
                std::memset(expected.data() + lba * block, 0, memory.size());
                EXPECT_TRUE(same(d->blocks, expected)) << name_of(o) << " " << lba << "+" << blocks;
            }
        }
    }
    EXPECT_EQ(c->in_flight(), 0u);
}

constexpr op_set reads_and_writes = op_bit(op::read) | op_bit(op::write);
constexpr op_set as_a_blob = reads_and_writes | op_bit(op::unmap) | op_bit(op::write_zeroes) | op_bit(op::flush);
constexpr op_set everything = as_a_blob | op_bit(op::compare);

TEST(boundary, every_operation_is_split_and_nothing_else_touched) {
    for (op_set offered : {reads_and_writes, as_a_blob, everything}) {
        for (auto [boundary, most] : {std::pair{8u, 0u}, {16u, 5u}, {1u, 0u}, {8u, 8u}}) {
            SCOPED_TRACE(std::to_string(offered) + ", " + std::to_string(boundary) + ", " + std::to_string(most));
            bdev_system s(thread::world_kind::epoll);
            s.run(every_range(s, with_boundary(offered, boundary, most)));
        }
    }
}

// Takes note of what it is given.
struct noted {
    uint64_t lba;
    uint32_t blocks;
    bool operator==(const noted&) const = default;
};
class vast_channel final : public channel {
  public:
    explicit vast_channel(std::vector<noted>& notes) : _notes(notes) {}

  private:
    void do_submit(io& r) noexcept override {
        _notes.push_back({r.lba, r.blocks});
        complete_later(r, status::ok);
    }
    std::vector<noted>& _notes;
};
class vast_device final : public device {
  public:
    explicit vast_device(properties p) : device(std::move(p)) {}
    std::string_view module_name() const noexcept override { return "vast"; }
    std::unique_ptr<channel> open_channel() override { return std::make_unique<vast_channel>(notes); }
    std::vector<noted> notes;
};

task<std::vector<noted>> parts_of(bdev_system& s, properties how, op what, uint64_t lba, uint32_t blocks,
                                  status expected) {
    auto made = std::make_unique<vast_device>(std::move(how));
    vast_device* d = made.get();
    co_await s.devices.add(std::move(made));
    std::vector<noted> notes;
    {
        descriptor opened = *s.open(*d);
        channel_ref c = opened.channel();
        EXPECT_EQ(co_await answer_to(*c, what, lba, blocks), expected) << lba << "+" << blocks;
        notes = d->notes;
    }
    co_await s.devices.remove("vast");
    co_return notes;
}

// More blocks than 32 bits can say, and ranges where sums of 32 bits would be wrong.
task<> at_the_edges(bdev_system& s) {
    constexpr uint64_t whole = uint64_t{1} << 40, half = uint64_t{1} << 31;
    const auto bounded = [](uint32_t boundary) {
        return properties{.name = "vast",
                          .num_blocks = whole,
                          .offered = as_a_blob,
                          .optimal_io_boundary = boundary,
                          .split_on_boundary = boundary != 0};
    };
    using list = std::vector<noted>;
    for (uint64_t at : {uint64_t{0}, uint64_t{5}, half - 1, half, 2 * half - 1, 2 * half, whole - 1, whole}) {
        EXPECT_EQ(co_await parts_of(s, bounded(0), op::write_zeroes, at, 0, status::invalid), list());
        EXPECT_EQ(co_await parts_of(s, bounded(8), op::write_zeroes, at, 0, status::invalid), list());
    }
    EXPECT_EQ(co_await parts_of(s, bounded(0), op::unmap, half - 1, 2, status::ok), list({{half - 1, 2}}));
    EXPECT_EQ(co_await parts_of(s, bounded(0), op::unmap, 7, UINT32_MAX, status::ok), list({{7, UINT32_MAX}}));
    EXPECT_EQ(co_await parts_of(s, bounded(0), op::unmap, whole - 1, 1, status::ok), list({{whole - 1, 1}}));
    EXPECT_EQ(co_await parts_of(s, bounded(0), op::unmap, whole - 1, 2, status::out_of_range), list());
    EXPECT_EQ(co_await parts_of(s, bounded(0), op::unmap, UINT64_MAX, 1, status::out_of_range), list());
    EXPECT_EQ(co_await parts_of(s, bounded(8), op::unmap, UINT64_MAX - 7, 8, status::out_of_range), list());
    EXPECT_EQ(co_await parts_of(s, bounded(8), op::unmap, 2 * half - 8, 8, status::ok), list({{2 * half - 8, 8}}));
    EXPECT_EQ(co_await parts_of(s, bounded(8), op::unmap, 2 * half - 7, 8, status::ok),
              list({{2 * half - 7, 7}, {2 * half, 1}}));
    constexpr uint32_t most = uint32_t{1} << 31;
    EXPECT_EQ(co_await parts_of(s, bounded(most), op::unmap, 3, UINT32_MAX, status::ok),
              list({{3, most - 3}, {most, most}, {2 * half, 2}}));
}

task<> zeroing_in_one_piece(bdev_system& s) {
    properties how{.name = "vast",
                   .num_blocks = 1000,
                   .offered = as_a_blob,
                   .optimal_io_boundary = 8,
                   .split_on_boundary = true,
                   .zeroing_crosses_boundary = true};
    using list = std::vector<noted>;
    for (op o : {op::unmap, op::write_zeroes}) {
        EXPECT_EQ(co_await parts_of(s, how, o, 3, 990, status::ok), list({{3, 990}}));
    }
    how.max_unmap_blocks = 500;
    EXPECT_EQ(co_await parts_of(s, how, op::unmap, 3, 990, status::ok), list({{3, 500}, {503, 490}}));
    EXPECT_EQ(co_await parts_of(s, how, op::flush, 0, 0, status::ok), list({{0, 0}}));
}
TEST(boundary, zeroing_may_cross_it) {
    bdev_system s(thread::world_kind::epoll);
    s.run(zeroing_in_one_piece(s));
}

TEST(boundary, devices_with_more_blocks_than_32_bits_can_count) {
    bdev_system s(thread::world_kind::epoll);
    s.run(at_the_edges(s));
}

}  // namespace
}  // namespace varve::bdev
