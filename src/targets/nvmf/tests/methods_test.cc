// The nvmf_* methods: replies, errors and saved configuration as SPDK's clients know them.
#include <fmt/format.h>

#include "targets/nvmf/tests/test_system.h"

namespace varve::targets::nvmf {
namespace {

class nvmf_methods : public thread::in_every_world {};
INSTANTIATE_TEST_SUITE_P(worlds, nvmf_methods, thread::every_world(), thread::world_name);

constexpr int invalid_params = -32602, internal_error = -32603;

std::vector<std::string> keys_of(const json::value& v) {
    std::vector<std::string> keys;
    if (v.members() != nullptr)
        for (const json::member& m : *v.members()) keys.push_back(m.name);
    return keys;
}
using names = std::vector<std::string>;

task<> reports_subsystems(test_system& s) {
    co_await s.start();
    co_await s.export_disk({.name = "d0", .uuid = *uuid::parse("dd3f8dae-fc47-4b41-8330-7b3dee945738")});
    co_await s.add_disk({.name = "d1"});
    co_await s.call("nvmf_subsystem_add_ns",
                    s.with_nqn(R"("namespace": {"bdev_name": "d1", "nsid": 5, "eui64": "0011223344556677",
                        "nguid": "00112233445566778899aabbccddeeff", "uuid": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"})"));
    co_await s.call("nvmf_create_subsystem", R"({"nqn": "nqn.2015-06.io.spdk:z", "ana_reporting": true})");
    co_await s.call("nvmf_subsystem_add_host",
                    fmt::format(R"({{"nqn": "nqn.2015-06.io.spdk:z", "host": "{}"}})", test_host_nqn));
    json::value all = co_await s.call("nvmf_get_subsystems");
    EXPECT_EQ(keys_of(all[0]), (names{"nqn", "subtype", "listen_addresses", "allow_any_host", "hosts"}));
    EXPECT_EQ(all[0]["nqn"], json::value("nqn.2014-08.org.nvmexpress.discovery"));
    EXPECT_EQ(all[0]["subtype"], json::value("Discovery"));
    EXPECT_EQ(all[1]["nqn"], json::value("nqn.2015-06.io.spdk:z"));
    EXPECT_EQ(json::write(all[1]["hosts"]), fmt::format(R"([{{"nqn":"{}"}}])", test_host_nqn));
    const json::value& one = all[2];
    EXPECT_EQ(keys_of(one),
              (names{"nqn", "subtype", "listen_addresses", "allow_any_host", "hosts", "serial_number", "model_number",
                     "max_namespaces", "passthrough", "min_cntlid", "max_cntlid", "dmrsl", "wzsl", "namespaces"}));
    EXPECT_EQ(json::write(one["listen_addresses"]),
              fmt::format(R"([{{"trtype":"TCP","adrfam":"IPv4","traddr":"127.0.0.1","trsvcid":"{}"}}])", s.port));
    EXPECT_EQ(json::write(one["namespaces"]),
              R"([{"nsid":1,"bdev_name":"d0","name":"d0","nguid":"DD3F8DAEFC474B4183307B3DEE945738",)"
              R"("uuid":"dd3f8dae-fc47-4b41-8330-7b3dee945738"},)"
              R"({"nsid":5,"bdev_name":"d1","name":"d1","nguid":"00112233445566778899AABBCCDDEEFF",)"
              R"("eui64":"0011223344556677","uuid":"aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"}])");
    EXPECT_EQ(one["max_namespaces"].integer(), 32);
    EXPECT_EQ(one["max_cntlid"].integer(), 65519);
    EXPECT_EQ(one["dmrsl"].integer(), 2097152);
    EXPECT_EQ(one["wzsl"].integer(), 12);
    json::value single = co_await s.call("nvmf_get_subsystems", s.with_nqn());
    EXPECT_EQ(single[0], one);
    EXPECT_EQ(single.items()->size(), 1u);
}
TEST_P(nvmf_methods, report_subsystems_discovery_first_then_by_name) {
    test_system(GetParam()).run(reports_subsystems);
}

struct refusal {
    const char* method;
    const char* params;
    int code;
    const char* begin;
};

task<> check_all(test_system& s, std::span<const refusal> all) {
    for (const refusal& r : all) co_await s.refused(r.method, r.params, r.code, r.begin);
}

task<> refuses_subsystems(test_system& s) {
    co_await s.start();
    static const refusal all[] = {
        {"nvmf_create_subsystem", R"({"nqn": "nqn.2016-06.io.spdk:cnode1"})", internal_error,
         "Unable to create subsystem nqn.2016-06.io.spdk:cnode1"},
        {"nvmf_create_subsystem", R"({"nqn": "foo"})", internal_error, "Unable to create subsystem foo"},
        {"nvmf_create_subsystem", R"({"nqn": "nqn.2016-6.io.spdk:a"})", internal_error,
         "Unable to create subsystem nqn.2016-6.io.spdk:a"},
        {"nvmf_create_subsystem", R"({"nqn": "nqn.2016-06.io.spdk:x", "serial_number": "123456789012345678901"})",
         invalid_params, "Invalid parameters: serial_number"},
        {"nvmf_create_subsystem",
         R"({"nqn": "nqn.2016-06.io.spdk:x", "model_number": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"})",
         invalid_params, "Invalid parameters: model_number"},
        {"nvmf_create_subsystem", R"({"nqn": "nqn.2016-06.io.spdk:x", "serial_number": "a\u0001b"})", invalid_params,
         "Invalid parameters: serial_number"},
        {"nvmf_create_subsystem", R"({"nqn": "nqn.2016-06.io.spdk:x", "min_cntlid": 100, "max_cntlid": 5})",
         invalid_params, "Invalid cntlid range [100-5]"},
        {"nvmf_create_subsystem", R"({"nqn": "nqn.2016-06.io.spdk:x", "min_cntlid": 0})", invalid_params,
         "Invalid cntlid range [0-65519]"},
        {"nvmf_create_subsystem", R"({"nqn": "nqn.2016-06.io.spdk:x", "max_cntlid": 65520})", invalid_params,
         "Invalid cntlid range [1-65520]"},
        {"nvmf_create_subsystem", R"({"nqn": "nqn.2016-06.io.spdk:x", "tgt_name": "nope"})", internal_error,
         "Unable to find target nope"},
        {"nvmf_create_subsystem", R"({"nqn": "nqn.2016-06.io.spdk:x", "max_namespaces": 4294967295})", invalid_params,
         "Invalid parameters: max_namespaces"},
        {"nvmf_create_subsystem", R"({"nqn": "nqn.2016-06.io.spdk:x", "passthrough": true})", invalid_params,
         "Invalid parameters: passthrough"},
        {"nvmf_create_subsystem", R"({"nqn": "nqn.2016-06.io.spdk:x", "bogus": 1})", invalid_params,
         "Invalid parameters"},
        {"nvmf_create_subsystem", "{}", invalid_params, "Invalid parameters"},
        {"nvmf_delete_subsystem", R"({"nqn": "nqn.2016-06.io.spdk:x"})", invalid_params,
         "Subsystem with NQN 'nqn.2016-06.io.spdk:x' not found"},
        {"nvmf_get_subsystems", R"({"nqn": "none"})", invalid_params, "Subsystem with NQN 'none' not found"},
        {"nvmf_get_subsystems", R"({"tgt_name": "none"})", internal_error, "Unable to find target none"},
        {"nvmf_subsystem_get_qpairs", R"({"nqn": "none"})", invalid_params, "Subsystem with NQN 'none' not found"},
        {"nvmf_create_transport", R"({"trtype": "tcp"})", internal_error, "Transport type 'TCP' already exists"},
        {"nvmf_create_transport", R"({"trtype": "bogus"})", invalid_params, "Invalid transport type 'bogus'"},
        {"nvmf_create_transport", R"({"trtype": "RDMA"})", invalid_params, "Invalid transport type 'RDMA'"},
        {"nvmf_get_transports", R"({"trtype": "RDMA"})", -19, "No such device"},
        {"nvmf_get_transports", R"({"tgt_name": "nope"})", internal_error, "Unable to find a target."},
        {"nvmf_create_target", R"({"name": "nvmf_tgt"})", invalid_params, "Target already exists."},
        {"nvmf_create_target", R"({"name": "t2"})", internal_error, "Internal error"},
        {"nvmf_delete_target", R"({"name": "t2"})", invalid_params,
         "The specified target doesn't exist, cannot delete it."},
        {"nvmf_set_max_subsystems", R"({"max_subsystems": 2048})", -1, "Method may only be called before framework"},
        {"nvmf_set_config", R"({"poll_groups_mask": "0x1"})", -1, "Method may only be called before framework"},
        {"nvmf_set_crdt", R"({"crdt1": 10})", -1, "Method may only be called before framework"},
    };
    co_await check_all(s, all);
    co_await s.call("nvmf_delete_subsystem", s.with_nqn());
    co_await s.refused("nvmf_delete_subsystem", s.with_nqn(), invalid_params,
                       "Subsystem with NQN 'nqn.2016-06.io.spdk:cnode1' not found");
}
TEST_P(nvmf_methods, refuse_subsystems_and_transports_as_recorded) { test_system(GetParam()).run(refuses_subsystems); }

std::string ns(const std::string& members) { return test_system::with_nqn(R"("namespace": {)" + members + "}"); }

task<> refuses_namespaces(test_system& s) {
    co_await s.start();
    for (const char* name : {"d0", "d1", "d2"}) co_await s.add_disk({.name = name});
    co_await s.add_disk({.name = "odd", .block_size = 520});
    co_await s.add_disk({.name = "md", .block_size = 512, .metadata_size = 8});
    const char* add = "nvmf_subsystem_add_ns";
    EXPECT_EQ((co_await s.call(add, ns(R"("bdev_name": "d0")"))).integer(), 1);
    EXPECT_EQ((co_await s.call(add, ns(R"("bdev_name": "d1", "nsid": 5)"))).integer(), 5);
    co_await s.refused(add, ns(R"("bdev_name": "d2", "nsid": 5)"), invalid_params,
                       "Invalid parameters: nsid: 5 is in use");
    co_await s.refused(add, ns(R"("bdev_name": "nope")"), invalid_params,
                       "Invalid parameters: bdev_name: nope: No such device");
    co_await s.refused(add, ns(R"("bdev_name": "d0", "nsid": 9)"), invalid_params, "Invalid parameters: bdev_name: d0");
    co_await s.refused(add, ns(R"("bdev_name": "d2", "nguid": "0011")"), invalid_params, "Invalid nguid");
    co_await s.refused(add, ns(R"("bdev_name": "d2", "eui64": "xx11223344556677")"), invalid_params, "Invalid eui64");
    co_await s.refused(add, ns(R"("bdev_name": "d2", "nsid": 4294967295)"), invalid_params, "Invalid parameters: nsid");
    co_await s.refused(add, ns(R"("bdev_name": "d2", "nsid": 33)"), invalid_params, "Invalid parameters: nsid: 33");
    co_await s.refused(add, ns(R"("bdev_name": "d2", "nsid": -1)"), invalid_params,
                       "Invalid parameters: namespace.nsid");
    co_await s.refused(add, ns(R"("bdev_name": "d2", "anagrpid": 33)"), invalid_params, "Invalid parameters: anagrpid");
    co_await s.refused(add, ns(R"("bdev_name": "d2", "uuid": "xyz")"), invalid_params,
                       "Invalid parameters: namespace.uuid");
    co_await s.refused(add, ns(R"("nsid": 3)"), invalid_params, "Invalid parameters: namespace.bdev_name");
    co_await s.refused(add, ns(R"("bdev_name": "d2", "bogus": 1)"), invalid_params,
                       "Invalid parameters: unknown parameter namespace");
    co_await s.refused(add, ns(R"("bdev_name": "odd")"), invalid_params, "Invalid parameters: bdev_name: odd");
    co_await s.refused(add, ns(R"("bdev_name": "md")"), invalid_params, "Invalid parameters: bdev_name: md");
    co_await s.refused(add, s.with_nqn(), invalid_params, "Invalid parameters: namespace");
    co_await s.refused(add, R"({"nqn": "discovery", "namespace": {"bdev_name": "d2"}})", invalid_params,
                       "Invalid parameters: nqn");
    // What was refused has left nothing behind.
    EXPECT_EQ((co_await s.call(add, ns(R"("bdev_name": "d2", "nsid": 0)"))).integer(), 2);

    co_await s.call("nvmf_subsystem_remove_ns", s.with_nqn(R"("nsid": 5)"));
    co_await s.refused("nvmf_subsystem_remove_ns", s.with_nqn(R"("nsid": 5)"), invalid_params,
                       "Invalid parameters: nsid");
    co_await s.refused("nvmf_subsystem_remove_ns", s.with_nqn(R"("nsid": 0)"), invalid_params,
                       "Invalid parameters: nsid");
    co_await s.refused("nvmf_subsystem_remove_ns", s.with_nqn(R"("nsid": 4294967295)"), invalid_params,
                       "Invalid parameters: nsid");
    EXPECT_EQ((co_await s.call(add, ns(R"("bdev_name": "d1")"))).integer(), 3);
}
TEST_P(nvmf_methods, refuse_namespaces_as_recorded) { test_system(GetParam()).run(refuses_namespaces); }

task<> refuses_listeners(test_system& s) {
    co_await s.start();
    const char* add = "nvmf_subsystem_add_listener";
    auto at = [&](const std::string& members, const std::string& further = "") {
        return s.with_nqn(R"("listen_address": {)" + members + "}" + further);
    };
    co_await s.refused(add, s.with_nqn(R"("listen_address": )" + s.address_json()), invalid_params,
                       "Invalid parameters: ");
    for (const char* members : {
             R"("trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.1")",
             R"("trtype": "TCP", "adrfam": "IPv4", "traddr": "10.255.255.1", "trsvcid": "4425")",
             R"("trtype": "TCP", "adrfam": "IPv4", "traddr": "hello", "trsvcid": "4425")",
             R"("trtype": "TCP", "adrfam": "IPvX", "traddr": "127.0.0.1", "trsvcid": "4425")",
             R"("trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.1", "trsvcid": "99999")",
             R"("trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.1", "trsvcid": "0")",
             R"("trtype": "RDMA", "adrfam": "IPv4", "traddr": "127.0.0.1", "trsvcid": "4425")",
             R"("traddr": "127.0.0.1", "trsvcid": "4425")",
         })
        co_await s.refused(add, at(members), invalid_params, "Invalid parameters: ");
    const char* good = R"("trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.1", "trsvcid": "4425")";
    co_await s.refused(add, at(good, R"(, "secure_channel": true)"), invalid_params,
                       "Invalid parameters: secure_channel");
    co_await s.refused(add, at(good, R"(, "sock_impl": "bogus")"), invalid_params, "Invalid parameters: sock_impl");
    co_await s.refused(add, at(good, R"(, "ana_state": "bogus")"), invalid_params, "Invalid parameters: ana_state");
    co_await s.refused(add, R"({"nqn": "none", "listen_address": {"trtype": "TCP", "traddr": "127.0.0.1"}})",
                       invalid_params, "Subsystem with NQN 'none' not found");
    co_await s.refused("nvmf_subsystem_remove_listener", at(good), invalid_params, "Invalid parameters: ");
    const char* set = "nvmf_subsystem_listener_set_ana_state";
    std::string here = R"("listen_address": )" + s.address_json();
    co_await s.refused(set, s.with_nqn(here + R"(, "ana_state": "optimized")"), internal_error,
                       "error setting ANA state: -22");
    co_await s.refused(set, s.with_nqn(here + R"(, "ana_state": "bogus")"), invalid_params,
                       "Invalid parameters: ana_state");
    // Twice at one address: by two subsystems, in any case of letters.
    co_await s.call("nvmf_create_subsystem", R"({"nqn": "nqn.2016-06.io.spdk:cnode2"})");
    co_await s.call(add, fmt::format(R"({{"nqn": "nqn.2016-06.io.spdk:cnode2", "listen_address": {{"trtype": "tcp",
        "adrfam": "ipv4", "traddr": "127.0.0.1", "trsvcid": "{}"}}}})",
                                     s.port));
    co_await s.call("nvmf_subsystem_remove_listener", s.with_nqn(here));
    json::value left = co_await s.call("nvmf_subsystem_get_listeners", R"({"nqn": "nqn.2016-06.io.spdk:cnode2"})");
    EXPECT_EQ(json::write(left),
              fmt::format(R"([{{"address":{{"trtype":"TCP","adrfam":"IPv4","traddr":"127.0.0.1","trsvcid":"{}"}}}}])",
                          s.port));
}
TEST_P(nvmf_methods, refuse_listeners_as_recorded) { test_system(GetParam()).run(refuses_listeners); }

task<> no_transport(test_system& s) {
    co_await s.service.start();
    s.state = rpc::states::runtime;
    co_await s.call("nvmf_create_subsystem", s.with_nqn());
    co_await s.refused("nvmf_subsystem_add_listener",
                       s.with_nqn(R"("listen_address": {"trtype": "TCP", "traddr": "127.0.0.1", "trsvcid": "4425"})"),
                       invalid_params, "Invalid parameters: there is no TCP transport");
    EXPECT_EQ(json::write(co_await s.call("nvmf_get_transports")), "[]");
    EXPECT_EQ(json::write(co_await s.call("nvmf_get_targets")), R"(["nvmf_tgt"])");
}
TEST_P(nvmf_methods, need_a_transport_to_listen) { test_system(GetParam()).run(no_transport); }

task<> refuses_hosts(test_system& s) {
    co_await s.start();
    co_await s.add_disk({.name = "d0"});
    co_await s.add_disk({.name = "d1"});
    std::string host = fmt::format(R"("host": "{}")", test_host_nqn);
    co_await s.call("nvmf_subsystem_add_host", s.with_nqn(host));
    co_await s.refused("nvmf_subsystem_add_host", s.with_nqn(host), internal_error, "Internal error");
    co_await s.refused("nvmf_subsystem_add_host", s.with_nqn(R"("host": "bad")"), internal_error, "Internal error");
    co_await s.refused("nvmf_subsystem_add_host", s.with_nqn(R"("host": "nqn.2016-06.io.spdk:h2", "dhchap_key": "k")"),
                       invalid_params, "Invalid parameters: dhchap_key");
    co_await s.refused("nvmf_subsystem_add_host", s.with_nqn(R"("host": "nqn.2016-06.io.spdk:h2", "psk": "k")"),
                       invalid_params, "Invalid parameters: psk");
    co_await s.refused("nvmf_subsystem_add_host", R"({"nqn": "none", "host": "nqn.2016-06.io.spdk:h2"})",
                       invalid_params, "Subsystem with NQN 'none' not found");
    co_await s.refused("nvmf_subsystem_set_keys", s.with_nqn(host + R"(, "dhchap_key": "k")"), invalid_params,
                       "Invalid parameters: dhchap_key");
    co_await s.call("nvmf_subsystem_remove_host", s.with_nqn(host + R"(, "timeout_ms": 5)"));
    co_await s.refused("nvmf_subsystem_remove_host", s.with_nqn(host), internal_error, "Internal error");

    co_await s.call("nvmf_subsystem_add_ns", ns(R"("bdev_name": "d0")"));
    co_await s.call("nvmf_subsystem_add_ns", ns(R"("bdev_name": "d1", "nsid": 20, "no_auto_visible": true)"));
    co_await s.call("nvmf_ns_add_host", s.with_nqn(R"("nsid": 20, )" + host));
    co_await s.refused("nvmf_ns_add_host", s.with_nqn(R"("nsid": 1, )" + host), invalid_params,
                       "Invalid parameters: nsid");
    co_await s.refused("nvmf_ns_add_host", s.with_nqn(R"("nsid": 30, )" + host), invalid_params,
                       "Invalid parameters: nsid");
    co_await s.call("nvmf_ns_remove_host", s.with_nqn(R"("nsid": 20, )" + host));
    co_await s.call("nvmf_ns_remove_host", s.with_nqn(R"("nsid": 20, )" + host));
    co_await s.refused("nvmf_subsystem_set_ns_ana_group", s.with_nqn(R"("nsid": 5, "anagrpid": 3)"), invalid_params,
                       "Invalid parameters: nsid");
    co_await s.refused("nvmf_subsystem_set_ns_ana_group", s.with_nqn(R"("nsid": 1, "anagrpid": 33)"), invalid_params,
                       "Invalid parameters: anagrpid");
    co_await s.refused("nvmf_subsystem_set_ns_ana_group", s.with_nqn(R"("nsid": 1, "anagrpid": 0)"), invalid_params,
                       "Invalid parameters: anagrpid");
    co_await s.call("nvmf_subsystem_set_ns_ana_group", s.with_nqn(R"("nsid": 1, "anagrpid": 3)"));
}
TEST_P(nvmf_methods, refuse_hosts_as_recorded) { test_system(GetParam()).run(refuses_hosts); }

task<> keeps_referrals(test_system& s) {
    co_await s.start();
    EXPECT_EQ(json::write(co_await s.call("nvmf_discovery_get_referrals")), "[]");
    std::string address = R"("address": {"trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.2", "trsvcid": "8009"})";
    co_await s.call("nvmf_discovery_add_referral", "{" + address + "}");
    co_await s.call("nvmf_discovery_add_referral", "{" + address + "}");
    co_await s.call("nvmf_discovery_add_referral",
                    "{" + address + R"(, "subnqn": "nqn.2016-06.io.spdk:other", "secure_channel": true})");
    EXPECT_EQ(
        json::write(co_await s.call("nvmf_discovery_get_referrals")),
        R"([{"address":{"trtype":"TCP","adrfam":"IPv4","traddr":"127.0.0.2","trsvcid":"8009"},"secure_channel":true,)"
        R"("subnqn":"nqn.2016-06.io.spdk:other"},)"
        R"({"address":{"trtype":"TCP","adrfam":"IPv4","traddr":"127.0.0.2","trsvcid":"8009"},"secure_channel":false,)"
        R"("subnqn":"nqn.2014-08.org.nvmexpress.discovery"}])");
    co_await s.call("nvmf_discovery_remove_referral", "{" + address + "}");
    co_await s.refused("nvmf_discovery_remove_referral", "{" + address + "}", internal_error,
                       "Unable to remove a referral.");
}
TEST_P(nvmf_methods, keep_referrals) { test_system(GetParam()).run(keeps_referrals); }

task<> reports_connections(test_system& s) {
    co_await s.start();
    co_await s.export_disk({});
    EXPECT_EQ(json::write(co_await s.call("nvmf_subsystem_get_controllers", s.with_nqn())), "[]");
    auto c = co_await s.connect();
    auto q = co_await c->open_queue();
    json::value controllers = co_await s.call("nvmf_subsystem_get_controllers", s.with_nqn());
    EXPECT_EQ(
        json::write(controllers),
        fmt::format(
            R"([{{"cntlid":{},"cntrltype":"io","hostnqn":"{}","hostid":"99999999-2222-3333-4444-555555555555","num_io_qpairs":1}}])",
            c->id(), test_host_nqn));
    json::value queues = co_await s.call("nvmf_subsystem_get_qpairs", s.with_nqn());
    EXPECT_EQ(queues.items()->size(), 2u);
    EXPECT_EQ(keys_of(queues[1]),
              (names{"cntlid", "qid", "state", "thread", "hostnqn", "listen_address", "peer_address"}));
    EXPECT_EQ(queues[0]["qid"].integer(), 0);
    EXPECT_EQ(queues[1]["qid"].integer(), 1);
    EXPECT_EQ(json::write(queues[1]["listen_address"]), json::write(*json::parse(s.address_json())));
    EXPECT_EQ(queues[1]["peer_address"]["traddr"], json::value("127.0.0.1"));
    std::vector<std::byte> data(512);
    co_await c->find(1)->read(*q, 0, data);
    json::value stats = co_await s.call("nvmf_get_stats");
    EXPECT_EQ(keys_of(stats), (names{"tick_rate", "poll_groups"}));
    EXPECT_EQ(keys_of(stats["poll_groups"][0]),
              (names{"name", "admin_qpairs", "io_qpairs", "current_admin_qpairs", "current_io_qpairs",
                     "current_unassociated_qpairs", "pending_bdev_io", "completed_nvme_io", "transports"}));
    int64_t admin = 0, io = 0, done = 0;
    for (const json::value& group : *stats["poll_groups"].items()) {
        admin += *group["current_admin_qpairs"].integer();
        io += *group["current_io_qpairs"].integer();
        done += *group["completed_nvme_io"].integer();
    }
    EXPECT_EQ(stats["poll_groups"].items()->size(), 2u);
    EXPECT_EQ(stats["poll_groups"][0]["name"], json::value("nvmf_tgt_poll_group_000"));
    EXPECT_EQ(json::write(stats["poll_groups"][1]["transports"]), R"([{"trtype":"TCP"}])");
    EXPECT_EQ(std::tuple(admin, io, done), std::tuple(1, 1, 1));
    co_await c->close_queue(std::move(q));
    co_await c->disconnect();
    // The target learns of it a little later.
    for (int i = 0; i < 1000 && controllers.items()->size() != 0; ++i) {
        controllers = co_await s.call("nvmf_subsystem_get_controllers", s.with_nqn());
        co_await sleep(1 * milliseconds);
    }
    EXPECT_EQ(json::write(controllers), "[]");
}
TEST_P(nvmf_methods, report_controllers_queue_pairs_and_statistics) {
    test_system(GetParam()).run(reports_connections);
}

// Everything that can be configured, as calls; `saved` is what config() gives of it.
task<> configure(test_system& s) {
    co_await s.call("nvmf_set_config",
                    R"({"discovery_filters": "transport,address", "dup_host_policy": "restrict_per_listener",
        "poll_groups_mask": "0x1", "dhchap_digests": ["sha384"]})");
    co_await s.call("nvmf_set_max_subsystems", R"({"max_subsystems": 64})");
    co_await s.call("nvmf_set_crdt", R"({"crdt1": 1, "crdt2": 2, "crdt3": 3})");
    co_await s.start(R"({"trtype": "tcp", "max_queue_depth": 64, "in_capsule_data_size": 8192})");
    for (const char* name : {"d0", "d1", "d2"}) co_await s.add_disk({.name = name});
    co_await s.call("nvmf_discovery_add_referral",
                    R"({"address": {"trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.2", "trsvcid": "8009"}})");
    co_await s.call("nvmf_subsystem_add_ns",
                    ns(R"("bdev_name": "d0", "eui64": "0011223344556677", "ptpl_file": "/x")"));
    const std::string two = R"("nqn": "nqn.2015-06.io.spdk:cnode2")";
    const std::string host = fmt::format(R"("host": "{}")", test_host_nqn);
    co_await s.call("nvmf_create_subsystem", "{" + two + R"(, "serial_number": "SN2", "max_namespaces": 8,
        "min_cntlid": 5, "max_cntlid": 100, "ana_reporting": true, "admin_label": "label"})");
    co_await s.call("nvmf_subsystem_add_host", "{" + two + ", " + host + "}");
    co_await s.call("nvmf_subsystem_add_ns",
                    "{" + two + R"(, "namespace": {"bdev_name": "d2", "anagrpid": 3, "no_auto_visible": true}})");
    co_await s.call("nvmf_ns_add_host", "{" + two + R"(, "nsid": 1, )" + host + "}");
    const std::string here = R"("listen_address": )" + s.address_json();
    co_await s.call("nvmf_subsystem_add_listener", "{" + two + ", " + here + R"(, "ana_state": "non_optimized"})");
    co_await s.call("nvmf_subsystem_listener_set_ana_state",
                    "{" + two + ", " + here + R"(, "ana_state": "inaccessible", "anagrpid": 3})");
    co_await s.call("nvmf_subsystem_add_listener", R"({"nqn": "discovery", )" + here + "}");
}

names methods_of(const std::vector<rpc::call>& calls) {
    names out;
    for (auto& c : calls) {
        std::string nqn = c.params["nqn"].string() != nullptr ? *c.params["nqn"].string() : "";
        out.push_back(c.method.substr(5) + (nqn.empty() ? "" : " " + nqn.substr(nqn.size() - 6)));
    }
    return out;
}

std::string text_of(const std::vector<rpc::call>& calls) {
    std::string out;
    for (auto& c : calls) out += json::write(rpc::to_json(c)) + "\n";
    return out;
}

task<> saves(test_system& s) {
    co_await configure(s);
    auto calls = *s.service.config();
    names expected{"set_config",
                   "set_max_subsystems",
                   "set_crdt",
                   "create_transport",
                   "discovery_add_referral",
                   "create_subsystem cnode2",
                   "subsystem_add_host cnode2",
                   "create_subsystem cnode1",
                   "subsystem_add_ns cnode2",
                   "ns_add_host cnode2",
                   "subsystem_add_ns cnode1",
                   "subsystem_add_listener covery",
                   "subsystem_add_listener cnode2"};
    for (int group = 1; group <= 8; ++group) expected.push_back("subsystem_listener_set_ana_state cnode2");
    expected.push_back("subsystem_add_listener cnode1");
    EXPECT_EQ(methods_of(calls), expected);
    auto params = [&](std::size_t i) { return json::write(calls[i].params); };
    EXPECT_EQ(
        params(0),
        R"({"discovery_filters":["transport","address"],"admin_cmd_passthru":{"identify_ctrlr":false,)"
        R"("identify_uuid_list":false,"get_log_page":false,"get_set_features":false,"sanitize":false,)"
        R"("security_send_recv":false,"fw_update":false,"nvme_mi":false,"vendor_specific":false},)"
        R"("dhchap_digests":["sha384"],"dhchap_dhgroups":["null","ffdhe2048","ffdhe3072","ffdhe4096","ffdhe6144",)"
        R"("ffdhe8192"],"dup_host_policy":"restrict_per_listener","poll_groups_mask":"0x1"})");
    EXPECT_EQ(params(5), R"({"nqn":"nqn.2015-06.io.spdk:cnode2","allow_any_host":false,"serial_number":"SN2",)"
                         R"("model_number":"SPDK bdev Controller","max_namespaces":8,"min_cntlid":5,"max_cntlid":100,)"
                         R"("ana_reporting":true,"dmrsl":2097152,"wzsl":12,"passthrough":false,"enable_nssr":false,)"
                         R"("admin_label":"label"})");
    const std::string id = s.devices.find("d2")->props().uuid.to_string();
    EXPECT_EQ(
        params(8),
        fmt::format(
            R"({{"nqn":"nqn.2015-06.io.spdk:cnode2","namespace":{{"nsid":1,"bdev_name":"d2","nguid":"{}",)"
            R"("uuid":"{}","anagrpid":3,"no_auto_visible":true}}}})",
            *json::value((co_await s.call("nvmf_get_subsystems",
                                          R"({"nqn": "nqn.2015-06.io.spdk:cnode2"})"))[0]["namespaces"][0]["nguid"])
                 .string(),
            id));
    EXPECT_EQ(keys_of(calls[10].params["namespace"]),
              (names{"nsid", "bdev_name", "ptpl_file", "nguid", "eui64", "uuid", "no_auto_visible"}));
}
TEST_P(nvmf_methods, save_what_was_configured_in_order) { test_system(GetParam()).run(saves); }

// What one system saves makes another that saves the same.
TEST_P(nvmf_methods, load_what_they_saved) {
    std::string first, second;
    std::vector<rpc::call> calls;
    test_system(GetParam()).run([&](test_system& s) -> task<> {
        co_await configure(s);
        calls = *s.service.config();
        first = text_of(calls);
    });
    test_system(GetParam()).run([&](test_system& s) -> task<> {
        for (const char* name : {"d0", "d1", "d2"}) co_await s.add_disk({.name = name});
        for (auto& c : calls) {
            if (c.method == "nvmf_create_transport") {
                co_await s.service.start();
                s.state = rpc::states::runtime;
            }
            co_await s.call(c.method, json::write(c.params));
        }
        second = text_of(*s.service.config());
    });
    EXPECT_EQ(first, second);
}

task<> old_parameters(test_system& s) {
    co_await s.start();
    co_await s.call(
        "nvmf_create_subsystem",
        R"({"nqn": "nqn.2015-06.io.spdk:a", "max_discard_size_kib": 1024, "max_write_zeroes_size_kib": 1024})");
    json::value got = co_await s.call("nvmf_get_subsystems", R"({"nqn": "nqn.2015-06.io.spdk:a"})");
    EXPECT_EQ(got[0]["dmrsl"].integer(), 2048);
    EXPECT_EQ(got[0]["wzsl"].integer(), 8);
}
TEST_P(nvmf_methods, take_parameters_of_the_past) { test_system(GetParam()).run(old_parameters); }

task<> wrong_settings(test_system& s) {
    for (const char* params :
         {R"({"discovery_filter": "bogus"})", R"({"discovery_filters": ["bogus"]})", R"({"discovery_filters": 5})",
          R"({"poll_groups_mask": "0x8000"})", R"({"poll_groups_mask": "hello"})", R"({"poll_groups_mask": "0"})",
          R"({"dup_host_policy": "x"})", R"({"dhchap_digests": "sha1"})"})
        co_await s.refused("nvmf_set_config", params, invalid_params, "Invalid parameters: ");
    co_await s.call("nvmf_set_config",
                    R"({"discovery_filter": "match_any", "admin_cmd_passthru": {"identify_ctrlr": true}})");
    co_await s.refused("nvmf_get_subsystems", "", -1, "Method may only be called after framework is initialized");
}
TEST_P(nvmf_methods, check_settings) { test_system(GetParam()).run(wrong_settings); }

}  // namespace
}  // namespace varve::targets::nvmf
