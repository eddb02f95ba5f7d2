#include "env/linux/epoll/aio.h"

#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>

#include "env/linux/disk_file.h"

namespace varve::env::os_linux::epoll {

std::unique_ptr<aio> aio::make(const zero_pages& zeroes) {
    std::unique_ptr<aio> made(new aio(zeroes));
    if (!made->_news || ::io_setup(static_cast<int>(entries), &made->_context) != 0) return nullptr;
    return made;
}

aio::aio(const zero_pages& zeroes)
    : _zeroes(zeroes), _news(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)), _controls(entries) {
    _refused.reserve(entries);
    _free.reserve(entries);
    for (iocb& each : _controls) _free.push_back(&each);
}

aio::~aio() {
    if (_context != nullptr) ::io_destroy(_context);
}

bool aio::suits(const file_op& op) noexcept {
    bool transfer = op.kind == file_op_kind::read || op.kind == file_op_kind::write;
    return transfer && static_cast<const disk_file&>(*op.target).direct();
}

void aio::prepare(iocb& control, file_op& op) noexcept {
    file_step step = next_step(op, _zeroes);
    auto offset = static_cast<long long>(step.offset);
    auto* vectors = static_cast<const iovec*>(step.memory);
    using verb = file_step::verb;
    if (step.what == verb::readv) {
        ::io_prep_preadv(&control, step.descriptor, vectors, static_cast<int>(step.length), offset);
    } else if (step.what == verb::writev) {
        ::io_prep_pwritev(&control, step.descriptor, vectors, static_cast<int>(step.length), offset);
    } else if (step.what == verb::read) {
        ::io_prep_pread(&control, step.descriptor, step.memory, step.length, offset);
    } else {
        ::io_prep_pwrite(&control, step.descriptor, step.memory, step.length, offset);
    }
    ::io_set_eventfd(&control, _news.get());
    control.data = &op;
}

void aio::submit() noexcept {
    constexpr std::size_t at_once = 128;
    while (!_waiting.empty() && !_free.empty()) {
        iocb* batch[at_once];
        std::size_t count = 0;
        while (count < at_once && !_free.empty() && !_waiting.empty()) {
            batch[count] = _free.back();
            _free.pop_back();
            prepare(*batch[count++], *_waiting.pop());
        }
        int taken = ::io_submit(_context, static_cast<long>(count), batch);
        auto first_left = static_cast<std::size_t>(std::max(taken, 0));
        bool no_room = taken == -EAGAIN;  // all wait for a later turn; otherwise the first is to blame
        for (std::size_t i = count; i-- > first_left;) {
            auto& op = *static_cast<file_op*>(batch[i]->data);
            _free.push_back(batch[i]);
            if (taken < 0 && i == 0 && !no_room) {
                _refused.push_back({&op, taken});
            } else {
                _waiting.push_front(op);
            }
        }
        if (no_room) return;
    }
}

void aio::reap(queue<file_op>& done) noexcept {
    std::vector<refusal> refused;
    if (!_refused.empty()) refused.swap(_refused);
    for (refusal& each : refused) answered(*each.op, each.answer, done);
    timespec at_once = {};
    for (;;) {
        io_event events[64];
        int count = ::io_getevents(_context, 0, 64, events, &at_once);
        for (int i = 0; i < count; ++i) {
            _free.push_back(events[i].obj);
            answered(*static_cast<file_op*>(events[i].data), static_cast<int64_t>(events[i].res), done);
        }
        if (count < 64) return;
    }
}

void aio::answered(file_op& op, int64_t answer, queue<file_op>& done) noexcept {
    if (take_answer(op, answer)) {
        done.push(op);
    } else {
        _waiting.push(op);
    }
}

}  // namespace varve::env::os_linux::epoll
