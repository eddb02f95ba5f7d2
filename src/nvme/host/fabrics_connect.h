// The first words on a queue of a fabrics controller: which subsystem, which host, which queue.
#pragma once

#include <string>

#include "nvme/fabrics.h"
#include "nvme/host/queue_pair.h"
#include "util/uuid.h"

namespace varve::nvme::host {

struct identity {
    std::string subnqn;
    std::string hostnqn;
    uuid host_id;
};

struct connect_request {
    uint16_t controller_id = controller_id_any;  // of the admin queue's answer, for I/O queues
    uint16_t entries = 0;                        // of the submission queue
    uint32_t keep_alive_ms = 0;                  // admin queue only; 0: none
    bool disable_flow_control = true;

    static constexpr uint16_t controller_id_any = 0xffff;
};

// Gives the controller's id. Errors say what the controller objects to.
task<uint16_t> fabrics_connect(queue_pair& on, const identity& who, connect_request what);

task<uint64_t> get_property(queue_pair& on, property which);
task<> set_property(queue_pair& on, property which, uint64_t value);

}  // namespace varve::nvme::host
