// What a whole system saves, a fresh one loads, and has the same state then.
#include <gtest/gtest.h>

#include "app/modules.h"
#include "env/sim/universe.h"
#include "env/sim/world.h"
#include "json/parse.h"
#include "json/write.h"
#include "server/saved_config.h"
#include "thread/runtime.h"

namespace varve::app {
namespace {

// In the form SPDK writes, with something of everything; "fsdev" is a subsystem that is not here.
const char* const config = R"({"subsystems": [
  {"subsystem": "scheduler", "config": [
    {"method": "framework_set_scheduler", "params": {"name": "dynamic", "period": 500000}}]},
  {"subsystem": "sock", "config": [
    {"method": "sock_set_default_impl", "params": {"impl_name": "uring"}},
    {"method": "sock_impl_set_options", "params": {"impl_name": "posix", "recv_buf_size": 65536, "enable_quickack": true}}]},
  {"subsystem": "iobuf", "config": [
    {"method": "iobuf_set_options", "params": {"small_pool_count": 4096, "large_bufsize": 65536}}]},
  {"subsystem": "accel", "config": [{"method": "accel_set_options", "params": {"task_count": 64}}]},
  {"subsystem": "fsdev", "config": [{"method": "fsdev_set_opts", "params": {"fsdev_io_pool_size": 65535}}]},
  {"subsystem": "bdev", "config": [
    {"method": "bdev_set_options", "params": {"bdev_io_pool_size": 4096, "bdev_io_cache_size": 64}},
    {"method": "bdev_nvme_set_options", "params": {"action_on_timeout": "none"}},
    {"method": "bdev_null_create", "params": {"name": "Null0", "num_blocks": 2048, "block_size": 512,
      "uuid": "11111111-2222-3333-4444-555555555551"}},
    {"method": "bdev_error_create", "params": {"base_name": "Null0"}},
    {"method": "bdev_delay_create", "params": {"name": "Delay0", "base_bdev_name": "EE_Null0", "avg_read_latency": 10,
      "p99_read_latency": 11, "avg_write_latency": 12, "p99_write_latency": 13}},
    {"method": "bdev_delay_update_latency", "params": {"delay_bdev_name": "Delay0", "latency_type": "avg_write",
      "latency_us": 77}},
    {"method": "bdev_malloc_create", "params": {"name": "Malloc0", "num_blocks": 256, "block_size": 4096,
      "uuid": "11111111-2222-3333-4444-555555555552"}},
    {"method": "bdev_passthru_create", "params": {"name": "Pt0", "base_bdev_name": "Malloc0"}},
    {"method": "bdev_passthru_create", "params": {"name": "Waits", "base_bdev_name": "Nowhere"}},
    [{"method": "bdev_aio_create", "params": {"name": "Aio0", "filename": "/disk0", "block_size": 512,
        "uuid": "11111111-2222-3333-4444-555555555553"}},
     {"method": "bdev_uring_create", "params": {"name": "Uring0", "filename": "/disk1", "block_size": 4096,
        "uuid": "11111111-2222-3333-4444-555555555554"}}],
    {"method": "bdev_set_qos_limit", "params": {"name": "Null0", "rw_ios_per_sec": 20000, "r_mbytes_per_sec": 50}},
    {"method": "bdev_enable_histogram", "params": {"name": "Null0", "enable": true}},
    {"method": "bdev_wait_for_examine"}]},
  {"subsystem": "nvmf", "config": [
    {"method": "nvmf_set_config", "params": {"dup_host_policy": "allow"}},
    {"method": "nvmf_set_max_subsystems", "params": {"max_subsystems": 64}},
    {"method": "nvmf_set_crdt", "params": {"crdt1": 1, "crdt2": 2, "crdt3": 3}},
    {"method": "nvmf_create_transport", "params": {"trtype": "TCP", "max_queue_depth": 64, "io_unit_size": 65536}},
    {"method": "nvmf_create_subsystem", "params": {"nqn": "nqn.2016-06.io.spdk:cnode1", "allow_any_host": false,
      "serial_number": "SN1", "model_number": "Model", "max_namespaces": 8, "ana_reporting": true}},
    {"method": "nvmf_subsystem_add_host", "params": {"nqn": "nqn.2016-06.io.spdk:cnode1", "host": "nqn.2016-06.io.spdk:h"}},
    {"method": "nvmf_subsystem_add_ns", "params": {"nqn": "nqn.2016-06.io.spdk:cnode1", "namespace": {"nsid": 3,
      "bdev_name": "Pt0", "uuid": "11111111-2222-3333-4444-555555555555", "anagrpid": 3}}},
    {"method": "nvmf_subsystem_add_listener", "params": {"nqn": "nqn.2016-06.io.spdk:cnode1", "listen_address": {
      "trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.1", "trsvcid": "4420"}}}]},
  {"subsystem": "scsi", "config": null}]})";

struct state {
    std::string saved;    // what save_config gives
    std::string replies;  // what clients see of it
};

task<> load_and_look(server::instance& system, const json::value& from, state& to) {
    co_await server::load_all(system, from, false);
    to.saved = json::write(server::saved_config(system), 1);
    for (const char* method :
         {"bdev_get_bdevs", "nvmf_get_subsystems", "nvmf_get_transports", "framework_get_scheduler"}) {
        to.replies += json::write(co_await system.call(method, {}), 1);
    }
}

// One life of a system on this world's disks.
template <class Body>
void live(env::sim::universe& all, env::sim::world& world, Body body) {
    all.start("server", [&] {
        log silent([](const log::line&) {});
        auto threads = std::move(*thread::runtime::make(world, {}));
        server::instance system(*threads, silent, {});
        add_modules(system);
        auto whole = [](server::instance& of, Body& what) -> task<> {
            auto outcome = co_await as_result(what(of));
            co_await of.stop();
            co_await std::move(outcome);
        };
        threads->app_thread().post([&] {
            start_detached(whole(system, body), [&](result<> ended) {
                if (!ended) ADD_FAILURE() << ended.error().message();
                threads->stop();
            });
        });
        threads->run();
    });
    all.run();
}

state state_after(const json::value& from, uint64_t seed) {
    state out;
    env::sim::universe all(seed);
    env::sim::world& world = all.add_world("server");
    world.add_disk("/disk0", 1 << 20);
    world.add_disk("/disk1", 1 << 20);
    live(all, world, [&](server::instance& system) { return load_and_look(system, from, out); });
    return out;
}

TEST(saved_config, loads_again_to_the_same_state) {
    const state first = state_after(*server::read_config(config), 1);
    for (const char* kept :
         {"\"Pt0\"", "\"Waits\"", "\"Null0\"", "\"Delay0\"", "\"avg_write_latency\": 77", "\"/disk1\"",
          "\"recv_buf_size\": 65536", "\"small_pool_count\": 4096", "\"task_count\": 64", "\"period\": 500000",
          "\"bdev_io_pool_size\": 4096", "\"max_subsystems\": 64", "\"crdt2\": 2", "\"max_queue_depth\": 64",
          "\"nsid\": 3", "\"nqn.2016-06.io.spdk:h\"", "\"trsvcid\": \"4420\"", "\"rw_ios_per_sec\": 20000"}) {
        EXPECT_NE(first.saved.find(kept), std::string::npos) << kept << first.saved;
    }
    for (uint64_t seed = 2; seed < 12; ++seed) {
        const state again = state_after(*server::read_config(first.saved), seed);
        EXPECT_EQ(again.saved, first.saved) << "seed " << seed;
        EXPECT_EQ(again.replies, first.replies) << "seed " << seed;
    }
}

task<> make_limited_volume(server::instance& system, std::string& saved) {
    auto call = [&system](const char* method, const char* params) { return system.call(method, *json::parse(params)); };
    co_await system.start();
    co_await call("bdev_aio_create", R"({"name": "Aio0", "filename": "/disk0", "block_size": 512,
        "uuid": "11111111-2222-3333-4444-555555555553"})");
    co_await call("bdev_lvol_create_lvstore", R"({"bdev_name": "Aio0", "lvs_name": "lvs", "cluster_sz": 65536})");
    co_await call("bdev_lvol_create", R"({"lvs_name": "lvs", "lvol_name": "v", "size_in_mib": 1})");
    co_await call("bdev_set_qos_limit", R"({"name": "lvs/v", "rw_ios_per_sec": 20000})");
    co_await call("bdev_enable_histogram", R"({"name": "lvs/v", "enable": true})");
    saved = json::write(server::saved_config(system), 1);
}

task<> load_and_save(server::instance& system, std::string& saved) {
    co_await server::load_all(system, *server::read_config(saved), false);
    saved = json::write(server::saved_config(system), 1);
}

// A volume is there when its store has been found, a moment after its disk; what is saved of it comes before.
TEST(saved_config, waits_for_volumes_that_have_limits) {
    for (uint64_t seed = 1; seed < 6; ++seed) {
        env::sim::universe all(seed);
        env::sim::world& world = all.add_world("server");
        world.add_disk("/disk0", 8 << 20);
        std::string first, again;
        live(all, world, [&](server::instance& system) { return make_limited_volume(system, first); });
        EXPECT_NE(first.find("20000"), std::string::npos) << first;
        again = first;
        live(all, world, [&](server::instance& system) { return load_and_save(system, again); });
        EXPECT_EQ(again, first) << "seed " << seed;
    }
}

// As SPDK writes it: names first, since nothing else is examined, and the bdevs afterwards.
TEST(saved_config, keeps_what_is_to_be_examined) {
    env::sim::universe all(1);
    env::sim::world& world = all.add_world("server");
    world.add_disk("/disk0", 8 << 20);
    std::string first, again;
    live(all, world, [&](server::instance& system) { return make_limited_volume(system, first); });
    const json::value named_first = *server::read_config(R"({"subsystems": [{"subsystem": "bdev", "config": [
        {"method": "bdev_set_options", "params": {"bdev_auto_examine": false}},
        {"method": "bdev_examine", "params": {"name": "Aio0"}},
        {"method": "bdev_aio_create", "params": {"name": "Aio0", "filename": "/disk0", "block_size": 512}},
        {"method": "bdev_wait_for_examine"}]}]})");
    auto load = [](server::instance& system, const json::value& from, std::string& saved) -> task<> {
        co_await server::load_all(system, from, false);
        saved = json::write(server::saved_config(system), 1);
        co_await system.call("bdev_get_bdevs", *json::parse(R"({"name": "lvs/v"})"));
    };
    live(all, world, [&](server::instance& system) { return load(system, named_first, again); });
    EXPECT_LT(again.find("\"bdev_examine\""), again.find("\"bdev_aio_create\"")) << again;
    const json::value saved = *server::read_config(again);
    live(all, world, [&](server::instance& system) { return load(system, saved, first); });
    EXPECT_EQ(first, again);
}

}  // namespace
}  // namespace varve::app
