#include "modules/file.h"

#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "bdev/awaits.h"
#include "bdev/test_module.h"

namespace varve::modules {
namespace {

using namespace bdev;

class file_test : public thread::in_every_world {};
#define URING_TEST(name) MODULE_TEST(TEST_P, file_test, name, make_uring())
#define AIO_TEST(name) MODULE_TEST(TEST_P, file_test, name, make_aio())

// A file that goes with the test.
struct test_file {
    explicit test_file(std::size_t size) {
        std::string name = (std::filesystem::temp_directory_path() / "varve_file_test.XXXXXX").string();
        int fd = ::mkstemp(name.data());
        EXPECT_GE(fd, 0);
        ::close(fd);
        path = name;
        resize(size);
    }
    ~test_file() { std::filesystem::remove(path); }
    void resize(std::size_t size) const { std::filesystem::resize_file(path, size); }
    std::vector<std::byte> bytes(std::size_t at, std::size_t size) const {
        std::vector<std::byte> out(size);
        std::ifstream in(path, std::ios::binary);
        in.seekg(static_cast<std::streamoff>(at));
        in.read(reinterpret_cast<char*>(out.data()), static_cast<std::streamsize>(size));
        return out;
    }
    std::filesystem::path path;
};

std::string params(const char* name, const test_file& f, const char* more) {
    return R"({"name": ")" + std::string(name) + R"(", "filename": ")" + f.path.string() + R"(")" + more + "}";
}

task<> reads_and_writes(module_system& s, std::string kind) {
    test_file f(64 * 4096);
    EXPECT_EQ(co_await s.call("bdev_" + kind + "_create", params("f", f, R"(, "block_size": 4096)")), json::value("f"));
    EXPECT_EQ(s.find("f")->num_blocks(), 64u);
    EXPECT_TRUE(s.find("f")->props().write_cache);
    descriptor opened = co_await s.open("f");
    channel_ref c = opened.channel();
    auto out = pattern(4096 * 3 + 1, 1);
    std::span<std::byte> unaligned(out.data() + 1, 4096 * 3);
    co_await write(*c, 61, unaligned);
    std::vector<std::byte> in(4096 * 3);
    co_await read(*c, 61, in);
    EXPECT_EQ(std::memcmp(in.data(), unaligned.data(), in.size()), 0);
    co_await flush(*c);
    EXPECT_EQ(f.bytes(61 * 4096, in.size()), in);
    co_await write(*c, 0, std::span<const std::byte>(in), io::fua);
    co_await unmap(*c, 61, 1);
    co_await write_zeroes(*c, 63, 1);
    co_await read(*c, 61, in);
    EXPECT_EQ(std::vector<std::byte>(in.begin(), in.begin() + 4096), std::vector<std::byte>(4096));
    EXPECT_EQ(std::memcmp(in.data() + 4096, unaligned.data() + 4096, 4096), 0);
    EXPECT_EQ(std::vector<std::byte>(in.end() - 4096, in.end()), std::vector<std::byte>(4096));
    // The file has become shorter behind our back: an error, not other bytes.
    f.resize(16 * 4096);
    EXPECT_EQ(co_await answer_to(*c, op::read, 20, 1, in), status::media_error);
    c = {};
    opened.close();
    f.resize(128 * 4096);
    co_await s.call("bdev_" + kind + "_rescan", R"({"name": "f"})");
    EXPECT_EQ(s.find("f")->num_blocks(), 128u);
    std::string lines = s.saved();
    co_await s.call("bdev_" + kind + "_delete", R"({"name": "f"})");
    EXPECT_EQ(std::filesystem::file_size(f.path), 128u * 4096) << "the file stays";
    co_await s.load(lines);
    EXPECT_EQ(s.saved(), lines);
    co_await s.bdevs.devices.remove("f");
}

AIO_TEST(aio_reads_and_writes_a_file) { co_await reads_and_writes(s, "aio"); }
URING_TEST(uring_reads_and_writes_a_file) { co_await reads_and_writes(s, "uring"); }

AIO_TEST(read_only_means_it) {
    test_file f(64 * 512);
    co_await s.call("bdev_aio_create", params("f", f, R"(, "block_size": 512, "readonly": true)"));
    EXPECT_TRUE(s.find("f")->props().read_only);
    EXPECT_FALSE(s.find("f")->props().write_cache);
    descriptor opened = co_await s.open("f");
    channel_ref c = opened.channel();
    std::vector<std::byte> memory(512, std::byte{1});
    EXPECT_EQ(co_await answer_to(*c, op::write, 0, 1, memory), status::read_only);
    co_await read(*c, 0, memory);
    EXPECT_EQ(memory, std::vector<std::byte>(512));
}

AIO_TEST(refuses_what_is_no_disk) {
    test_file f(64 * 512 + 1);
    EXPECT_EQ(co_await s.code("bdev_aio_create", params("f", f, R"(, "block_size": 512)")), -22) << "a part of a block";
    f.resize(64 * 512);
    EXPECT_EQ(co_await s.code("bdev_aio_create", params("f", f, "")), -22) << "a file has no block size of its own";
    for (const char* size : {R"(, "block_size": 511)", R"(, "block_size": 256)", R"(, "block_size": 1536)"}) {
        EXPECT_EQ(co_await s.code("bdev_aio_create", params("f", f, size)), -22) << size;
    }
    EXPECT_EQ(co_await s.code("bdev_aio_create", R"({"name": "f", "filename": "/nowhere/at/all", "block_size": 512})"),
              -2);
    EXPECT_EQ(co_await s.code("bdev_aio_create", R"({"name": "f", "filename": "/", "block_size": 512})") < 0, true);
    EXPECT_EQ(co_await s.code("bdev_aio_rescan", R"({"name": "f"})"), -19);
    EXPECT_EQ(co_await s.code("bdev_aio_create", params("f", f, R"(, "block_size": 512)")), 0);
    EXPECT_EQ(co_await s.code("bdev_aio_create", params("f", f, R"(, "block_size": 512)")), -17);
}

URING_TEST(uring_has_one_error) {
    test_file f(64 * 512);
    EXPECT_EQ(co_await s.code("bdev_uring_create", params("f", f, R"(, "block_size": 511)")), -32603);
    EXPECT_EQ(co_await s.code("bdev_uring_rescan", R"({"name": "f"})"), -19);
    EXPECT_EQ(co_await s.code("bdev_uring_delete", R"({"name": "f"})"), -19);
}

INSTANTIATE_TEST_SUITE_P(worlds, file_test, thread::every_world(), thread::world_name);

}  // namespace
}  // namespace varve::modules
