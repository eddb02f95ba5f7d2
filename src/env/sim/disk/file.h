// A simulated disk, opened: what a system sees of it.
#pragma once

#include <string>
#include <utility>

#include "env/file.h"
#include "env/sim/disk/disk.h"

namespace varve::env::sim {

class disk_file final : public file {
  public:
    disk_file(std::string path, disk& on, const open_options& how)
        : _path(std::move(path)), _disk(on), _size(on.size()), _read_only(how.read_only), _direct(how.direct) {}

    const std::string& path() const noexcept override { return _path; }
    uint64_t size() const noexcept override { return _size; }
    result<uint64_t> refresh() override { return _size = _disk.size(); }
    uint32_t alignment() const noexcept override { return _direct ? _disk.options().alignment : 1; }
    bool is_block_device() const noexcept override { return true; }
    uint32_t logical_block_size() const noexcept override { return _disk.options().logical_block_size; }
    bool read_only() const noexcept override { return _read_only; }
    bool can_unmap() const noexcept override { return _disk.options().can_unmap; }

    disk& on() const noexcept { return _disk; }

  private:
    const std::string _path;
    disk& _disk;
    uint64_t _size;
    const bool _read_only;
    const bool _direct;
};

}  // namespace varve::env::sim
