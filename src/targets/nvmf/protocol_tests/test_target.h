// A target on a simulated machine. run() starts it, with a TCP transport and one subsystem with one namespace (nsid 1,
// a test_disk) that listens at `at`, runs a coroutine as the test, and takes everything down again, in virtual time.
//
//   task<> reads(test_target& t) { ... }
//   TEST(nvmf, reads) { test_target().run(reads); }
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "bdev/registry.h"
#include "env/sim/universe.h"
#include "env/sim/world.h"
#include "targets/nvmf/poll_group.h"
#include "targets/nvmf/protocol_tests/test_disk.h"
#include "targets/nvmf/subsystem.h"
#include "targets/nvmf/target.h"
#include "thread/awaits.h"
#include "thread/runtime.h"
#include "util/log.h"

namespace varve::targets::nvmf::protocol_tests {

struct test_options {
    unsigned cpus = 1;
    uint64_t seed = 1;
    uint64_t buffer_limit = 64 << 20;
    transport_options transport;
    bdev::properties disk = whole_disk();
    bool ana_reporting = false;

    static bdev::properties whole_disk() {
        using enum bdev::op;
        bdev::properties p;
        p.name = "disk";
        p.num_blocks = 4096;
        p.block_size = 512;
        for (bdev::op o : {read, write, flush, unmap, write_zeroes, compare, compare_and_write, copy})
            p.offered |= bdev::op_bit(o);
        return p;
    }
};

class test_target {
  public:
    explicit test_target(test_options how = {})
        : options(std::move(how)),
          all(options.seed, weather()),
          machine(all.add_world("target", {.cpus = options.cpus})),
          _log([this](const log::line& l) { lines.emplace_back(l.text); }),
          logger(_log.component("nvmf")) {}

    void run(task<> (*body)(test_target&)) {
        all.start("target", [&] {
            thread::runtime_options how;
            how.cpus.emplace();
            for (unsigned i = 0; i < options.cpus; ++i) how.cpus->add(i);
            how.buffer_limit = options.buffer_limit;
            auto made = thread::runtime::make(machine, how);
            ASSERT_TRUE(made) << made.error().message();
            system = std::move(*made);
            devices.emplace(*system);
            target.emplace(*system, *devices, logger);
            system->app_thread().post([&] {
                start_detached(whole(body), [&](result<> outcome) {
                    if (!outcome) ADD_FAILURE() << outcome.error().message();
                    system->stop();
                });
            });
            system->run();
            target.reset();
            devices.reset();
            system.reset();
        });
        all.run();
    }

    // A disk more, and its name taken from `p`. It belongs to the registry.
    task<test_disk*> add_disk(bdev::properties p) {
        auto made = std::make_unique<test_disk>(std::move(p));
        test_disk* d = made.get();
        co_await devices->add(std::move(made));
        co_return d;
    }
    poll_group& group(std::size_t n = 0) { return *target->groups()[n]; }

    const test_options options;
    env::sim::universe all;
    env::sim::world& machine;
    std::vector<std::string> lines;  // of the log
    log _log;
    const varve::logger& logger;
    std::unique_ptr<thread::runtime> system;
    std::optional<bdev::registry> devices;
    std::optional<nvmf::target> target;
    subsystem* cnode1 = nullptr;
    test_disk* disk = nullptr;
    const env::address at{.host = "127.0.0.1", .port = 4420};
    const std::string nqn = "nqn.2016-06.io.spdk:cnode1";
    bool keep_target = false;  // the test stops it by itself

  private:
    // Turns and links as they come, but nobody is starved: tests say themselves what is late.
    static env::sim::universe_options weather() {
        env::sim::universe_options how;
        how.schedule.starve_one_in = how.schedule.pause_one_in = 0;
        return how;
    }
    task<> whole(task<> (*body)(test_target&)) {
        co_await target->start();
        co_await target->create_transport(options.transport);
        disk = co_await add_disk(options.disk);
        cnode1 = co_await target->create_subsystem(
            {.nqn = nqn, .allow_any_host = true, .ana_reporting = options.ana_reporting});
        co_await cnode1->add_listener({.at = at});
        co_await cnode1->add_namespace({.nsid = 1, .bdev_name = "disk"});
        result<> outcome = co_await as_result(body(*this));
        if (!keep_target) co_await target->stop();
        co_await devices->remove_all();
        co_await std::move(outcome);
    }
};

// Waits until it holds; a failure after a while of virtual time.
template <class Condition>
task<> until(Condition holds, const char* what, time_ns patience = 100 * seconds) {
    time_ns end = thread::thread::current()->now() + patience;
    while (!holds()) {
        if (thread::thread::current()->now() > end) co_await fail(errc::timed_out, std::string("waiting for ") + what);
        co_await sleep(5 * microseconds);
    }
}

}  // namespace varve::targets::nvmf::protocol_tests
