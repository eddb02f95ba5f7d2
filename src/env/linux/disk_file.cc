#include "env/linux/disk_file.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <optional>

#include "util/units.h"

namespace varve::env::os_linux {
namespace {

result<descriptor> open_descriptor(const std::string& path, const open_options& options, bool& direct) {
    int flags = O_CLOEXEC | (options.read_only ? O_RDONLY : O_RDWR) | (options.create ? O_CREAT : 0);
    if (direct) {
        descriptor opened(::open(path.c_str(), flags | O_DIRECT, 0600));
        if (opened) return opened;
        if (errno != EINVAL) return fail(from_errno(errno), path);
        direct = false;  // this file system has no O_DIRECT
    }
    descriptor opened(::open(path.c_str(), flags, 0600));
    if (!opened) return fail(from_errno(errno), path);
    return opened;
}

// Who only wants to know whether somebody serves the file asks for locks of its first byte (F_OFD_GETLK): that takes
// nothing, where to try flock() would take the file from others for a moment.
void tell_of_serving(int number) noexcept {
    struct flock first_byte{.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1, .l_pid = 0};
    ::fcntl(number, F_OFD_SETLK, &first_byte);
}

// What O_DIRECT demands, as the file system tells (Linux 6.1); 0 when it says that there is no O_DIRECT on this file.
std::optional<uint32_t> told_alignment(int number) {
    constexpr unsigned want_direct_alignment = 0x2000;  // STATX_DIOALIGN
    struct statx about = {};
    if (::statx(number, "", AT_EMPTY_PATH, want_direct_alignment, &about) != 0) return {};
    if ((about.stx_mask & want_direct_alignment) == 0) return {};
    return std::max(about.stx_dio_mem_align, about.stx_dio_offset_align);
}

}  // namespace

result<std::unique_ptr<env::file>> disk_file::open(const std::string& path, const open_options& options) {
    bool direct = options.direct;
    auto opened = open_descriptor(path, options, direct);
    if (!opened) return std::unexpected(std::move(opened).error());
    if (direct && told_alignment(opened->get()) == 0) {
        direct = false;
        opened = open_descriptor(path, options, direct);
        if (!opened) return std::unexpected(std::move(opened).error());
    }
    // Shared with whoever else serves the file, never with who repairs it. Where there are no locks (NFS) nobody has
    // one.
    if (!options.read_only && ::flock(opened->get(), LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
        return fail(errc::busy, path + " is locked: somebody repairs it or uses it alone");
    }
    if (!options.read_only) tell_of_serving(opened->get());
    std::unique_ptr<disk_file> made(new disk_file(path, std::move(*opened)));
    VARVE_TRY(made->inspect(options, direct));
    return made;
}

result<> disk_file::inspect(const open_options& options, bool direct) {
    struct stat about = {};
    if (::fstat(number(), &about) != 0) return fail(from_errno(errno), _path);
    _read_only = options.read_only;
    _block_device = S_ISBLK(about.st_mode);
    if (!_block_device && !S_ISREG(about.st_mode)) {
        return fail(errc::invalid, _path + " is neither a regular file nor a block device");
    }
    if (_block_device) {
        int block = 0;
        if (::ioctl(number(), BLKSSZGET, &block) == 0 && block > 0) _logical_block_size = static_cast<uint32_t>(block);
    }
    if (direct) _alignment = std::max(told_alignment(number()).value_or(_logical_block_size), 2U);
    if (options.create && static_cast<uint64_t>(about.st_size) < options.create_size && !_block_device) {
        if (::ftruncate(number(), static_cast<off_t>(options.create_size)) != 0) {
            return fail(from_errno(errno), "cannot make " + _path + " so large");
        }
    }
    if (auto size = refresh(); !size) return std::unexpected(std::move(size).error());
    _can_unmap = !_read_only && probe_unmap(_block_device, about.st_rdev);
    return {};
}

result<uint64_t> disk_file::refresh() {
    uint64_t bytes = 0;
    if (_block_device) {
        if (::ioctl(number(), BLKGETSIZE64, &bytes) != 0) return fail(from_errno(errno), _path);
    } else {
        struct stat about = {};
        if (::fstat(number(), &about) != 0) return fail(from_errno(errno), _path);
        bytes = static_cast<uint64_t>(about.st_size);
    }
    _size.store(bytes, std::memory_order_relaxed);
    return bytes;
}

// A file system is asked to punch a hole behind the end of the file, which changes nothing. A block device would refuse
// that for its offset, so the queue's limits are read; those of a partition are its disk's.
bool disk_file::probe_unmap(bool block_device, uint64_t device) const {
    if (!block_device) {
        auto behind = static_cast<off_t>(round_up(size(), 1 << 20));
        return ::fallocate(number(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, behind, 4096) == 0;
    }
    std::string node = "/sys/dev/block/" + std::to_string(major(device)) + ':' + std::to_string(minor(device));
    for (const char* queue : {"/queue/", "/../queue/"}) {
        uint64_t limit = 0;
        if (std::ifstream(node + queue + "write_zeroes_max_bytes") >> limit) return limit > 0;
    }
    return false;
}

}  // namespace varve::env::os_linux
