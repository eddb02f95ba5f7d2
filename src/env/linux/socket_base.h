// What a connection is under both loops: its handler, the queue of its sends, its pause and its end. The derived class
// moves the bytes.
//
// Its life: made -> start() -> [paused <-> receiving] -> ending (close, the peer's end, or an error) -> quiet: the
// kernel holds nothing of it -> on_closed. The peer's orderly end waits for a paused handler to take what it left, and
// for what is queued to be sent; the handler may then say that more is to come (a peer that only ended its own sending
// still gets its answer).
#pragma once

#include <span>

#include "env/linux/descriptor.h"
#include "env/linux/kept_bytes.h"
#include "env/socket.h"
#include "util/list.h"

namespace varve::env::os_linux {

class loop_base;

struct flush_tag;      // has sends to hand over
struct batch_tag;      // has received bytes in this turn
struct attention_tag;  // is to be resumed, or is ending

class socket_base : public env::socket,
                    public list_node<flush_tag>,
                    public list_node<batch_tag>,
                    public list_node<attention_tag> {
  public:
    socket_base(loop_base& home, descriptor connection, address local, address peer) noexcept;
    ~socket_base() override;

    void start(socket_handler& handler) noexcept override;
    void send(send_op& op) noexcept override;
    void resume_receive() noexcept override;
    void close() noexcept override { end(0); }
    const address& local() const noexcept override { return _local; }
    const address& peer() const noexcept override { return _peer; }

    bool started() const noexcept { return _handler != nullptr; }
    descriptor take_descriptor() noexcept { return std::move(_connection); }

    // The loop's, once a turn each.
    virtual void transmit() noexcept = 0;  // hands queued sends to the kernel; no callbacks
    void attend() noexcept;                // resumes, or ends when quiet
    void batch_ended() noexcept { _handler->on_batch_end(); }

  protected:
    virtual void begin_receive() noexcept = 0;   // lets bytes flow; nothing to do when they do
    virtual void hold_receive() noexcept = 0;    // stops them; some may still come
    virtual void quiesce() noexcept = 0;         // an end has begun: take back everything the kernel holds
    virtual bool quiet() const noexcept = 0;     // it holds nothing more
    virtual bool all_sent() const noexcept = 0;  // no send is queued or under way

    // Tellings of the derived class, from inside a turn.
    void received(std::span<const std::byte> bytes) noexcept;
    void peer_ended() noexcept;
    void end(int reason) noexcept;
    // The last send was done: if the peer ended meanwhile, this is the end.
    void sends_done() noexcept {
        if (_peer_ended) want_attention();
    }
    void want_attention() noexcept;
    // The iovecs of the sends at the head of the queue, as many as fit; `bytes` are in them.
    std::size_t gather(std::span<iovec> into, std::size_t& bytes) const noexcept;
    // The kernel took so many bytes: moves the sends that are whole to `done`, and cuts the next.
    void take_sent(std::size_t bytes, queue<send_op>& done) noexcept;

    int number() const noexcept { return _connection.get(); }
    bool paused() const noexcept { return _paused; }
    bool ending() const noexcept { return _ending; }

    loop_base& _home;
    queue<send_op> _queue;  // not taken by the kernel yet

  private:
    void resume() noexcept;
    void finish() noexcept;
    void drop_queue() noexcept;

    socket_handler* _handler = nullptr;
    descriptor _connection;
    kept_bytes _kept;
    int _reason = 0;
    bool _paused = false;
    bool _resuming = false;
    bool _peer_ended = false;
    bool _end_told = false;
    bool _ending = false;
    bool _closed = false;
    const address _local, _peer;
};

}  // namespace varve::env::os_linux
