// A way to reach one controller. It only makes queue pairs; what is said over them is the controller's business.
// Others than TCP (PCIe, vfio-user, RDMA) implement this and their own queue_pair, nothing else.
#pragma once

#include <memory>
#include <string>

#include "env/socket.h"
#include "nvme/host/queue_pair.h"
#include "nvme/host/tcp_queue_pair.h"

namespace varve::nvme::host {

class transport {
  public:
    virtual ~transport() = default;
    // A queue pair of the calling thread, ready for commands. Any thread.
    virtual task<std::unique_ptr<queue_pair>> open(queue_options options) const = 0;
    virtual std::string describe() const = 0;  // "tcp://127.0.0.1:4420"
};

std::unique_ptr<transport> make_tcp_transport(env::address to, const tcp_options& options);

}  // namespace varve::nvme::host
