// Memory for I/O data: buffers of 4 KiB, 8 KiB, ... 1 MiB, aligned to 4 KiB, cut from slabs that a thread gets when it
// needs them and gives back when they have been free for a while. Larger requests get a slab of their own.
//
//   pool_buffer b = pool.try_get(bytes);          never allocates while a slab has room; empty: wait
//   pool.wait(_wait, bytes);                      _wait.run is called later, on this thread, with _wait.buffer
//   pool_buffer b = co_await pool.get(bytes);     the same for coroutines
//
// Asking never fails: who asks for memory that is not there waits, first come, first served. What is in a new buffer is
// left over from anybody: whoever sends it somewhere fills it before.
// A pool and its buffers belong to one thread (and move with it).
#pragma once

#include <array>
#include <bit>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include "env/memory.h"
#include "thread/buffer_budget.h"
#include "thread/thread.h"
#include "util/assert.h"
#include "util/list.h"

namespace varve::thread {

class buffer_pool;

namespace detail {

struct buffer_slab : list_node<> {
    buffer_pool* pool = nullptr;
    std::byte* base = nullptr;
    uint8_t size_class = 0;
    uint8_t shift = 0;                  // log2 of a buffer's size; 0 for a slab that is one buffer
    uint16_t capacity = 0;              // buffers
    uint16_t free = 0;                  // of them; their indices are the first entries of `stack`
    std::unique_ptr<uint16_t[]> stack;  // beside the buffers, not in them: taking one touches none of its lines
    time_ns free_since = 0;             // when the last buffer came back
    env::buffer memory;
};

}  // namespace detail

// Owns one buffer. The destructor gives it back, on the thread of the pool it came from.
class pool_buffer {
  public:
    pool_buffer() noexcept = default;
    pool_buffer(pool_buffer&& other) noexcept : _slab(std::exchange(other._slab, nullptr)), _data(other._data) {}
    pool_buffer& operator=(pool_buffer&& other) noexcept {
        std::swap(_slab, other._slab);
        std::swap(_data, other._data);
        return *this;
    }
    ~pool_buffer() { release(); }
    void release() noexcept;

    explicit operator bool() const noexcept { return _slab != nullptr; }
    std::byte* data() const noexcept { return _data; }
    std::size_t size() const noexcept {  // at least what was asked for
        return _slab->shift != 0 ? std::size_t{1} << _slab->shift : _slab->memory.size();
    }

  private:
    friend class buffer_pool;
    pool_buffer(detail::buffer_slab& slab, std::byte* data) noexcept : _slab(&slab), _data(data) {}
    detail::buffer_slab* _slab = nullptr;
    std::byte* _data = nullptr;
};

// Somebody's place in the line for a buffer: set `run`, which is called on the pool's thread, once, with `buffer`
// filled.
struct buffer_wait : work, list_node<> {
    pool_buffer buffer;
    void* owner = nullptr;  // for `run`

  private:
    friend class buffer_pool;
    std::size_t _size = 0;
};

class buffer_pool : public list_node<struct hungry_pools>, public list_node<struct all_pools> {
  public:
    static constexpr std::size_t smallest = 4096, largest = 1024 * 1024;  // of the sizes that share slabs
    static constexpr std::size_t slab_bytes = 2 * 1024 * 1024;            // a hugepage
    static constexpr std::size_t classes = 9;
    static constexpr time_ns idle_before_return = 5 * seconds;
    static constexpr time_ns patience = 10 * milliseconds;  // how long one waits before everybody else must

    // The pool of the current thread's, made when first asked for.
    static buffer_pool& of(thread& t);
    ~buffer_pool();
    buffer_pool(const buffer_pool&) = delete;

    // Empty when there is none now or others are waiting: then wait().
    pool_buffer try_get(std::size_t size) noexcept {
        std::size_t index = class_of(size);
        if (index < classes && _budget.pressure() == memory_pressure::none && !_classes[index].with_room.empty())
            [[likely]] {
            ++_classes[index].stats.hits;
            return take(_classes[index].with_room.front());
        }
        return try_get_slow(size);
    }
    void wait(buffer_wait& w, std::size_t size) noexcept;
    // True: it will not be called. False: its call is queued already, with a buffer.
    bool cancel(buffer_wait& w) noexcept;

    class awaiter : buffer_wait {
      public:
        awaiter(buffer_pool& of, std::size_t size) noexcept : _of(of), _bytes(size) {}
        bool await_ready() noexcept { return static_cast<bool>(buffer = _of.try_get(_bytes)); }
        void await_suspend(std::coroutine_handle<> who) noexcept {
            _coroutine = who;
            run = [](work& self) noexcept { static_cast<awaiter&>(self)._coroutine.resume(); };
            _of.wait(*this, _bytes);
        }
        pool_buffer await_resume() noexcept { return std::move(buffer); }

      private:
        buffer_pool& _of;
        std::size_t _bytes;
        std::coroutine_handle<> _coroutine;
    };
    [[nodiscard]] awaiter get(std::size_t size) noexcept { return awaiter(*this, size); }

    struct class_stats {
        uint64_t hits = 0;    // served from a slab that was there
        uint64_t grown = 0;   // needed a new slab
        uint64_t waited = 0;  // had to wait for memory
    };
    // By size: smallest << index; the last is everything above `largest`.
    const class_stats& stats(std::size_t index) const noexcept {
        return index < classes ? _classes[index].stats : _large;
    }
    static std::size_t class_of(std::size_t size) noexcept {
        return size <= smallest ? 0 : static_cast<std::size_t>(std::bit_width((size - 1) / smallest));
    }
    std::size_t bytes_reserved() const noexcept { return _bytes; }
    std::size_t buffers_in_use() const noexcept { return _in_use; }

  private:
    friend class buffer_budget;
    friend class pool_buffer;
    friend class thread;
    using slab = detail::buffer_slab;
    struct size_class {
        list<slab> with_room;
        class_stats stats;
    };
    // Work of the pool's own that others post or a timer runs.
    struct errand : work {
        explicit errand(buffer_pool& of, void (*what)(buffer_pool&) noexcept) noexcept : pool(of), doing(what) {
            run = [](work& w) noexcept {
                errand& self = static_cast<errand&>(w);
                self.doing(self.pool);
            };
        }
        buffer_pool& pool;
        void (*doing)(buffer_pool&) noexcept;
    };

    explicit buffer_pool(thread& owner);
    pool_buffer take(slab& from) noexcept {
        std::size_t index = from.stack[--from.free];
        ++_in_use;
        if (from.free == 0) [[unlikely]]
            list<slab>::remove(from);
        return {from, from.base + (index << from.shift)};
    }
    void put(slab& to, std::byte* data) noexcept {
        if (thread::current() != &_thread) [[unlikely]]
            _thread.check_mine();
        to.stack[to.free++] = static_cast<uint16_t>((data - to.base) >> to.shift);
        --_in_use;
        if (to.free == 1 || to.free == to.capacity || _budget.pressure() != memory_pressure::none) [[unlikely]] {
            put_slow(to);
        }
    }
    pool_buffer try_get_slow(std::size_t size) noexcept;
    void put_slow(slab& to) noexcept;
    static std::size_t slab_size(std::size_t size) noexcept;  // of the slab that serves such a request
    slab* make_slab(std::size_t size) noexcept;  // in memory reserved before; null: the machine has none (unreserved)
    pool_buffer take_of_class(std::size_t size) noexcept;  // from a slab that is there
    void drop(slab& s) noexcept;
    void serve() noexcept;
    void stand_in_line() noexcept;
    void granted() noexcept;
    void give_back_free_slabs(time_ns free_before) noexcept;
    void close() noexcept;  // its thread ends: keep nothing

    thread& _thread;
    buffer_budget& _budget;
    env::memory& _memory;
    std::array<size_class, classes> _classes;
    class_stats _large;
    std::size_t _in_use = 0, _bytes = 0;
    list<buffer_wait> _waiting;
    bool _in_line = false;  // until the grant has arrived
    bool _closing = false;
    uint64_t _asked_for = 0;
    std::atomic<bool> _reclaim_sent{false};
    errand _grant, _reclaim, _trim, _impatience;
    timer _trim_timer, _patience_timer;
};

inline void pool_buffer::release() noexcept {
    if (detail::buffer_slab* slab = std::exchange(_slab, nullptr)) slab->pool->put(*slab, _data);
}

// Memory for a moment that is never waited for: of the current thread's pool, which keeps it for the next, or new when
// others have all there is of that. For those whom requests that hold the pool's memory may be waiting for.
class scratch {
  public:
    scratch() noexcept = default;
    static result<scratch> get(std::size_t bytes);  // aligned as in the pool. errc::no_memory
    std::span<std::byte> bytes() const noexcept { return _bytes; }

  private:
    std::span<std::byte> _bytes;
    pool_buffer _pooled;
    env::buffer _own;
};

}  // namespace varve::thread
