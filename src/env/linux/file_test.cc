// Files, for each kind of loop: what is written is read, zeroed, unmapped, flushed; ends and refusals are errors.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "env/linux/test_loop.h"

namespace varve::env::os_linux {
namespace {

// One operation with its memory.
struct file_work : file_op {
    file_work(env::file& on, file_op_kind what) {
        target = &on;
        kind = what;
        done = [](file_op& op) noexcept { static_cast<file_work&>(op).finished = true; };
    }
    // Cuts the memory into pieces of the sizes given; the last takes the rest.
    void over(std::span<std::byte> memory, uint64_t at, std::initializer_list<std::size_t> cuts = {}) {
        for (std::size_t cut : cuts) {
            vectors.push_back({memory.data(), cut});
            memory = memory.subspan(cut);
        }
        vectors.push_back({memory.data(), memory.size()});
        iov = vectors.data();
        iov_count = static_cast<uint32_t>(vectors.size());
        offset = at;
        length = 0;
        for (const iovec& each : vectors) length += each.iov_len;
    }
    void over_range(uint64_t at, uint64_t bytes) {
        offset = at;
        length = bytes;
    }
    std::vector<iovec> vectors;
    bool finished = false;
};

class files : public loop_test {
  protected:
    std::unique_ptr<env::file> open(const std::string& name, open_options how) {
        auto made = world->open(folder / name, how);
        EXPECT_TRUE(made) << made.error().message();
        return std::move(*made);
    }
    buffer memory(std::size_t size, int seed = 0) {
        auto made = world->mem().allocate(size);
        EXPECT_TRUE(made);
        for (std::size_t i = 0; seed != 0 && i < size; ++i) {
            made->data()[i] = static_cast<std::byte>(i * 7 + (i >> 9) + static_cast<std::size_t>(seed));
        }
        return std::move(*made);
    }
    int64_t run(file_work& op) {
        op.finished = false;
        loop->submit(op);
        EXPECT_FALSE(op.finished);  // never from inside submit
        EXPECT_TRUE(until([&] { return op.finished; }));
        return op.result;
    }
    int64_t transfer(env::file& on, file_op_kind what, std::span<std::byte> bytes, uint64_t at,
                     std::initializer_list<std::size_t> cuts = {}) {
        file_work op(on, what);
        op.over(bytes, at, cuts);
        return run(op);
    }
    int64_t write(env::file& on, buffer& from, uint64_t at) {
        return transfer(on, file_op_kind::write, from.bytes(), at);
    }
    int64_t read(env::file& on, buffer& into, uint64_t at) {
        return transfer(on, file_op_kind::read, into.bytes(), at);
    }
    int64_t range(env::file& on, file_op_kind what, uint64_t at, uint64_t bytes) {
        file_work op(on, what);
        op.over_range(at, bytes);
        return run(op);
    }
    static bool same(buffer& a, buffer& b) { return std::memcmp(a.data(), b.data(), a.size()) == 0; }

    scratch_folder folder;
    static constexpr std::size_t mib = 1 << 20;
    static constexpr open_options fresh{.create = true, .create_size = 8 * mib};
};
INSTANTIATE_TEST_SUITE_P(loops, files, testing::ValuesIn(flavours), flavour_name);

TEST_P(files, what_is_written_is_read_in_pieces_and_as_a_whole) {
    for (bool direct : {true, false}) {
        auto file = open(direct ? "direct" : "buffered", {.direct = direct, .create = true, .create_size = 8 * mib});
        EXPECT_EQ(file->size(), 8 * mib);
        if (!direct) EXPECT_EQ(file->alignment(), 1U);
        buffer out = memory(mib, 1), in = memory(mib);
        EXPECT_EQ(transfer(*file, file_op_kind::write, out.bytes(), 3 * mib, {4096, 8192, 512 * 1024}), mib);
        EXPECT_EQ(range(*file, file_op_kind::flush, 0, 0), 0);
        EXPECT_EQ(read(*file, in, 3 * mib), mib);
        EXPECT_TRUE(same(in, out));
        buffer again = memory(mib);
        EXPECT_EQ(transfer(*file, file_op_kind::read, again.bytes(), 3 * mib, {65536, 4096}), mib);
        EXPECT_TRUE(same(again, out));
        EXPECT_EQ(transfer(*file, file_op_kind::read, {}, 0), 0);
    }
}

TEST_P(files, more_iovecs_than_the_kernel_takes_at_once) {
    auto file = open("file", {.direct = false, .create = true, .create_size = 8 * mib});
    buffer out = memory(mib, 3), in = memory(mib);
    for (auto what : {file_op_kind::write, file_op_kind::read}) {
        buffer& bytes = what == file_op_kind::write ? out : in;
        file_work op(*file, what);
        for (std::size_t at = 0; at < mib;) {
            std::size_t piece = std::min<std::size_t>(at % 511, mib - at);
            op.vectors.push_back({bytes.data() + at, piece});
            at += piece;
            if (piece == 0) op.vectors.push_back({bytes.data() + at++, 1});
        }
        EXPECT_GT(op.vectors.size(), 3000U);
        op.iov = op.vectors.data();
        op.iov_count = static_cast<uint32_t>(op.vectors.size());
        op.offset = 1;
        op.length = mib;
        EXPECT_EQ(run(op), mib);
        EXPECT_EQ(op.iov, op.vectors.data());
    }
    EXPECT_TRUE(same(in, out));
}

TEST_P(files, thousands_at_once) {
    auto file = open("file", fresh);
    buffer bytes = memory(2048 * 4096, 5), back = memory(2048 * 4096);
    for (auto what : {file_op_kind::write, file_op_kind::read}) {
        std::deque<file_work> ops;
        buffer& from = what == file_op_kind::write ? bytes : back;
        for (std::size_t i = 0; i < 2048; ++i) {
            file_work& op = ops.emplace_back(*file, what);
            op.over(from.bytes().subspan(i * 4096, 4096), i * 4096);
            loop->submit(op);
        }
        ASSERT_TRUE(until([&] { return std::ranges::all_of(ops, [](file_work& op) { return op.finished; }); }));
        for (file_work& op : ops) ASSERT_EQ(op.result, 4096);
    }
    EXPECT_TRUE(same(bytes, back));
}

TEST_P(files, unmapped_and_zeroed_ranges_read_as_zeroes) {
    auto file = open("file", fresh);
    ASSERT_TRUE(file->can_unmap()) << "needs a scratch folder that punches holes";
    buffer full = memory(8 * mib, 9), zeroes = memory(mib), in = memory(mib, 1);
    ASSERT_EQ(write(*file, full, 0), 8 * mib);
    ASSERT_EQ(range(*file, file_op_kind::flush, 0, 0), 0);
    struct stat before = {}, after = {};
    ::stat(file->path().c_str(), &before);
    EXPECT_EQ(range(*file, file_op_kind::unmap, mib, mib), mib);
    EXPECT_EQ(range(*file, file_op_kind::write_zeroes, 4 * mib, mib), mib);
    EXPECT_EQ(range(*file, file_op_kind::unmap, 0, 0), 0);
    EXPECT_EQ(range(*file, file_op_kind::write_zeroes, 0, 0), 0);
    ::stat(file->path().c_str(), &after);
    EXPECT_LE(after.st_blocks + int64_t(mib / 512), before.st_blocks);
    EXPECT_EQ(file->size(), 8 * mib);
    for (uint64_t at : {mib, 4 * mib}) {
        ASSERT_EQ(read(*file, in, at), mib);
        EXPECT_TRUE(same(in, zeroes)) << at;
    }
    ASSERT_EQ(read(*file, in, 0), mib);
    EXPECT_EQ(std::memcmp(in.data(), full.data(), mib), 0);
    ASSERT_EQ(read(*file, in, 2 * mib), mib);
    EXPECT_EQ(std::memcmp(in.data(), full.data() + 2 * mib, mib), 0);
}

// tmpfs punches holes but refuses to zero ranges: they are written.
TEST_P(files, zeroes_are_written_where_ranges_are_refused) {
    std::string path = "/dev/shm/varve_test." + std::to_string(::getpid());
    auto opened = world->open(path, {.create = true, .create_size = 4 * mib});
    if (!opened) GTEST_SKIP() << opened.error().message();
    auto file = std::move(*opened);
    ::unlink(path.c_str());
    buffer full = memory(4 * mib, 9), in = memory(4 * mib);
    for (uint64_t length : {uint64_t(4096), uint64_t(3 * mib - 4096)}) {
        ASSERT_EQ(write(*file, full, 0), 4 * mib);
        EXPECT_EQ(range(*file, file_op_kind::write_zeroes, 4096, length), length);
        ASSERT_EQ(read(*file, in, 0), 4 * mib);
        EXPECT_EQ(std::memcmp(in.data(), full.data(), 4096), 0);
        for (uint64_t i = 4096; i < 4096 + length; ++i) ASSERT_EQ(in.data()[i], std::byte(0)) << i;
        EXPECT_EQ(std::memcmp(in.data() + 4096 + length, full.data() + 4096 + length, 4 * mib - 4096 - length), 0);
    }
}

TEST_P(files, behind_the_end_of_a_shrunk_file_is_an_error) {
    for (bool direct : {true, false}) {
        auto file = open(direct ? "direct" : "buffered", {.direct = direct, .create = true, .create_size = mib});
        buffer in = memory(64 << 10);
        for (off_t end : {off_t(32768), off_t(33000), off_t(0)}) {
            ASSERT_EQ(::truncate(file->path().c_str(), end), 0);
            EXPECT_EQ(read(*file, in, 0), -EIO) << end;
            EXPECT_EQ(read(*file, in, 512 << 10), -EIO) << end;
        }
    }
}

TEST_P(files, size_is_read_again_when_asked) {
    auto file = open("file", fresh);
    ASSERT_EQ(::truncate(file->path().c_str(), 16 * mib), 0);
    EXPECT_EQ(file->size(), 8 * mib);
    EXPECT_EQ(file->refresh().value_or(0), 16 * mib);
    EXPECT_EQ(file->size(), 16 * mib);
}

// Some file systems refuse it, some take the page cache's way; no other outcome.
TEST_P(files, misaligned_direct_transfer_is_refused_or_done) {
    auto file = open("file", fresh);
    if (file->alignment() == 1) GTEST_SKIP() << "no O_DIRECT in " << (folder / "");
    buffer out = memory(8192, 3), in = memory(8192);
    ASSERT_EQ(write(*file, out, 0), 8192);
    int64_t got = transfer(*file, file_op_kind::read, in.bytes().subspan(0, 4096), 100);
    if (got != -EINVAL) {
        EXPECT_EQ(got, 4096);
        EXPECT_EQ(std::memcmp(in.data(), out.data() + 100, 4096), 0);
    }
    EXPECT_EQ(transfer(*file, file_op_kind::read, in.bytes().subspan(0, 4096), 0), 4096);
}

TEST_P(files, refusals_name_the_path) {
    auto missing = world->open(folder / "missing", {});
    ASSERT_FALSE(missing);
    EXPECT_EQ(missing.error().code(), errc::not_found);
    EXPECT_EQ(missing.error().message(), "No such file or directory: " + (folder / "missing"));
    auto directory = world->open(folder / "", {.read_only = true});
    ASSERT_FALSE(directory);
    EXPECT_EQ(directory.error().code(), errc::invalid);
    auto device = world->open("/dev/null", {});
    ASSERT_FALSE(device);
    EXPECT_EQ(device.error().code(), errc::invalid);
}

TEST_P(files, read_only_file_is_not_written) {
    open("file", fresh).reset();
    auto file = open("file", {.read_only = true});
    EXPECT_TRUE(file->read_only());
    EXPECT_FALSE(file->can_unmap());
    buffer bytes = memory(4096);
    EXPECT_EQ(write(*file, bytes, 0), -EROFS);
    EXPECT_EQ(range(*file, file_op_kind::write_zeroes, 0, 4096), -EROFS);
    EXPECT_EQ(range(*file, file_op_kind::unmap, 0, 4096), -EROFS);
    EXPECT_EQ(read(*file, bytes, 0), 4096);
}

TEST_P(files, full_device_is_no_space) {
    // A file may not grow beyond the limit of its file system; ext4 stops at 16 TiB.
    auto file = open("file", fresh);
    buffer bytes = memory(4096);
    int64_t result = write(*file, bytes, uint64_t(1) << 62);
    EXPECT_LT(result, 0);
}

TEST_P(files, existing_contents_survive_create) {
    auto file = open("file", fresh);
    buffer out = memory(4096, 2), in = memory(4096);
    ASSERT_EQ(write(*file, out, 0), 4096);
    file = open("file", {.create = true, .create_size = mib});
    EXPECT_EQ(file->size(), 8 * mib);
    ASSERT_EQ(read(*file, in, 0), 4096);
    EXPECT_TRUE(same(in, out));
}

}  // namespace
}  // namespace varve::env::os_linux
