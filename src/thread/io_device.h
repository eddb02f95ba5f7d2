// An object that many threads use through a channel each: what a thread needs of it to work without asking anybody.
//
//   io_device<ring> device(runtime, "ring", [] { return std::make_unique<ring>(); });
//   channel_ref<ring> mine = device.get();          the current thread's, opened now if it is the first
//   co_await device.for_each_channel([](ring& r) { r.flush(); });
//   co_await device.closed();                       then the device may be destroyed
//
// A channel belongs to its thread and is destroyed there, from the deferred list, some time after the last reference
// has gone (so never inside a call of its own); a get() meanwhile keeps it.
#pragma once

#include <concepts>
#include <coroutine>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <type_traits>
#include <utility>

#include "thread/task.h"
#include "thread/thread.h"
#include "util/list.h"
#include "util/work.h"

namespace varve::thread {

class io_device_base;

// One channel with what is counted about it. thread::channels() lists those of a thread.
class channel_slot : public list_node<> {
  public:
    virtual ~channel_slot() = default;
    const std::string& device_name() const noexcept;
    unsigned references() const noexcept { return _references; }

  protected:
    channel_slot() = default;

  private:
    friend class io_device_base;
    struct ending : work {
        channel_slot* slot = nullptr;
        bool queued = false;
    };
    virtual void close() noexcept = 0;  // destroys the channel

    io_device_base* _device = nullptr;
    thread* _thread = nullptr;
    unsigned _references = 0;
    ending _ending;
};

// The part that does not depend on the channel's type.
class io_device_base {
  public:
    const std::string& name() const noexcept { return _name; }
    // Threads that have a channel. Any thread; others may be opening some at this moment.
    std::size_t channels() const noexcept;

    class closed_awaiter : work {
      public:
        explicit closed_awaiter(io_device_base& of) noexcept : _of(of) {}
        bool await_ready() const noexcept { return false; }
        void await_suspend(std::coroutine_handle<> who) noexcept;
        void await_resume() const noexcept {}

      private:
        friend class io_device_base;
        io_device_base& _of;
        thread* _home = nullptr;
        std::coroutine_handle<> _waiter;
    };
    // Waits until no thread has a channel; its owner has seen to it that nobody opens new ones. One waiter at a time.
    // Whatever a channel posted to the waiter's thread, also from its destructor, has run by then.
    [[nodiscard]] closed_awaiter closed() noexcept { return closed_awaiter(*this); }

  protected:
    explicit io_device_base(std::string name) : _name(std::move(name)) {}
    io_device_base(const io_device_base&) = delete;
    ~io_device_base();

    channel_slot* find(thread& t) const noexcept;
    channel_slot& add(thread& t, std::unique_ptr<channel_slot> opened);
    task<> visit(std::move_only_function<task<>(channel_slot&)> f);

  private:
    template <class Channel>
    friend class channel_ref;
    static void retain(channel_slot& s) noexcept { ++s._references; }
    static void release(channel_slot& s) noexcept;
    static void end(channel_slot& s) noexcept;
    void forget(uint64_t thread_id) noexcept;
    thread* hold_next(uint64_t after) noexcept;

    const std::string _name;
    mutable std::mutex _lock;                  // opening, closing, visiting; never I/O
    std::map<uint64_t, channel_slot*> _slots;  // by thread id
    closed_awaiter* _closing = nullptr;
};

namespace detail {

template <class Channel>
class typed_slot final : public channel_slot {
  public:
    explicit typed_slot(std::unique_ptr<Channel> opened) noexcept : channel(std::move(opened)) {}
    std::unique_ptr<Channel> channel;

  private:
    void close() noexcept override { channel.reset(); }
};

inline task<> nothing() { co_return; }

}  // namespace detail

// A reference to the channel of the thread it was taken on; let go there, too.
template <class Channel>
class channel_ref {
  public:
    channel_ref() noexcept = default;
    channel_ref(channel_ref&& other) noexcept : _slot(std::exchange(other._slot, nullptr)) {}
    channel_ref& operator=(channel_ref&& other) noexcept {
        std::swap(_slot, other._slot);
        return *this;
    }
    ~channel_ref() { release(); }
    void release() noexcept {
        if (auto* slot = std::exchange(_slot, nullptr)) io_device_base::release(*slot);
    }

    Channel& operator*() const noexcept { return *_slot->channel; }
    Channel* operator->() const noexcept { return _slot->channel.get(); }
    explicit operator bool() const noexcept { return _slot != nullptr; }

  private:
    template <class>
    friend class io_device;
    explicit channel_ref(detail::typed_slot<Channel>& slot) noexcept : _slot(&slot) { io_device_base::retain(slot); }
    detail::typed_slot<Channel>* _slot = nullptr;
};

template <class Channel>
class io_device : public io_device_base {
  public:
    // `open` is called on the thread that asks for its first channel; several may do so at once.
    io_device(std::string name, std::move_only_function<std::unique_ptr<Channel>() const> open)
        : io_device_base(std::move(name)), _open(std::move(open)) {}

    channel_ref<Channel> get() {
        thread& here = *thread::current();
        channel_slot* slot = find(here);
        if (slot == nullptr) slot = &add(here, std::make_unique<detail::typed_slot<Channel>>(_open()));
        return channel_ref<Channel>(static_cast<detail::typed_slot<Channel>&>(*slot));
    }

    // Calls f(Channel&), which gives void or task<>, on each thread that has a channel, one after another by the
    // threads' ids, and comes back. A channel opened meanwhile is visited if its thread's turn has not passed yet; one
    // closed meanwhile is not. Ends at the first error, which becomes its own.
    template <class Function>
    task<> for_each_channel(Function f) {
        return visit([f = std::move(f)](channel_slot& slot) mutable -> task<> {
            Channel& channel = *static_cast<detail::typed_slot<Channel>&>(slot).channel;
            if constexpr (std::is_void_v<std::invoke_result_t<Function&, Channel&>>) {
                f(channel);
                return detail::nothing();
            } else {
                return f(channel);
            }
        });
    }

  private:
    std::move_only_function<std::unique_ptr<Channel>() const> _open;
};

}  // namespace varve::thread
