// Open files and block devices, and the operations a loop performs on them.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <memory>
#include <string>

#include "util/result.h"

namespace varve::env {

struct open_options {
    bool read_only = false;    // otherwise others may open it, too, but not lock it (flock): errc::busy when one has
    bool direct = true;        // O_DIRECT; a file system that refuses it is opened buffered, see file::alignment
    bool create = false;       // with create_size; used by tests and the demo
    uint64_t create_size = 0;  // bytes
};

class file {
  public:
    virtual ~file() = default;
    virtual const std::string& path() const noexcept = 0;
    // Bytes, as last read; refresh() asks the kernel again (the file was resized).
    virtual uint64_t size() const noexcept = 0;
    virtual result<uint64_t> refresh() = 0;
    // Bytes to which offset, length and memory of reads and writes must be aligned: 1 when buffered.
    virtual uint32_t alignment() const noexcept = 0;
    virtual bool is_block_device() const noexcept = 0;
    // The device's logical block size; 512 for regular files.
    virtual uint32_t logical_block_size() const noexcept = 0;
    virtual bool read_only() const noexcept = 0;
    // Whether unmap / write_zeroes can be done without writing (fallocate); asked of the file system once at open.
    virtual bool can_unmap() const noexcept = 0;
};

enum class file_op_kind : uint8_t {
    read,
    write,
    flush,         // fdatasync: returns when everything written before is on stable media
    unmap,         // punch a hole: reads zeroes afterwards
    write_zeroes,  // zero without releasing the space where the file system can, else by writing
};

// One operation; lives in its issuer. From loop::submit until done() it belongs to the loop.
struct file_op {
    file_op* next = nullptr;  // the loop's
    void (*done)(file_op&) noexcept = nullptr;
    file* target = nullptr;
    file_op_kind kind = file_op_kind::read;
    uint32_t iov_count = 0;
    iovec* iov = nullptr;
    uint64_t offset = 0;  // bytes
    uint64_t length = 0;  // bytes, for unmap and write_zeroes; the sum of iov for read and write
    int64_t result = 0;   // bytes done, or a negated errno. Short reads and writes are continued by the loop.
    void* context = nullptr;
    uint64_t progress = 0;  // the loop's: bytes done so far
};

}  // namespace varve::env
