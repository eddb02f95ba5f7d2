// An open regular file or block device.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "env/file.h"
#include "env/linux/descriptor.h"

namespace varve::env::os_linux {

class disk_file final : public env::file {
  public:
    static result<std::unique_ptr<env::file>> open(const std::string& path, const open_options& options);

    const std::string& path() const noexcept override { return _path; }
    uint64_t size() const noexcept override { return _size.load(std::memory_order_relaxed); }
    result<uint64_t> refresh() override;
    uint32_t alignment() const noexcept override { return _alignment; }
    bool is_block_device() const noexcept override { return _block_device; }
    uint32_t logical_block_size() const noexcept override { return _logical_block_size; }
    bool read_only() const noexcept override { return _read_only; }
    bool can_unmap() const noexcept override { return _can_unmap; }

    int number() const noexcept { return _descriptor.get(); }
    bool direct() const noexcept { return _alignment > 1; }

    // Zeroing a range was refused once: from then on zeroes are written.
    bool zeroes_by_writing() const noexcept { return _zeroes_by_writing.load(std::memory_order_relaxed); }
    void zero_by_writing() noexcept { _zeroes_by_writing.store(true, std::memory_order_relaxed); }

  private:
    disk_file(std::string path, descriptor opened) noexcept : _path(std::move(path)), _descriptor(std::move(opened)) {}
    result<> inspect(const open_options& options, bool direct);
    bool probe_unmap(bool block_device, uint64_t device) const;

    const std::string _path;
    const descriptor _descriptor;
    std::atomic<uint64_t> _size = 0;
    uint32_t _alignment = 1;
    uint32_t _logical_block_size = 512;
    bool _read_only = false;
    bool _can_unmap = false;
    bool _block_device = false;
    std::atomic<bool> _zeroes_by_writing = false;
};

}  // namespace varve::env::os_linux
