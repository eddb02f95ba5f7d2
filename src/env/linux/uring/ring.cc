#include "env/linux/uring/ring.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace varve::env::os_linux::uring {
namespace {

constexpr unsigned submission_entries = 256, completion_entries = 4096;

// Newer than the headers of Debian 12.
constexpr unsigned setup_no_sqarray = 1U << 16;
constexpr unsigned feature_no_iowait = 1U << 17;
constexpr unsigned enter_no_iowait = 1U << 7;

descriptor set_up(io_uring_params& params, unsigned more_flags) noexcept {
    params = {};
    params.flags = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_R_DISABLED | IORING_SETUP_SUBMIT_ALL |
                   IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG | more_flags;
    params.cq_entries = completion_entries;
    return descriptor(static_cast<int>(::syscall(__NR_io_uring_setup, submission_entries, &params)));
}

void* map_ring(int number, std::size_t size, off_t what) noexcept {
    void* at = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, number, what);
    return at == MAP_FAILED ? nullptr : at;
}

}  // namespace

result<std::unique_ptr<ring>> ring::make() {
    std::unique_ptr<ring> made(new ring);
    io_uring_params params;
    made->_descriptor = set_up(params, setup_no_sqarray);
    if (!made->_descriptor && errno == EINVAL) made->_descriptor = set_up(params, 0);
    if (!made->_descriptor) {
        // EINVAL: a flag it does not know; ENOSYS: no io_uring at all.
        bool old = errno == EINVAL || errno == ENOSYS;
        return fail(old ? errc::unsupported : from_errno(errno), "io_uring");
    }
    VARVE_TRY(made->map(params));
    return made;
}

result<> ring::map(const io_uring_params& made) {
    constexpr unsigned needed = IORING_FEAT_SINGLE_MMAP | IORING_FEAT_NODROP | IORING_FEAT_SUBMIT_STABLE |
                                IORING_FEAT_EXT_ARG | IORING_FEAT_FAST_POLL;
    if ((made.features & needed) != needed) return fail(errc::unsupported, "io_uring");
    _queues_size = std::max<std::size_t>(made.sq_off.array + made.sq_entries * sizeof(unsigned),
                                         made.cq_off.cqes + made.cq_entries * sizeof(io_uring_cqe));
    _queues = static_cast<std::byte*>(map_ring(_descriptor.get(), _queues_size, IORING_OFF_SQ_RING));
    _sqes_size = made.sq_entries * sizeof(io_uring_sqe);
    _sqes = static_cast<io_uring_sqe*>(map_ring(_descriptor.get(), _sqes_size, static_cast<off_t>(IORING_OFF_SQES)));
    if (_queues == nullptr || _sqes == nullptr) return fail(errc::no_memory, "io_uring's queues");

    auto shared = [this](unsigned offset) { return reinterpret_cast<counter*>(_queues + offset); };
    _sq_head = shared(made.sq_off.head);
    _sq_tail = shared(made.sq_off.tail);
    _kernel_flags = shared(made.sq_off.flags);
    _sq_entries = made.sq_entries;
    _sq_mask = made.sq_entries - 1;
    _cq_head = shared(made.cq_off.head);
    _cq_tail = shared(made.cq_off.tail);
    _cq_mask = made.cq_entries - 1;
    _cqes = reinterpret_cast<const io_uring_cqe*>(_queues + made.cq_off.cqes);
    if ((made.flags & setup_no_sqarray) == 0) {
        auto* array = reinterpret_cast<unsigned*>(_queues + made.sq_off.array);
        for (unsigned i = 0; i < made.sq_entries; ++i) array[i] = i;
    }
    // A loop that sleeps is idle, not waiting for a disk.
    if ((made.features & feature_no_iowait) != 0) _wait_flags = enter_no_iowait;
    return {};
}

ring::~ring() {
    if (_queues != nullptr) ::munmap(_queues, _queues_size);
    if (_sqes != nullptr) ::munmap(_sqes, _sqes_size);
}

int ring::enable() noexcept { return register_with(IORING_REGISTER_ENABLE_RINGS, nullptr, 0); }

int ring::register_with(unsigned what, void* argument, unsigned count) noexcept {
    long done = ::syscall(__NR_io_uring_register, _descriptor.get(), what, argument, count);
    return done < 0 ? -errno : static_cast<int>(done);
}

io_uring_sqe* ring::next_entry() noexcept {
    if (_local_tail - _submitted == _sq_entries) return nullptr;
    io_uring_sqe* entry = &_sqes[_local_tail++ & _sq_mask];
    std::memset(entry, 0, sizeof *entry);
    return entry;
}

int ring::enter(bool fetch, bool sleep, const timespec* patience) noexcept {
    _sq_tail->store(_local_tail, std::memory_order_release);
    io_uring_getevents_arg limits = {};
    __kernel_timespec time = {};
    unsigned flags = fetch || sleep ? IORING_ENTER_GETEVENTS : 0;
    if (sleep) {
        flags |= IORING_ENTER_EXT_ARG | _wait_flags;
        limits.sigmask_sz = _NSIG / 8;
        if (patience != nullptr) {
            time.tv_sec = patience->tv_sec;
            time.tv_nsec = patience->tv_nsec;
            limits.ts = reinterpret_cast<uint64_t>(&time);
        }
    }
    long done = ::syscall(__NR_io_uring_enter, _descriptor.get(), queued(), sleep ? 1 : 0, flags,
                          sleep ? static_cast<void*>(&limits) : nullptr, sleep ? sizeof limits : 0);
    int failure = done < 0 ? -errno : 0;
    _submitted = _sq_head->load(std::memory_order_acquire);
    return failure;
}

}  // namespace varve::env::os_linux::uring
