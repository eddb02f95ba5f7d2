// What a poll group knows of one namespace: enough to turn a command into a block request without asking anybody.
#pragma once

#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "bdev/descriptor.h"

namespace varve::targets::nvmf {

struct namespace_view {
    bdev::channel* channel = nullptr;  // null: no such namespace (or closed)
    uint64_t num_blocks = 0;
    uint8_t block_shift = 0;
    bool read_only = false;
    bool restricted = false;  // only some hosts see it: ask controller::sees(nsid)
    uint32_t ana_group = 1;
    // Reads of up to `blank_size` bytes are sent from here, zeroes, when the device leaves memory as it is; else 0.
    uint32_t blank_size = 0;
    std::byte* blank = nullptr;
    uint32_t outstanding = 0;         // block requests under way
    std::coroutine_handle<> drained;  // whoever waits for outstanding == 0
    bdev::channel_ref held;           // keeps `channel` open
};

// Indexed by nsid - 1. One for each subsystem in each poll group; grows only while nothing of it is referred to: views
// are stable because they are allocated singly.
using namespace_table = std::vector<std::unique_ptr<namespace_view>>;

}  // namespace varve::targets::nvmf
