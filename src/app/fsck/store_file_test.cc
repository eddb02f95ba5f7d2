// Who may have a file at the same time, and what is written where nothing can be read.
#include "app/fsck/store_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>

namespace varve::app {
namespace {

using blob::check::change;

struct some_file {
    some_file() {
        path = (std::filesystem::temp_directory_path() / "varve-store-file-XXXXXX").string();
        ::close(::mkstemp(path.data()));
        std::filesystem::resize_file(path, 16384);
    }
    ~some_file() { std::filesystem::remove(path); }
    std::string path;
};
// As env/linux has it while it is served.
struct server {
    explicit server(const std::string& path) : fd(::open(path.c_str(), O_RDWR | O_CLOEXEC)) {
        EXPECT_EQ(::flock(fd, LOCK_SH | LOCK_NB), 0);
        struct flock first{.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1, .l_pid = 0};
        EXPECT_EQ(::fcntl(fd, F_OFD_SETLK, &first), 0);
    }
    ~server() { ::close(fd); }
    int fd;
};
std::vector<std::byte> bytes(std::size_t n, char c) { return std::vector<std::byte>(n, static_cast<std::byte>(c)); }

TEST(store_file, two_checks_have_it_and_neither_thinks_that_it_is_in_use) {
    some_file f;
    auto one = store_file::open(f.path, false);
    auto two = store_file::open(f.path, false);
    ASSERT_TRUE(one && two);
    EXPECT_FALSE((*one)->in_use());
    EXPECT_FALSE((*two)->in_use());
    server beside(f.path);
    EXPECT_EQ(store_file::open(f.path, true).error().code(), errc::busy);
}

TEST(store_file, a_check_sees_servers_and_keeps_none_from_it) {
    some_file f;
    {
        server beside(f.path);
        auto check = store_file::open(f.path, false);
        ASSERT_TRUE(check);
        EXPECT_TRUE((*check)->in_use());
        server later(f.path);
    }
    auto check = store_file::open(f.path, false);
    ASSERT_TRUE(check);
    EXPECT_FALSE((*check)->in_use());
}

TEST(store_file, a_repair_has_it_alone) {
    some_file f;
    auto repair = store_file::open(f.path, true);
    ASSERT_TRUE(repair);
    EXPECT_EQ(store_file::open(f.path, true).error().code(), errc::busy);
    auto check = store_file::open(f.path, false);
    ASSERT_TRUE(check);
    EXPECT_TRUE((*check)->in_use());
}

TEST(store_file, what_cannot_be_read_is_written_when_it_is_given_up) {
    some_file f;
    auto file = store_file::open(f.path, true);
    ASSERT_TRUE(file);
    change c{.offset = 16384, .before = bytes(4096, 0), .after = bytes(4096, 0), .why = "beyond the end"};
    EXPECT_EQ((*file)->apply({.changes = {c}}).error().code(), errc::io);
    c.lost = true;
    EXPECT_TRUE((*file)->apply({.changes = {c}}));
    EXPECT_EQ(std::filesystem::file_size(f.path), 20480u);
    EXPECT_TRUE((*file)->apply({.changes = {c}})) << "it is what it should be";
    change other{.offset = 16384, .before = bytes(4096, 0), .after = bytes(4096, 'x'), .why = "some data"};
    EXPECT_TRUE((*file)->apply({.changes = {other}}));
    EXPECT_EQ((*file)->apply({.changes = {c}}).error().code(), errc::busy) << "now it can be read";
}

TEST(store_file, what_is_only_looked_at_is_not_written) {
    some_file f;
    auto file = store_file::open(f.path, true);
    ASSERT_TRUE(file);
    const change made{.offset = 0, .before = bytes(512, 0), .after = bytes(512, 'a'), .why = "made"};
    change seen{.offset = 4096, .before = bytes(512, 0), .after = bytes(512, 0), .why = "seen"};
    std::size_t done = 0;
    EXPECT_TRUE((*file)->apply({.changes = {made, seen}}, &done));
    EXPECT_EQ(done, 1u);
    seen.before = seen.after = bytes(512, 'b');
    EXPECT_EQ((*file)->apply({.changes = {seen}}).error().code(), errc::busy);
}

TEST(store_file, how_far_it_came_is_known_when_it_ends_half_way) {
    some_file f;
    auto file = store_file::open(f.path, true);
    ASSERT_TRUE(file);
    const change good{.offset = 0, .before = bytes(512, 0), .after = bytes(512, 'a'), .why = "good"};
    const change bad{.offset = 4096, .before = bytes(512, 'x'), .after = bytes(512, 'a'), .why = "bad"};
    std::size_t done = 0;
    EXPECT_FALSE((*file)->apply({.changes = {good, bad, good}}, &done));
    EXPECT_EQ(done, 1u);
}

TEST(store_file, only_files_are_read_whole) {
    some_file f;
    EXPECT_EQ(read_whole_file(f.path)->size(), 16384u);
    const std::string folder = std::filesystem::temp_directory_path().string();
    EXPECT_EQ(read_whole_file(folder).error().code(), errc::invalid);
    EXPECT_FALSE(read_whole_file(f.path + ".none"));
}

// Half a journal would be taken for one.
TEST(store_file, what_cannot_be_written_whole_is_removed_again) {
    const std::string path = (std::filesystem::temp_directory_path() / "varve-journal-test").string();
    std::filesystem::remove(path);
    rlimit before{};
    ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
    const auto handler = ::signal(SIGXFSZ, SIG_IGN);
    const rlimit little{.rlim_cur = 4096, .rlim_max = before.rlim_max};
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &little), 0);
    const auto outcome = write_new_file(path, std::string(8192, 'j'));
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
    ::signal(SIGXFSZ, handler);
    EXPECT_FALSE(outcome);
    EXPECT_FALSE(std::filesystem::exists(path));
}

}  // namespace
}  // namespace varve::app
