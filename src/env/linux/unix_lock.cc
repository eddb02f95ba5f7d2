#include "env/linux/unix_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <string_view>

namespace varve::env::os_linux {
namespace {

std::string lock_path(const std::string& path) { return path + ".lock"; }

bool same_file(int opened, const std::string& path) noexcept {
    struct stat mine = {}, there = {};
    return ::fstat(opened, &mine) == 0 && ::stat(path.c_str(), &there) == 0 && mine.st_dev == there.st_dev &&
           mine.st_ino == there.st_ino;
}

// A holder that ends removes the file between our open and our lock; then the lock is worth nothing, and we try anew.
result<descriptor> lock_file(const std::string& path) {
    for (;;) {
        descriptor opened(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
        if (!opened) return fail(from_errno(errno), path);
        if (::flock(opened.get(), LOCK_EX | LOCK_NB) != 0) {
            if (errno == EWOULDBLOCK) return fail(errc::address_in_use, "another process holds " + path);
            return fail(from_errno(errno), path);
        }
        if (same_file(opened.get(), path)) return opened;
    }
}

// Ended, though its parent may not have heard of it yet.
bool ended(pid_t process) noexcept {
    const std::string path = "/proc/" + std::to_string(process) + "/stat";
    descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!file) return errno == ENOENT && ::kill(process, 0) != 0 && errno == ESRCH;
    char text[512];
    ssize_t size = ::read(file.get(), text, sizeof text);
    if (size <= 0) return size < 0 && errno == ESRCH;
    // "1234 (name, which may hold anything) S ..."
    std::string_view line(text, static_cast<size_t>(size));
    size_t state = line.rfind(") ");
    return state != line.npos && state + 2 < line.size() && (line[state + 2] == 'Z' || line[state + 2] == 'X');
}

// A listening socket lives on for a moment after its process was killed: the kernel takes an io_uring apart later. So
// whoever answers must also be alive.
bool somebody_answers(const std::string& path) noexcept {
    descriptor probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    sockaddr_un name = {};
    name.sun_family = AF_UNIX;
    std::memcpy(name.sun_path, path.data(), path.size());
    // A full backlog (EAGAIN) is somebody too.
    if (::connect(probe.get(), reinterpret_cast<sockaddr*>(&name), sizeof name) != 0) return errno == EAGAIN;
    ucred listener = {};
    socklen_t size = sizeof listener;
    bool known = ::getsockopt(probe.get(), SOL_SOCKET, SO_PEERCRED, &listener, &size) == 0 && listener.pid > 0;
    return !known || !ended(listener.pid);
}

}  // namespace

result<std::unique_ptr<unix_lock>> unix_lock::take(const std::string& path) {
    if (path.empty() || path.size() >= sizeof(sockaddr_un::sun_path)) {
        return fail(errc::invalid, "the path of a Unix socket has 1 to 107 characters: '" + path + "'");
    }
    auto lock = lock_file(lock_path(path));
    if (!lock) return std::unexpected(std::move(lock).error());
    std::unique_ptr<unix_lock> taken(new unix_lock(path, std::move(*lock)));
    struct stat there = {};
    if (::lstat(path.c_str(), &there) != 0) {
        if (errno == ENOENT) return taken;
        return fail(from_errno(errno), path);
    }
    if (!S_ISSOCK(there.st_mode)) return fail(errc::exists, path + " is not a socket");
    if (somebody_answers(path)) return fail(errc::address_in_use, "somebody listens at " + path);
    if (::unlink(path.c_str()) != 0) return fail(from_errno(errno), "cannot remove the stale socket " + path);
    return taken;
}

void unix_lock::bound() noexcept {
    struct stat there = {};
    if (::lstat(_path.c_str(), &there) != 0) return;
    _device = there.st_dev;
    _inode = there.st_ino;
}

unix_lock::~unix_lock() {
    struct stat there = {};
    if (_inode != 0 && ::lstat(_path.c_str(), &there) == 0 && there.st_ino == _inode && there.st_dev == _device) {
        ::unlink(_path.c_str());
    }
    ::unlink(lock_path(_path).c_str());
}

}  // namespace varve::env::os_linux
