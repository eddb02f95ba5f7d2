#include "nvme/host/queue_pair.h"

#include "thread/awaits.h"

namespace varve::nvme::host {

queue_pair::queue_pair(thread::thread* home, const queue_options& options) noexcept : _home(home), _options(options) {
    _later.queue = this;
    _later.run = [](work& self) noexcept {
        queue_pair& q = *static_cast<later&>(self).queue;
        q._later_queued = false;
        q.flush();
    };
}

queue_pair::~queue_pair() { VARVE_ASSERT(_waiting.empty() && !_later_queued); }

void queue_pair::submit_pair(request& first, request& second) noexcept {
    first.next = second.next = nullptr;
    if (_waiting.empty() && _state == state::ready && room_for_two()) {
        const bool started = try_start(first) && try_start(second);
        VARVE_ASSERT(started);
        return;
    }
    hold(first);
    hold(second);
}

void queue_pair::hold(request& r) noexcept {
    _waiting.push(r);
    if (_state == state::closed) flush_later();  // to fail it there
}

void queue_pair::resume() noexcept {
    if (_state != state::ready) return;
    while (request* r = _waiting.front()) {
        if (r->command.fused() == fuse::first && r->next != nullptr) {
            if (!room_for_two()) return;
            request* second = r->next;
            _waiting.pop();
            _waiting.pop();
            const bool started = try_start(*r) && try_start(*second);
            VARVE_ASSERT(started);
            continue;
        }
        _waiting.pop();
        if (!try_start(*r)) return _waiting.push_front(*r);
    }
}

void queue_pair::became_ready() noexcept {
    VARVE_ASSERT(_state == state::opening);
    _state = state::ready;
    _left_opening.set();
    resume();
}

void queue_pair::failed(error why) noexcept {
    if (_state == state::failing || _state == state::closed) return;
    _state = state::failing;
    if (!_failure) _failure = std::move(why);
}

void queue_pair::closed() noexcept {
    if (!_failure) _failure = error(errc::not_connected, "the connection was closed");
    _state = state::closed;
    fail_waiting();
    if (!_closing && _on_lost) {
        auto tell = std::move(_on_lost);
        tell(*_failure);
    }
    _left_opening.set();
    _over.set();
}

void queue_pair::abandon(error why) noexcept {
    if (_state == state::failing || _state == state::closed) return;
    failed(std::move(why));
    begin_close();
}

task<> queue_pair::opened() {
    co_await _left_opening.wait();
    if (_state != state::ready) co_await varve::fail(*_failure);
}

task<> queue_pair::close() {
    _closing = true;
    if (_state != state::closed) {
        const bool under_way_already = _state == state::failing;
        failed(error(errc::cancelled, "the queue was closed"));
        if (!under_way_already) begin_close();
    }
    co_await _over.wait();
    while (_later_queued) co_await yield();
}

void queue_pair::flush_later() noexcept {
    if (_later_queued || _home == nullptr) return;
    _later_queued = true;
    _home->defer(_later);
}

void queue_pair::fail(request& r) noexcept {
    r.completion = cqe{};
    r.completion.cid = r.command.cid;
    r.completion.status_field = make_status(status::aborted_by_host);
    r.done(r);
}

// Only those that wait now: a done() that submits again is answered in its own turn.
void queue_pair::fail_waiting() noexcept {
    for (request* r = _waiting.take_all(); r != nullptr;) {
        request& one = *r;
        r = r->next;
        fail(one);
    }
}

}  // namespace varve::nvme::host
