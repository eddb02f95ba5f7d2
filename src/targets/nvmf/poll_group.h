// The target on one reactor: a lightweight thread, its connections, and the views of the namespaces they use.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "env/memory.h"
#include "targets/nvmf/qpair.h"
#include "thread/buffer_pool.h"
#include "thread/gate.h"
#include "thread/task.h"
#include "thread/thread.h"

namespace varve::targets::nvmf {

class subsystem;
class target;

struct poll_group_stats {  // for nvmf_get_stats
    uint64_t admin_qpairs = 0, io_qpairs = 0, current_admin_qpairs = 0, current_io_qpairs = 0;
    uint64_t current_unassociated_qpairs = 0;  // counted when asked for
    uint64_t completed_nvme_io = 0, pending_bdev_io = 0, pending_free_request = 0, pending_data_buffer = 0,
             protocol_errors = 0;
};

struct view_facts {
    uint64_t num_blocks = 0;
    uint8_t block_shift = 9;
    bool restricted = false;
    uint32_t ana_group = 1;
    uint32_t blank_size = 0;  // largest transfer, when the device leaves the memory of reads as it is
};

class poll_group {
  public:
    // Made, and ended, on its own thread. end() waits for its connections, which have been asked to end.
    static task<std::unique_ptr<poll_group>> make(target& of, thread::thread& on, std::string name);
    static task<> end(std::unique_ptr<poll_group> group);
    ~poll_group();

    target& owner() const noexcept { return _target; }
    thread::thread& thread() const noexcept { return _thread; }
    const std::string& name() const noexcept { return _name; }

    // --- on the poll group's thread
    // The views of a subsystem's namespaces; made empty on first use, kept until forget().
    namespace_table& table(const subsystem& of);
    task<> drop_table(const subsystem& of);
    // A namespace appeared or changed (size, ANA state, who sees it): the view takes the new facts.
    task<> take_view(const subsystem& of, uint32_t nsid, bdev::descriptor& device, view_facts facts);
    // A namespace goes: closes the view, waits until its commands are done, releases the channel.
    task<> close_view(const subsystem& of, uint32_t nsid);

    thread::buffer_pool& buffers() const noexcept { return _buffers; }

    // A task of one of its connections; counted in `tasks`, its failure logged as that of `what`.
    void spawn(const char* what, task<> body);

    list<qpair> connections;
    poll_group_stats stats;
    gate tasks;           // everything spawned for connections of this group
    bool ending = false;  // no further connections

  private:
    poll_group(target& of, thread::thread& on, std::string name);

    target& _target;
    thread::thread& _thread;
    thread::buffer_pool& _buffers;
    std::string _name;
    env::buffer _blank;  // zeroes, for what is read of devices that leave memory as it is; nobody writes to it
    std::unordered_map<const subsystem*, namespace_table> _tables;
};

}  // namespace varve::targets::nvmf
