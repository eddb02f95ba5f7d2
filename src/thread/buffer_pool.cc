#include "thread/buffer_pool.h"

#include <limits>

#include "env/system.h"
#include "thread/runtime.h"
#include "util/units.h"

namespace varve::thread {

static_assert(buffer_pool::smallest << (buffer_pool::classes - 1) == buffer_pool::largest);
static_assert(buffer_pool::slab_bytes / buffer_pool::smallest <= std::numeric_limits<uint16_t>::max());

buffer_pool& buffer_pool::of(thread& t) {
    t.check_here();
    if (t._buffers == nullptr) t._buffers.reset(new buffer_pool(t));
    return *t._buffers;
}

buffer_pool::buffer_pool(thread& owner)
    : _thread(owner),
      _budget(owner.system().buffers()),
      _memory(owner.system().world().mem()),
      _grant(*this, [](buffer_pool& p) noexcept { p.granted(); }),
      _reclaim(*this,
               [](buffer_pool& p) noexcept {
                   p._reclaim_sent.store(false);
                   p.give_back_free_slabs(timer_queue::never);
               }),
      _trim(*this, [](buffer_pool& p) noexcept { p.give_back_free_slabs(p._thread.now() - idle_before_return); }),
      _impatience(*this,
                  [](buffer_pool& p) noexcept {
                      p.serve();
                      if (p._waiting.empty()) return;
                      p._budget.starve(p._budget.pressure() != memory_pressure::starving);
                      p._patience_timer.start(patience);
                      if (!p._in_line) p.stand_in_line();  // the machine had no memory then
                  }),
      _trim_timer(_trim),
      _patience_timer(_impatience) {
    _budget.join(*this);
}

buffer_pool::~buffer_pool() {
    VARVE_ASSERT(_in_use == 0);
    VARVE_ASSERT(_waiting.empty());
    close();
}

void buffer_pool::close() noexcept {
    if (!std::exchange(_closing, true)) _budget.leave(*this);
    _trim_timer.cancel();
    give_back_free_slabs(timer_queue::never);
}

std::size_t buffer_pool::slab_size(std::size_t size) noexcept {
    return size <= largest ? slab_bytes : round_up(size, smallest);
}

pool_buffer buffer_pool::try_get_slow(std::size_t size) noexcept {
    if (!_waiting.empty() || _budget.pressure() == memory_pressure::starving) return {};
    if (pool_buffer found = take_of_class(size)) {
        ++_classes[class_of(size)].stats.hits;
        return found;
    }
    if (!_budget.reserve(slab_size(size))) return {};
    slab* made = make_slab(size);
    if (made == nullptr) return {};
    ++(made->shift != 0 ? _classes[made->size_class].stats : _large).grown;
    return take(*made);
}

pool_buffer buffer_pool::take_of_class(std::size_t size) noexcept {
    std::size_t index = class_of(size);
    if (index >= classes || _classes[index].with_room.empty()) return {};
    return take(_classes[index].with_room.front());
}

buffer_pool::slab* buffer_pool::make_slab(std::size_t size) noexcept {
    std::size_t bytes = slab_size(size);
    auto memory = _memory.allocate(bytes, smallest);
    if (!memory) {
        _budget.give_back(bytes);
        return nullptr;
    }
    auto* made = new slab;
    made->pool = this;
    made->base = memory->data();
    made->memory = std::move(*memory);
    std::size_t index = class_of(size);
    if (index < classes) {
        made->size_class = static_cast<uint8_t>(index);
        made->shift = static_cast<uint8_t>(std::countr_zero(smallest << index));
        made->capacity = static_cast<uint16_t>(bytes >> made->shift);
        _classes[index].with_room.push_front(*made);
    } else {
        made->capacity = 1;
    }
    made->free = made->capacity;
    made->stack = std::make_unique<uint16_t[]>(made->capacity);
    // The lowest address is taken first, so that a slab little used touches little memory.
    for (uint16_t i = 0; i < made->capacity; ++i) made->stack[i] = static_cast<uint16_t>(made->capacity - 1 - i);
    _bytes += bytes;
    return made;
}

void buffer_pool::drop(slab& s) noexcept {
    std::size_t bytes = s.memory.size();
    list<slab>::remove(s);
    delete &s;
    _bytes -= bytes;
    _budget.give_back(bytes);
}

void buffer_pool::put_slow(slab& to) noexcept {
    if (to.shift == 0) return drop(to);
    auto& with_room = _classes[to.size_class].with_room;
    if (to.free == 1) with_room.push_front(to);
    if (!_waiting.empty()) serve();
    if (to.free != to.capacity) return;
    if (_closing || _budget.pressure() != memory_pressure::none) return drop(to);
    // Kept for a while, but others are emptied first.
    list<slab>::remove(to);
    with_room.push_back(to);
    to.free_since = _thread.now();
    if (!_trim_timer.running() && thread::current() == &_thread) _trim_timer.start(idle_before_return);
}

void buffer_pool::give_back_free_slabs(time_ns free_before) noexcept {
    bool some_left = false;
    for (auto& c : _classes) {
        for (auto at = c.with_room.begin(); at != c.with_room.end();) {
            slab& s = *at++;
            if (s.free != s.capacity) continue;
            if (s.free_since <= free_before) {
                drop(s);
            } else {
                some_left = true;
            }
        }
    }
    if (some_left) _trim_timer.start(idle_before_return);
}

void buffer_pool::wait(buffer_wait& w, std::size_t size) noexcept {
    VARVE_ASSERT(thread::current() == &_thread && w.run != nullptr && !w.buffer);
    std::size_t index = class_of(size);
    ++(index < classes ? _classes[index].stats : _large).waited;
    w._size = size;
    _waiting.push_back(w);
    if (!_in_line) stand_in_line();
    if (!_patience_timer.running()) _patience_timer.start(patience);
}

bool buffer_pool::cancel(buffer_wait& w) noexcept {
    if (!w.linked()) return false;
    const bool was_first = &_waiting.front() == &w;
    list<buffer_wait>::remove(w);
    if (was_first) serve();
    return true;
}

void buffer_pool::stand_in_line() noexcept {
    _in_line = true;
    _budget.stand_in_line(*this, slab_size(_waiting.front()._size));
}

// Hands out what is there, to the first in line and those behind it.
void buffer_pool::serve() noexcept {
    while (!_waiting.empty() && _budget.pressure() != memory_pressure::starving) {
        buffer_wait& first = _waiting.front();
        first.buffer = take_of_class(first._size);
        if (!first.buffer) break;
        _waiting.pop_front();
        _thread.defer(first);
    }
    if (_waiting.empty() && _in_line && _budget.leave_line(*this)) _in_line = false;
}

void buffer_pool::granted() noexcept {
    _in_line = false;
    const uint64_t bytes = _asked_for;
    if (_waiting.empty() || slab_size(_waiting.front()._size) != bytes) {
        _budget.give_back(bytes);  // those it was for were served otherwise, or have given up
    } else if (slab* made = make_slab(_waiting.front()._size)) {
        buffer_wait& first = *_waiting.pop_front();
        first.buffer = take(*made);
        _thread.defer(first);
    } else {
        return;  // the machine has no memory: asked again when patience runs out
    }
    serve();
    if (!_waiting.empty()) stand_in_line();
}

result<scratch> scratch::get(std::size_t bytes) {
    thread& here = *thread::current();
    scratch out;
    out._pooled = buffer_pool::of(here).try_get(bytes);
    if (out._pooled) {
        out._bytes = {out._pooled.data(), bytes};
        return out;
    }
    auto own = here.system().world().mem().allocate(bytes, buffer_pool::smallest);
    if (!own) return fail(std::move(own).error());
    out._own = *std::move(own);
    out._bytes = out._own.bytes().first(bytes);
    return out;
}

}  // namespace varve::thread
