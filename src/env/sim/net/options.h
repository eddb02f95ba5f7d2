// How a simulated connection behaves.
#pragma once

#include <cstdint>

#include "util/units.h"

namespace varve::env::sim {

struct link_options {
    time_ns delay_min = 2 * microseconds, delay_max = 100 * microseconds;
    uint32_t segment_max = 64 << 10;                        // bytes that travel together; drawn from 1 up
    uint32_t buffer_min = 4 << 10, buffer_max = 512 << 10;  // bytes sent and not yet consumed, per direction
    uint32_t offer_whole_one_in = 2;                        // how often a reader is offered all there is; else less
    // By chance, once in so many; 0: never.
    uint32_t loss_one_in = 0;    // segments after which the connection is lost
    uint32_t refuse_one_in = 0;  // connects
};

}  // namespace varve::env::sim
