// For tests: a system of bdevs and the NVMe-oF target's service, configured by JSON-RPC, and hosts in the same process.
//
//   task<> reads(test_system& s) { co_await s.start(); ... auto c = co_await s.connect(); ... co_await s.stop(); }
//   TEST_P(nvmf_io, reads) { test_system(GetParam()).run(reads); }
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "bdev/registry.h"
#include "json/parse.h"
#include "json/write.h"
#include "nvme/host/controller.h"
#include "targets/nvmf/methods/service.h"
#include "targets/nvmf/tests/test_disk.h"
#include "thread/awaits.h"
#include "thread/test_world.h"

namespace varve::targets::nvmf {

constexpr const char* test_nqn = "nqn.2016-06.io.spdk:cnode1";
constexpr const char* test_host_nqn = "nqn.2014-08.org.nvmexpress:uuid:99999999-2222-3333-4444-555555555555";

struct test_system {
    explicit test_system(thread::world_kind kind, unsigned cpus = 2);
    // Runs the body on the app thread, then stops what the body did not.
    template <class Body>
    void run(Body body) {
        auto whole = [&]() -> task<> {
            auto outcome = co_await as_result(body(*this));
            if (!outcome) ADD_FAILURE() << outcome.error().message();
            co_await stop();
        };
        world.run(whole());
    }

    // The service, a transport, and a subsystem that listens and that every host may connect to.
    task<> start(const char* transport_params = R"({"trtype": "TCP"})");
    task<> stop();

    // A disk of 512-byte blocks unless said otherwise.
    task<test_disk*> add_disk(bdev::properties p);
    // ... exported by the test's subsystem.
    task<test_disk*> export_disk(bdev::properties p, uint32_t nsid = 0);

    // The result, or the error as {"code": ..., "message": ...}.
    task<json::value> ask(std::string method, std::string params = "");
    // Must succeed.
    task<json::value> call(std::string method, std::string params = "");
    // Must fail with the code and a message that begins so.
    task<> refused(std::string method, std::string params, int code, std::string begin);
    // {"nqn": the test's subsystem, FURTHER}
    static std::string with_nqn(const std::string& further = "");
    std::string address_json(uint16_t port = 0) const;  // 0: of the test's listener

    nvme::host::controller_options host(const char* subnqn = test_nqn) const;
    task<std::unique_ptr<nvme::host::controller>> connect() { return nvme::host::controller::connect(host()); }
    // Waits until the condition holds; a failure after ten seconds.
    template <class Condition>
    task<> until(Condition condition, const char* what) {
        time_ns give_up = world.world->now() + 10 * seconds;
        while (!condition()) {
            if (world.world->now() > give_up) co_await fail(errc::timed_out, what);
            co_await sleep(100 * microseconds);
        }
    }

    thread::system_of world;
    log lines;
    bdev::registry devices;
    nvmf::service service;
    rpc::registry methods;
    rpc::states state = rpc::states::startup;
    uint16_t port = 0;
    unsigned disks_made = 0;
};

// What a command was answered with.
task<nvme::status> status_of(nvme::host::queue_pair& on, nvme::sqe command, std::span<std::byte> data = {});

std::vector<std::byte> pattern(std::size_t size, uint32_t seed);

}  // namespace varve::targets::nvmf
