// A submission and a completion queue of a controller, whatever carries them. Belongs to the thread that opened it.
//
// Requests start in the order of submit(). When all identifiers are taken, or the transport has no room, they wait,
// first in first out; none is refused. done() is never called from inside submit(). A request completes exactly once,
// also when the connection breaks: then with status::aborted_by_host, and so do all that are submitted afterwards.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "nvme/host/request.h"
#include "thread/sync.h"
#include "thread/task.h"
#include "util/list.h"
#include "util/work.h"

namespace varve::nvme::host {

struct queue_options {
    uint16_t qid = 0;             // 0: the admin queue
    uint16_t entries = 128;       // commands under way are one fewer: a full submission queue has an empty entry
    uint32_t in_capsule_max = 0;  // bytes of data a command capsule may carry
};

class queue_pair {
  public:
    enum class state : uint8_t { opening, ready, failing, closed };

    virtual ~queue_pair();
    queue_pair(const queue_pair&) = delete;
    queue_pair& operator=(const queue_pair&) = delete;

    void submit(request& r) noexcept {
        r.next = nullptr;
        if (_waiting.empty() && _state == state::ready && try_start(r)) [[likely]]
            return;
        hold(r);
    }
    // Two commands that are to follow each other immediately, as fused ones must.
    void submit_pair(request& first, request& second) noexcept;

    // Hands over to the transport what was submitted. Queues of a thread do it themselves, once a turn.
    void flush() noexcept {
        if (_state == state::closed) return fail_waiting();
        do_flush();
    }

    // Waits until the queue is ready, or fails with the reason why it will not be.
    task<> opened();
    // Ends the connection, waits until nothing refers to the queue any more; it may be destroyed then. Requests under
    // way complete with aborted_by_host. Once; also needed when the connection has broken.
    task<> close();
    // Breaks the connection for `why`; what follows is as if the peer had. For timeouts.
    void abandon(error why) noexcept;
    // Called once, when the connection is gone without close() having been called. May not destroy the queue.
    void on_lost(std::move_only_function<void(const error&)> f) { _on_lost = std::move(f); }

    uint16_t qid() const noexcept { return _options.qid; }
    bool ready() const noexcept { return _state == state::ready; }
    // Why the connection broke.
    const std::optional<error>& failure() const noexcept { return _failure; }
    virtual std::size_t under_way() const noexcept = 0;
    // Known once the controller has been identified; before, only fabrics commands carry data in their capsule.
    void set_in_capsule_max(uint32_t bytes) noexcept { _options.in_capsule_max = bytes; }

  protected:
    // `home`: the thread that runs this queue; null when its owner calls flush() by hand (tests).
    queue_pair(thread::thread* home, const queue_options& options) noexcept;

    // Starts the request and returns true, or has no room for it and returns false; then resume() follows when it has.
    virtual bool try_start(request& r) noexcept = 0;
    // Whether two requests can be started one after the other.
    virtual bool room_for_two() noexcept = 0;
    virtual void do_flush() noexcept = 0;
    // Begins to end the connection; closed() follows, later.
    virtual void begin_close() noexcept = 0;

    void resume() noexcept;           // starts what waits
    void became_ready() noexcept;     // opening is over
    void failed(error why) noexcept;  // the connection is useless: closed() will follow
    void closed() noexcept;           // nothing of the transport refers to this queue or its requests any more
    void flush_later() noexcept;      // flush() at the end of this turn
    static void fail(request& r) noexcept;

    thread::thread* const _home;
    queue_options _options;
    state _state = state::opening;

  private:
    struct later : work {
        queue_pair* queue;
    };

    void hold(request& r) noexcept;
    void fail_waiting() noexcept;
    later _later{};
    bool _later_queued = false;
    bool _closing = false;  // by close()
    std::optional<error> _failure;
    queue<request> _waiting;
    event _left_opening, _over;
    std::move_only_function<void(const error&)> _on_lost;
};

}  // namespace varve::nvme::host
