#include "env/linux/file_steps.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "env/linux/disk_file.h"

namespace varve::env::os_linux {
namespace {

constexpr uint32_t iovecs_at_once = 1024;  // UIO_MAXIOV

disk_file& file_of(file_op& op) noexcept { return static_cast<disk_file&>(*op.target); }

// Reads and writes go on behind op.progress. The rest of an iovec that was cut is a step of its own, so that the
// issuer's iovecs stay as they are.
void transfer_step(file_op& op, file_step& step) noexcept {
    bool reading = op.kind == file_op_kind::read;
    uint32_t index = 0;
    uint64_t inside = op.progress;
    while (index < op.iov_count && inside >= op.iov[index].iov_len && inside > 0) inside -= op.iov[index++].iov_len;
    step.offset = op.offset + op.progress;
    if (inside > 0 || index + 1 == op.iov_count) {
        step.what = reading ? file_step::verb::read : file_step::verb::write;
        step.memory = static_cast<std::byte*>(op.iov[index].iov_base) + inside;
        step.length = op.iov[index].iov_len - inside;
    } else {
        step.what = reading ? file_step::verb::readv : file_step::verb::writev;
        step.memory = op.iov + index;
        step.length = std::min(op.iov_count - index, iovecs_at_once);
    }
}

void zero_step(file_op& op, const zero_pages& zeroes, file_step& step) noexcept {
    step.offset = op.offset + op.progress;
    step.length = op.length - op.progress;
    if (file_of(op).zeroes_by_writing() && zeroes.data() != nullptr) {
        step.what = file_step::verb::write;
        step.memory = zeroes.data();
        step.length = std::min<uint64_t>(step.length, zero_pages::size);
    } else {
        step.what = file_step::verb::fallocate;
        step.mode = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
    }
}

bool finish(file_op& op, int64_t outcome) noexcept {
    op.result = outcome;
    return true;
}

bool take_bytes(file_op& op, int64_t answer) noexcept {
    if (answer == 0) {
        if (op.progress == op.length) return finish(op, static_cast<int64_t>(op.length));
        return finish(op, -EIO);  // behind the end of the file, which has shrunk
    }
    op.progress += static_cast<uint64_t>(answer);
    if (op.progress >= op.length) return finish(op, static_cast<int64_t>(op.length));
    // A direct transfer ends unaligned at the end of the file only; going on there would be called invalid.
    if (op.progress % file_of(op).alignment() != 0) return finish(op, -EIO);
    return false;
}

}  // namespace

zero_pages::zero_pages() {
    void* at = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at != MAP_FAILED) _data = at;
}

zero_pages::~zero_pages() {
    if (_data != nullptr) ::munmap(_data, size);
}

file_step next_step(file_op& op, const zero_pages& zeroes) noexcept {
    file_step step;
    step.descriptor = file_of(op).number();
    switch (op.kind) {
        case file_op_kind::read:
        case file_op_kind::write:
            transfer_step(op, step);
            break;
        case file_op_kind::flush:
            step.what = file_step::verb::datasync;
            break;
        case file_op_kind::unmap:
            step.what = file_step::verb::fallocate;
            step.offset = op.offset;
            step.length = op.length;
            step.mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
            break;
        case file_op_kind::write_zeroes:
            zero_step(op, zeroes, step);
            break;
    }
    return step;
}

bool take_answer(file_op& op, int64_t answer) noexcept {
    if (answer == -EINTR || answer == -EAGAIN) return false;
    bool ranged = op.kind == file_op_kind::unmap || op.kind == file_op_kind::write_zeroes;
    if (ranged && op.length == 0) return finish(op, 0);
    if (answer < 0) {
        if (op.kind == file_op_kind::write_zeroes && answer == -EOPNOTSUPP && !file_of(op).zeroes_by_writing()) {
            file_of(op).zero_by_writing();
            return false;
        }
        bool writing = op.kind != file_op_kind::read && op.kind != file_op_kind::flush;
        if (writing && answer == -EBADF && file_of(op).read_only()) answer = -EROFS;
        return finish(op, answer);
    }
    switch (op.kind) {
        case file_op_kind::read:
        case file_op_kind::write:
            return take_bytes(op, answer);
        case file_op_kind::write_zeroes:
            if (answer > 0) return take_bytes(op, answer);
            return finish(op, static_cast<int64_t>(op.length));
        case file_op_kind::unmap:
            return finish(op, static_cast<int64_t>(op.length));
        case file_op_kind::flush:
            break;
    }
    return finish(op, 0);
}

int64_t perform(const file_step& step) noexcept {
    auto offset = static_cast<off_t>(step.offset);
    auto* first = static_cast<iovec*>(step.memory);
    auto count = static_cast<int>(step.length);
    int64_t answer = -1;
    switch (step.what) {
        case file_step::verb::read:
            answer = ::pread(step.descriptor, step.memory, step.length, offset);
            break;
        case file_step::verb::write:
            answer = ::pwrite(step.descriptor, step.memory, step.length, offset);
            break;
        case file_step::verb::readv:
            answer = ::preadv(step.descriptor, first, count, offset);
            break;
        case file_step::verb::writev:
            answer = ::pwritev(step.descriptor, first, count, offset);
            break;
        case file_step::verb::datasync:
            answer = ::fdatasync(step.descriptor);
            break;
        case file_step::verb::fallocate:
            answer = ::fallocate(step.descriptor, step.mode, offset, static_cast<off_t>(step.length));
            break;
    }
    return answer < 0 ? -errno : answer;
}

}  // namespace varve::env::os_linux
