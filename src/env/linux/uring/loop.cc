#include "env/linux/uring/loop.h"

#include <poll.h>

#include <algorithm>
#include <cerrno>

#include "env/linux/uring/records.h"
#include "env/linux/uring/socket.h"
#include "util/assert.h"

namespace varve::env::os_linux::uring {
namespace {

// What an answer belongs to is in the low bits of its user_data; 0 as a whole: nobody wants it.
constexpr uint64_t file_tag = 1, tag_mask = 7;

uint64_t user_data_of(const request& r) noexcept { return reinterpret_cast<uint64_t>(&r); }
uint64_t user_data_of(const file_op& op) noexcept { return reinterpret_cast<uint64_t>(&op) | file_tag; }

constexpr uint64_t transfer_max = 1 << 30;  // an answer has 31 bits

void prepare_file(const file_step& step, io_uring_sqe& entry) noexcept {
    using verb = file_step::verb;
    entry.fd = step.descriptor;
    entry.off = step.offset;
    entry.addr = reinterpret_cast<uint64_t>(step.memory);
    entry.len = static_cast<uint32_t>(std::min(step.length, transfer_max));
    switch (step.what) {
        case verb::read:
            entry.opcode = IORING_OP_READ;
            break;
        case verb::write:
            entry.opcode = IORING_OP_WRITE;
            break;
        case verb::readv:
            entry.opcode = IORING_OP_READV;
            break;
        case verb::writev:
            entry.opcode = IORING_OP_WRITEV;
            break;
        case verb::datasync:
            entry.opcode = IORING_OP_FSYNC;
            entry.fsync_flags = IORING_FSYNC_DATASYNC;
            break;
        case verb::fallocate:
            entry.opcode = IORING_OP_FALLOCATE;
            entry.addr = step.length;
            entry.len = static_cast<uint32_t>(step.mode);
            break;
    }
}

}  // namespace

result<std::unique_ptr<env::loop>> loop::make(const surroundings& around, bool incremental_receive) {
    auto queues = ring::make();
    if (!queues) return std::unexpected(std::move(queues).error());
    auto provided = buffers::make(**queues, incremental_receive);
    if (!provided && incremental_receive) provided = buffers::make(**queues, false);
    if (!provided) return std::unexpected(std::move(provided).error());
    return std::unique_ptr<env::loop>(new loop(around, std::move(*queues), std::move(*provided)));
}

loop::loop(const surroundings& around, std::unique_ptr<ring> queues, std::unique_ptr<buffers> provided)
    : loop_base(around), _buffers(std::move(provided)), _ring(std::move(queues)) {
    auto* wakes = new waking(*this, wake_descriptor());
    _owned.push_back(*wakes);
    ask(*wakes);
}

loop::~loop() {
    VARVE_ASSERT(in_flight() == 0);
    _ring.reset();
    while (owned_request* record = _owned.pop_front()) delete record;
}

void loop::ask(request& r) noexcept {
    io_uring_sqe* free = _backlog.empty() ? entry() : nullptr;
    if (free == nullptr) return _backlog.push(r);
    r.prepare(*free);
    free->user_data = user_data_of(r);
}

void loop::cancel(request& r) noexcept {
    io_uring_sqe* free = _backlog.empty() && _cancel_backlog.empty() ? entry() : nullptr;
    if (free == nullptr) return _cancel_backlog.push_back(&r);
    free->opcode = IORING_OP_ASYNC_CANCEL;
    free->fd = -1;
    free->addr = user_data_of(r);
    free->flags = IOSQE_CQE_SKIP_SUCCESS;
}

// A free entry; makes room if need be. Null if the kernel takes nothing now (it has no room for answers).
io_uring_sqe* loop::entry() noexcept {
    io_uring_sqe* free = _ring->next_entry();
    if (free != nullptr || !_enabled) return free;
    enter(false, false, nullptr);
    return _ring->next_entry();
}

int loop::enter(bool fetch, bool sleep, const timespec* patience) noexcept {
    int outcome = _ring->enter(fetch, sleep, patience);
    if (_ring->queued() == 0) _vectors_used = _messages_used = 0;
    return outcome;
}

std::span<iovec> loop::spare_vectors(std::size_t wanted) noexcept {
    return {_vectors.data() + _vectors_used, std::min(wanted, _vectors.size() - _vectors_used)};
}

msghdr& loop::message_over(iovec* first, std::size_t count) noexcept {
    if (first == _vectors.data() + _vectors_used) _vectors_used += count;
    VARVE_ASSERT(_messages_used < _messages.size());  // as many as entries
    msghdr& message = _messages[_messages_used++];
    message = {};
    message.msg_iov = first;
    message.msg_iovlen = count;
    return message;
}

void loop::exchange(bool may_sleep, time_ns deadline) noexcept {
    if (!_enabled) {
        int failure = _ring->enable();
        VARVE_ASSERT(failure == 0);
        _enabled = true;
    }
    catch_up();
    talk(may_sleep, deadline);
    for (unsigned count = _ring->answers(); count > 0; --count) dispatch(_ring->take_answer());
    _buffers->publish();
}

void loop::talk(bool may_sleep, time_ns deadline) noexcept {
    if (!may_sleep || _ring->answers() > 0) {
        if (_ring->queued() > 0 || _ring->has_news()) enter(true, false, nullptr);
        return;
    }
    for (int outcome = -EINTR; outcome == -EINTR && _ring->answers() == 0;) {
        timespec left = time_left(deadline);
        outcome = enter(true, true, deadline == no_deadline ? nullptr : &left);
    }
}

// What had to wait for room in the submission queue, in its order.
void loop::catch_up() noexcept {
    while (request* waiting = _backlog.front()) {
        io_uring_sqe* free = entry();
        if (free == nullptr) return;
        _backlog.pop();
        waiting->prepare(*free);
        free->user_data = user_data_of(*waiting);
    }
    if (!_cancel_backlog.empty()) {
        std::vector<request*> cancels = std::move(_cancel_backlog);
        _cancel_backlog.clear();
        for (request* each : cancels) cancel(*each);
    }
    while (file_op* waiting = _file_backlog.front()) {
        _file_backlog.pop();
        if (!ask_step(*waiting)) return _file_backlog.push_front(*waiting);
    }
}

void loop::dispatch(const answer& from_kernel) noexcept {
    uint64_t whose = from_kernel.user_data;
    if ((whose & tag_mask) == file_tag) {
        file_answered(*reinterpret_cast<file_op*>(whose & ~tag_mask), from_kernel.outcome);
    } else if (whose != 0) {
        reinterpret_cast<request*>(whose)->answered(from_kernel.outcome, from_kernel.flags);
    }
}

void loop::submit(file_op& op) noexcept {
    op.progress = 0;
    began();
    if (!_file_backlog.empty() || !ask_step(op)) _file_backlog.push(op);
}

bool loop::ask_step(file_op& op) noexcept {
    io_uring_sqe* free = entry();
    if (free == nullptr) return false;
    prepare_file(next_step(op, _around.zeroes), *free);
    free->user_data = user_data_of(op);
    return true;
}

void loop::file_answered(file_op& op, int32_t outcome) noexcept {
    if (take_answer(op, outcome)) {
        ended();
        ran_something();
        op.done(op);
    } else if (!ask_step(op)) {
        _file_backlog.push(op);
    }
}

std::unique_ptr<socket_base> loop::make_socket(descriptor connection, address local, address peer) {
    return std::make_unique<socket>(*this, std::move(connection), std::move(local), std::move(peer));
}

void loop::connect_to(const socket_name& name, descriptor connection, connect_handler& handler) {
    auto* record = new connecting(*this, name, std::move(connection), handler);
    _owned.push_back(*record);
    ask(*record);
}

result<std::unique_ptr<env::listener>> loop::listen(const address& at, accept_handler& handler) {
    auto opened = open_listener(at);
    if (!opened) return std::unexpected(std::move(opened).error());
    auto* record = new listening(*this, std::move(*opened), handler);
    _owned.push_back(*record);
    record->arm();
    return std::make_unique<listener_handle>(*record);
}

result<std::unique_ptr<env::watch>> loop::watch_readable(int number, work& on_readable) {
    auto* record = new watching(*this, number, on_readable);
    _owned.push_back(*record);
    record->arm();
    return std::make_unique<watch_handle>(*record);
}

}  // namespace varve::env::os_linux::uring
