// gate: counts activities that must end before their object may go. Belongs to one thread.
//
//   _gate.spawn(serve(), [](error e) { log... });   a detached task, counted
//   auto inside = _gate.enter();                    counted by hand (false when closed)
//   co_await _gate.close();                         refuses new ones and waits for the rest; once
#pragma once

#include <functional>

#include "thread/task.h"

namespace varve {

class gate {
  public:
    class holder {
      public:
        holder() noexcept = default;
        explicit holder(gate* of) noexcept : _of(of) {}
        holder(holder&& other) noexcept : _of(std::exchange(other._of, nullptr)) {}
        holder& operator=(holder&& other) noexcept {
            std::swap(_of, other._of);
            return *this;
        }
        ~holder() {
            if (_of != nullptr) _of->leave();
        }
        explicit operator bool() const noexcept { return _of != nullptr; }

      private:
        gate* _of = nullptr;
    };

    gate() = default;
    gate(const gate&) = delete;
    ~gate() { VARVE_ASSERT(_inside == 0); }

    [[nodiscard]] holder enter() noexcept {
        if (_closed) return {};
        ++_inside;
        return holder(this);
    }
    bool closed() const noexcept { return _closed; }
    std::size_t inside() const noexcept { return _inside; }

    // Starts the task now. When the gate is closed the task is dropped unstarted and false is returned.
    bool spawn(task<> body, std::move_only_function<void(error)> on_error) {
        holder inside = enter();
        if (!inside) return false;
        start_detached(std::move(body),
                       [held = std::move(inside), on_error = std::move(on_error)](result<> outcome) mutable {
                           if (!outcome) on_error(std::move(outcome).error());
                       });
        return true;
    }

    struct closing {
        gate& of;
        bool await_ready() const noexcept { return of._inside == 0; }
        void await_suspend(std::coroutine_handle<> waiter) noexcept { of._waiter = waiter; }
        void await_resume() const noexcept {}
    };
    [[nodiscard]] closing close() noexcept {
        VARVE_ASSERT(!_waiter);
        _closed = true;
        return {*this};
    }

  private:
    // Resumes the closer from the last leaver's destructor; the closer must not assume a clean stack beneath it.
    void leave() noexcept {
        VARVE_ASSERT(_inside > 0);
        if (--_inside == 0 && _waiter) std::exchange(_waiter, {}).resume();
    }

    std::size_t _inside = 0;
    bool _closed = false;
    std::coroutine_handle<> _waiter;
};

}  // namespace varve
