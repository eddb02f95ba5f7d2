// What the programs of one scenario tell each other. They share one OS thread.
#pragma once

#include <string>
#include <utility>

#include "env/sim/disk/disk.h"
#include "env/sim/universe.h"
#include "env/sim/world.h"
#include "sim/scenario.h"

namespace varve::sim {

struct shared_state {
    explicit shared_state(const scenario& what) : how(what), all(what.seed) {}

    const scenario how;
    env::sim::universe all;
    env::sim::world& server = all.add_world("server");
    env::sim::world& host = all.add_world("host");
    env::sim::disk* disk = nullptr;
    outcome result;

    // Operations may fail when a disturbance came since they, or their connection, began; or while one lasts.
    uint64_t disturbances = 0;
    bool parted = false, server_is_up = false;
    bool disturbed() const noexcept { return parted || !server_is_up; }
    bool server_must_end = false;  // of this life
    bool over = false;             // of all
    uint64_t grow_to = 0;          // sectors; 0: stay

    void problem(std::string what) {
        if (result.problems.size() < 20) result.problems.push_back(std::move(what));
    }
};

inline constexpr const char* subsystem_nqn = "nqn.2016-06.io.spdk:sim";
inline constexpr const char* disk_path = "/disk0";
inline constexpr uint16_t port = 4420;

// Programs.
void live_as_server(shared_state& s);
void live_as_host(shared_state& s);
void live_as_fate(shared_state& s);

}  // namespace varve::sim
