// A queue pair, whatever carries it. Lives on its poll group's thread from accept to the end of its connection.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "targets/nvmf/namespace_view.h"
#include "targets/nvmf/request.h"
#include "thread/task.h"
#include "util/list.h"

namespace varve::env {
struct address;
}

namespace varve::targets::nvmf {

class controller;
class poll_group;

class qpair : public list_node<> {
  public:
    explicit qpair(poll_group& in) noexcept : group(in) {}

    // The command has ended; status and result are set. Sends the response and frees the slot. The queue's own thread.
    virtual void complete(request& r) noexcept = 0;
    // Ends the connection. Commands under way finish first; deregistering from the controller follows.
    virtual void disconnect() noexcept = 0;
    // The queue size the host asked for in Connect is known now (entries, at least 2).
    virtual void resize(uint16_t entries) = 0;
    // Calls a command back, if it can be had: it ends with aborted_by_request, then or soon.
    enum class recall : uint8_t {
        none,  // there is no such command, or it will end by itself
        recalled,
        awaited,  // it will be, when the data has come that the host was asked for
    };
    // `again`: only one that was awaited before.
    virtual recall abort(uint16_t command_id, bool again) noexcept = 0;
    virtual const env::address& local() const noexcept = 0;
    virtual const env::address& peer() const noexcept = 0;
    virtual const char* transport_name() const noexcept = 0;

    poll_group& group;
    controller* ctrl = nullptr;                         // null until Connect has succeeded
    std::shared_ptr<controller> kept;                   // keeps ctrl alive
    namespace_table* namespaces = nullptr;              // of the controller's subsystem, in this poll group
    const std::atomic<uint8_t>* path_states = nullptr;  // the controller's; null without ANA reporting
    uint16_t id = 0;                                    // 0 is the admin queue
    uint16_t size = 0;                                  // entries
    uint16_t head = 0;                                  // SQHD
    bool connecting = false;                            // Connect is under way
    bool sq_flow_control = true;                        // false when the host disabled it in Connect
    bool enabled = false;                               // commands may be executed: connected, and not about to end
    // Fused pairs are made of commands in the order in which they arrive, though data may complete them in another.
    request* fused_first = nullptr;  // the first half that arrived last, while nothing has followed it
    bool fused_lost = false;         // that first half has failed already
  protected:
    ~qpair() = default;
};

// A command has arrived on an I/O queue: called for fused ones, and for what follows a first half (io_commands.cc).
void fused_arrived(request& r) noexcept;
// One half ends without the other: so does the other.
void fused_half_ended(request& r) noexcept;
inline bool is_fused(const request& r) noexcept { return r.command.fused() != nvme::fuse::none; }

// Runs a command whose data, if any from the host, is in its buffer. Ends in r.queue->complete(r), never from inside
// for I/O commands. io_commands.cc for I/O queues, controller for the admin queue, fabrics.cc for fabrics commands of
// both.
void execute(request& r) noexcept;
void execute_io(request& r) noexcept;
bool abort_io(request& r) noexcept;         // of one that is being executed; false: it ends by itself
void execute_admin(request& r) noexcept;    // admin.cc; starts a task
void execute_fabrics(request& r) noexcept;  // fabrics.cc; starts a task

// The queue's connection has ended and no further command will come: ends those that wait without limit (events asked
// for), and the timers. On the queue's thread.
void quit(qpair& q) noexcept;
// Then, when its last command has ended: deregisters it from its controller. On the queue's thread, to which it
// returns. An admin queue takes the controller's other queues with it.
task<> leave(qpair& q);

}  // namespace varve::targets::nvmf
