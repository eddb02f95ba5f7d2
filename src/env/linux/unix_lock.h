// Who owns the path of a listening Unix socket. The lock file beside it, `path.lock` (SPDK's name for it too), says so
// while its process lives, so that a socket file left behind by a killed process is told from one in use.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>

#include "env/linux/descriptor.h"
#include "util/result.h"

namespace varve::env::os_linux {

class unix_lock {
  public:
    // errc::address_in_use when another holds the lock or answers at the path. A stale socket file is removed.
    static result<std::unique_ptr<unix_lock>> take(const std::string& path);
    // Removes the socket file bound by us, and the lock file.
    ~unix_lock();
    unix_lock(const unix_lock&) = delete;

    // The socket was bound: its file is ours to remove.
    void bound() noexcept;

  private:
    unix_lock(std::string path, descriptor lock) noexcept : _path(std::move(path)), _lock(std::move(lock)) {}

    const std::string _path;
    const descriptor _lock;
    dev_t _device = 0;
    ino_t _inode = 0;
};

}  // namespace varve::env::os_linux
