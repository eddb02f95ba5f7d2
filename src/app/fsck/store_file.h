// A file or block device that holds a blobstore, opened for a check: read in pieces, written in place and flushed.
#pragma once

#include <memory>
#include <string>

#include "blob/check/inspect.h"
#include "blob/check/repair.h"

namespace varve::app {

class store_file final : public blob::check::storage {
  public:
    // For writing it must be nobody else's: a block device that is not mounted or opened exclusively, a file nobody
    // locks. Waits 2 s for whoever does. For reading it is locked shared: servers and other checks may have it, a
    // repair not.
    static result<std::unique_ptr<store_file>> open(const std::string& path, bool writable);
    ~store_file() override;

    // Somebody has it open for writing who tells (a lock of its first byte, or flock): a server, or a repair.
    bool in_use() const noexcept { return _in_use; }
    blob::format::device_shape shape() const noexcept override { return _shape; }
    void read(std::span<blob::check::piece> pieces) override;
    uint64_t next_data(uint64_t offset) override;

    // Each change in turn, flushed, if the bytes it replaces are there; the first that fails ends it. `done`: how many
    // were written.
    result<> apply(const blob::check::repair_plan& plan, std::size_t* done = nullptr);

  private:
    store_file(int fd, std::string path, blob::format::device_shape shape)
        : _fd(fd), _path(std::move(path)), _shape(shape) {}
    result<> write(const blob::check::change& c);

    const int _fd;
    const std::string _path;
    const blob::format::device_shape _shape;
    bool _in_use = false;
};

// All of a regular file.
result<std::string> read_whole_file(const std::string& path);
// Writes `text` to a new file and waits until it is on stable media; exists when there is a file of that name. When it
// cannot be written whole it is removed again.
result<> write_new_file(const std::string& path, std::string_view text);

}  // namespace varve::app
