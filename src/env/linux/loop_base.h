// What both loops share: the order of a turn, the lists of connections that want something in it, and what other
// threads hand back.
#pragma once

#include <time.h>

#include <atomic>
#include <limits>
#include <mutex>

#include "env/linux/blocking_threads.h"
#include "env/linux/descriptor.h"
#include "env/linux/file_steps.h"
#include "env/linux/socket_base.h"
#include "env/linux/socket_setup.h"
#include "env/loop.h"
#include "util/list.h"
#include "util/work.h"

namespace varve::env::os_linux {

// What a loop needs of its system; outlives it.
struct surroundings {
    blocking_threads& blocking;
    const zero_pages& zeroes;
};

constexpr time_ns no_deadline = std::numeric_limits<time_ns>::max();
// From now to the deadline; none when it has passed.
timespec time_left(time_ns deadline) noexcept;

class loop_base : public env::loop {
  public:
    explicit loop_base(const surroundings& around);
    ~loop_base() override;

    bool poll() noexcept final { return turn(false, 0); }
    bool wait(time_ns deadline) noexcept final { return turn(true, deadline); }
    void wake() noexcept final;
    std::size_t in_flight() const noexcept final { return _in_flight; }
    void connect(const address& to, connect_handler& handler) final;
    std::unique_ptr<detached_socket> detach(std::unique_ptr<env::socket> connection) noexcept final;
    result<std::unique_ptr<env::socket>> adopt(std::unique_ptr<detached_socket> connection) final;

    // For connections and requests of this loop.
    void began() noexcept { ++_in_flight; }
    void ended() noexcept;
    void ran_something() noexcept { _ran = true; }
    void wants_flush(socket_base& s) noexcept { add<flush_tag>(_flush, s); }
    void wants_batch_end(socket_base& s) noexcept { add<batch_tag>(_batch, s); }
    void wants_attention(socket_base& s) noexcept { add<attention_tag>(_attention, s); }

    // Any thread: w runs on this loop, in its next turn.
    void hand_back(work& w) noexcept;

  protected:
    // Talks with the kernel once: hands over what is queued, runs the callbacks of what has finished. Sleeps until
    // `deadline` if `may_sleep` and nothing has.
    virtual void exchange(bool may_sleep, time_ns deadline) noexcept = 0;
    virtual std::unique_ptr<socket_base> make_socket(descriptor connection, address local, address peer) = 0;
    // Begins to connect; deliver_connected follows from a later turn.
    virtual void connect_to(const socket_name& name, descriptor socket, connect_handler& handler) = 0;

    int wake_descriptor() const noexcept { return _wake.get(); }
    // An accepted descriptor becomes a socket of this loop.
    void deliver_accepted(descriptor connection, const address& listening_at, accept_handler& handler) noexcept;
    // `failure`: an errno, or 0.
    void deliver_connected(descriptor connection, int failure, connect_handler& handler) noexcept;
    // For failures known before a turn: told from the next one.
    void fail_connect_later(error what, connect_handler& handler);
    // The table of descriptors is full: takes one connection and drops it, so that its peer learns and the listener
    // does not spin.
    void refuse_one(int listening) noexcept;

    const surroundings _around;

  private:
    class resolution;

    template <class Tag>
    static void add(list<socket_base, Tag>& to, socket_base& s) noexcept {
        if (!static_cast<list_node<Tag>&>(s).linked()) to.push_back(s);
    }
    bool turn(bool may_sleep, time_ns deadline) noexcept;
    void attend() noexcept;
    void run_handed_back() noexcept;
    void start_connect(const socket_name& name, connect_handler& handler);

    list<socket_base, flush_tag> _flush;
    list<socket_base, batch_tag> _batch;
    list<socket_base, attention_tag> _attention;
    std::size_t _in_flight = 0;
    bool _ran = false;
    descriptor _wake;
    descriptor _spare;  // given up for a moment by refuse_one

    std::atomic<bool> _handed_back = false;
    std::mutex _hand_back_mutex;
    queue<work> _hand_back_queue;
};

}  // namespace varve::env::os_linux
