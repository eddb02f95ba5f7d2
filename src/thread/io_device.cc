#include "thread/io_device.h"

#include "thread/awaits.h"
#include "thread/runtime.h"
#include "util/assert.h"

namespace varve::thread {

const std::string& channel_slot::device_name() const noexcept { return _device->name(); }

io_device_base::~io_device_base() { VARVE_ASSERT(_slots.empty() && _closing == nullptr); }

std::size_t io_device_base::channels() const noexcept {
    std::lock_guard guard(_lock);
    return _slots.size();
}

channel_slot* io_device_base::find(thread& t) const noexcept {
    auto found = t._channel_of.find(this);
    return found == t._channel_of.end() ? nullptr : found->second;
}

channel_slot& io_device_base::add(thread& t, std::unique_ptr<channel_slot> opened) {
    VARVE_ASSERT(find(t) == nullptr);  // opening it must not have asked for it
    channel_slot& slot = *opened.release();
    slot._device = this;
    slot._thread = &t;
    slot._ending.slot = &slot;
    slot._ending.run = [](work& w) noexcept {
        auto& self = static_cast<channel_slot::ending&>(w);
        self.queued = false;
        if (self.slot->_references == 0) end(*self.slot);
    };
    t._channel_of.emplace(this, &slot);
    t._channels.push_back(slot);
    std::lock_guard guard(_lock);
    _slots.emplace(t.id(), &slot);
    return slot;
}

void io_device_base::release(channel_slot& s) noexcept {
    s._thread->check_mine();
    VARVE_ASSERT(s._references > 0);
    if (--s._references != 0 || s._ending.queued) return;
    if (!s._thread->system().running()) return end(s);
    s._ending.queued = true;
    s._thread->defer(s._ending);
}

void io_device_base::end(channel_slot& s) noexcept {
    std::unique_ptr<channel_slot> owned(&s);
    io_device_base& device = *s._device;
    uint64_t id = s._thread->id();
    s._thread->_channel_of.erase(&device);
    list<channel_slot>::remove(s);
    s.close();
    device.forget(id);  // it may be gone now
}

void io_device_base::forget(uint64_t thread_id) noexcept {
    closed_awaiter* waiting = nullptr;
    {
        std::lock_guard guard(_lock);
        _slots.erase(thread_id);
        if (_slots.empty()) waiting = std::exchange(_closing, nullptr);
    }
    if (waiting != nullptr) waiting->_home->post(*waiting);
}

// Comes back by mail also when there is no channel any more: the last words of one that has just gone may still lie in
// this thread's mailbox, and their reader goes on to destroy what they speak of.
void io_device_base::closed_awaiter::await_suspend(std::coroutine_handle<> who) noexcept {
    _home = thread::current();
    _waiter = who;
    run = [](work& w) noexcept { static_cast<closed_awaiter&>(w)._waiter.resume(); };
    std::lock_guard guard(_of._lock);
    VARVE_ASSERT(_of._closing == nullptr);
    if (_of._slots.empty()) return _home->post(*this);
    _of._closing = this;
}

// A thread with a channel has not ended, and cannot until it has forgotten it, for which it needs the lock.
thread* io_device_base::hold_next(uint64_t after) noexcept {
    std::lock_guard guard(_lock);
    auto next = _slots.upper_bound(after);
    if (next == _slots.end()) return nullptr;
    thread& t = *next->second->_thread;
    runtime::hold(t);
    return &t;
}

task<> io_device_base::visit(std::move_only_function<task<>(channel_slot&)> f) {
    VARVE_ASSERT(thread::current() != nullptr);
    thread& home = *thread::current();
    runtime::hold(home);
    result<> outcome;
    uint64_t after = 0;
    while (thread* t = hold_next(after)) {
        after = t->id();
        co_await switch_to(*t);
        if (channel_slot* slot = find(*t)) {
            retain(*slot);
            outcome = co_await as_result(f(*slot));
            VARVE_ASSERT(thread::current() == t);
            release(*slot);
        }
        runtime::release(*t);
        if (!outcome) break;
    }
    co_await switch_to(home);
    runtime::release(home);
    co_await std::move(outcome);
}

}  // namespace varve::thread
