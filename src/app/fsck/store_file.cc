#include "app/fsck/store_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

namespace varve::app {

namespace {

std::unexpected<error> failed(int number, const std::string& what) {
    const errc code = from_errno(number);
    return fail(error(code, fmt::format("{}: {}", what, text_of(code))));
}

int read_all(int fd, std::span<std::byte> to, uint64_t offset) {
    while (!to.empty()) {
        const ssize_t n = ::pread(fd, to.data(), to.size(), static_cast<off_t>(offset));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno;
        if (n == 0) return EIO;  // past the end
        to = to.subspan(static_cast<std::size_t>(n));
        offset += static_cast<uint64_t>(n);
    }
    return 0;
}

template <class Write>
int write_all(std::span<const std::byte> from, Write write) {
    while (!from.empty()) {
        const ssize_t n = write(from);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno;
        from = from.subspan(static_cast<std::size_t>(n));
    }
    return 0;
}

// A server that was killed a moment ago holds its files until the kernel has taken its ring apart.
template <class Condition>
bool true_soon(Condition condition) {
    for (int tries = 20; !condition(); --tries) {
        if (tries == 0) return false;
        ::poll(nullptr, 0, 100);
    }
    return true;
}
// Where there are no locks (NFS) nobody has one.
bool lock(int fd, int how) { return ::flock(fd, how | LOCK_NB) == 0 || errno != EWOULDBLOCK; }
// Servers lock the first byte, and share it. To ask takes nothing from anybody.
bool served(int fd) {
    struct flock any{.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 0, .l_pid = 0};
    return ::fcntl(fd, F_OFD_GETLK, &any) == 0 && any.l_type != F_UNLCK;
}

result<> sync_folder_of(const std::string& path) {
    std::string folder = std::filesystem::path(path).parent_path().string();
    if (folder.empty()) folder = ".";
    const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return failed(errno, folder);
    const int number = ::fsync(fd) != 0 ? errno : 0;
    ::close(fd);
    return number == 0 || number == EINVAL ? result<>() : failed(number, folder);
}

}  // namespace

result<std::unique_ptr<store_file>> store_file::open(const std::string& path, bool writable) {
    struct stat about{};
    if (::stat(path.c_str(), &about) != 0) return failed(errno, path);
    const bool device = S_ISBLK(about.st_mode);
    if (!device && !S_ISREG(about.st_mode)) return failed(EINVAL, path + ": neither a file nor a block device");
    const int fd = ::open(path.c_str(), (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | (writable && device ? O_EXCL : 0));
    if (fd < 0) return failed(errno, path);
    blob::format::device_shape shape{.size = {static_cast<uint64_t>(about.st_size)}, .block_size = 512};
    int block = 0;
    std::unique_ptr<store_file> out;
    if (device && (::ioctl(fd, BLKGETSIZE64, &shape.size.value) != 0 || ::ioctl(fd, BLKSSZGET, &block) != 0)) {
        const int number = errno;
        ::close(fd);
        return failed(number, path);
    }
    if (device) shape.block_size = static_cast<uint32_t>(block);
    out.reset(new store_file(fd, path, shape));
    // Who repairs has it alone. Who only reads shares it, so that nobody repairs it meanwhile, and servers may have it.
    out->_in_use = !true_soon([&] { return lock(fd, writable ? LOCK_EX : LOCK_SH) && (writable || !served(fd)); });
    if (writable && out->_in_use) return failed(EBUSY, path + " is in use");
    return out;
}

store_file::~store_file() { ::close(_fd); }

void store_file::read(std::span<blob::check::piece> pieces) {
    for (const auto& p : pieces)  // the kernel reads all of them while we wait for the first
        ::posix_fadvise(_fd, static_cast<off_t>(p.offset), static_cast<off_t>(p.bytes.size()), POSIX_FADV_WILLNEED);
    for (auto& p : pieces)
        if (int number = read_all(_fd, p.bytes, p.offset); number != 0) p.failed = text_of(from_errno(number));
}

uint64_t store_file::next_data(uint64_t offset) {
    const off_t at = ::lseek(_fd, static_cast<off_t>(offset), SEEK_DATA);
    if (at >= 0) return static_cast<uint64_t>(at);
    return errno == ENXIO ? _shape.size.value : offset;  // devices, and file systems that do not know
}

result<> store_file::write(const blob::check::change& c) {
    std::vector<std::byte> now(c.before.size());
    int number = read_all(_fd, now, c.offset);
    if (number != 0 && !c.lost) return failed(number, fmt::format("{}: read", _path));
    if (number == 0 && c.lost && now != c.after)
        return fail(error(errc::busy, fmt::format("{}: {}: now it can be read: check again", _path, c.why)));
    if (number == 0 && !c.lost && now != c.before)
        return fail(
            error(errc::busy,
                  fmt::format("{}: {}: what is there is not what was read: someone else writes to it", _path, c.why)));
    if (c.is_witness()) return {};
    uint64_t at = c.offset;
    number = write_all(c.after, [&](std::span<const std::byte> rest) {
        const ssize_t n = ::pwrite(_fd, rest.data(), rest.size(), static_cast<off_t>(at));
        if (n > 0) at += static_cast<uint64_t>(n);
        return n;
    });
    if (number == 0 && ::fdatasync(_fd) != 0) number = errno;
    return number == 0 ? result<>() : failed(number, fmt::format("{}: {}", _path, c.why));
}

result<> store_file::apply(const blob::check::repair_plan& plan, std::size_t* done) {
    for (const auto& c : plan.changes) {
        VARVE_TRY(write(c));
        if (done != nullptr && !c.is_witness()) ++*done;
    }
    return {};
}

result<std::string> read_whole_file(const std::string& path) {
    struct stat about{};
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return failed(errno, path);
    int number = ::fstat(fd, &about) != 0 ? errno : S_ISREG(about.st_mode) ? 0 : EINVAL;
    std::string text;
    if (number == 0) {
        text.resize(static_cast<std::size_t>(about.st_size));
        number = read_all(fd, std::as_writable_bytes(std::span(text)), 0);
    }
    ::close(fd);
    if (number == EINVAL) return failed(number, path + ": not a file");
    return number == 0 ? result<std::string>(std::move(text)) : failed(number, path);
}

result<> write_new_file(const std::string& path, std::string_view text) {
    const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) return failed(errno, path);
    int number = write_all(std::as_bytes(std::span(text)),
                           [&](std::span<const std::byte> rest) { return ::write(fd, rest.data(), rest.size()); });
    if (number == 0 && ::fsync(fd) != 0) number = errno;
    ::close(fd);
    if (number != 0) {
        ::unlink(path.c_str());
        return failed(number, path);
    }
    return sync_folder_of(path);
}

}  // namespace varve::app
