// One command in a queue slot, whatever transport carries it. Belongs to the queue pair's thread.
#pragma once

#include <sys/uio.h>

#include <cstdint>

#include "bdev/io.h"
#include "nvme/spec.h"

namespace varve::targets::nvmf {

class qpair;
struct namespace_view;

// Limits of Copy, as Identify Namespace reports them (MSRC + 1, MSSRL, MCL).
constexpr uint32_t copy_ranges_max = 16, copy_blocks_max = 65536 - 1,
                   copy_total_blocks_max = copy_ranges_max * copy_blocks_max;

struct request {
    bdev::io io;                     // first: the block layer's three lines
    nvme::sqe command;               // as the host sent it
    qpair* queue = nullptr;          // fixed for the life of the slot
    namespace_view* view = nullptr;  // while a block request of it is under way

    // The data buffer: at least data_length bytes. Filled by the transport before execute() when the host sends data;
    // read by it afterwards (transfer_length bytes) when the controller does.
    iovec data{};
    uint32_t data_length = 0;      // what the command's SGL describes
    uint32_t transfer_length = 0;  // controller to host: bytes to send on success; set by execute's side

    // The completion, in host byte order.
    uint64_t result = 0;       // dwords 0 and 1
    nvme::status status{};     // type and code; the transport adds the queue head
    bool dnr = false;          // do not retry
    request* fused = nullptr;  // while a fused pair is carried out: the first half, in the second
    // Until it is: the other half, once both have arrived; whether this one waits, complete, for the other; and what it
    // gets instead when there will be no other.
    request* partner = nullptr;
    bool parked = false;
    nvme::status broken{};
    iovec pair[2];               // the buffers of both halves
    uint32_t copied_blocks = 0;  // Copy: how far the destination has come
};

}  // namespace varve::targets::nvmf
