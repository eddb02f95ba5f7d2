// For tests of the host: coroutines run in every world there is.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>

#include "nvme/host/controller.h"
#include "nvme/host/fake_target.h"
#include "thread/test_world.h"

// ASSERT_EQ for coroutines.
#define ASSERT_EQ_CO(a, b)                      \
    do {                                        \
        const auto assert_a = (a);              \
        const auto assert_b = (b);              \
        EXPECT_EQ(assert_a, assert_b);          \
        if (assert_a != assert_b) std::abort(); \
    } while (false)

namespace varve::nvme::host {

using thread::here;

inline controller_options options_for(const fake_target& target) {
    return {.address = target.address(), .subnqn = "nqn.2024-01.io.varve:test"};
}

class nvme_host : public thread::in_every_world {
  protected:
    // Runs make(runtime), a task, on the app thread until it ends.
    template <class Make>
    static void run(thread::world_kind kind, Make make, unsigned cpus = 1) {
        thread::system_of system(kind, cpus);
        system.run(make(*system.rt));
    }
};

}  // namespace varve::nvme::host
