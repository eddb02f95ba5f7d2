// The body of test_system.h, and what it promises.
#include "targets/nvmf/tests/test_system.h"

#include <fmt/format.h>

namespace varve::targets::nvmf {

namespace {

// A port nobody has now.
struct nobody final : env::accept_handler {
    void on_accept(std::unique_ptr<env::socket>) noexcept override {}
};
result<uint16_t> free_port() {
    nobody none;
    auto listener = thread::here().loop().listen({env::address::family::ipv4, "127.0.0.1", 0}, none);
    if (!listener) return fail(std::move(listener).error());
    return (*listener)->local().port;
}

}  // namespace

test_system::test_system(thread::world_kind kind, unsigned cpus)
    : world(kind, cpus),
      lines([](const log::line&) {}),
      devices(*world.rt),
      service(*world.rt, devices, lines.component("nvmf")) {
    service.add_methods(methods);
}

task<> test_system::start(const char* transport_params) {
    co_await service.start();
    state = rpc::states::runtime;
    port = co_await free_port();
    co_await call("nvmf_create_transport", transport_params);
    co_await call("nvmf_create_subsystem", with_nqn(R"("allow_any_host": true, "serial_number": "TEST1")"));
    co_await call("nvmf_subsystem_add_listener", with_nqn(R"("listen_address": )" + address_json()));
}

task<> test_system::stop() {
    co_await service.stop();
    co_await devices.remove_all();
}

task<test_disk*> test_system::add_disk(bdev::properties p) {
    if (p.name.empty()) p.name = fmt::format("disk{}", disks_made++);
    if (p.num_blocks == 0) p.num_blocks = 2048;
    using bdev::op;
    for (op o : {op::flush, op::unmap, op::write_zeroes, op::compare, op::copy}) p.offered |= bdev::op_bit(o);
    auto made = std::make_unique<test_disk>(std::move(p));
    test_disk* disk = made.get();
    co_await devices.add(std::move(made));
    co_return disk;
}

task<test_disk*> test_system::export_disk(bdev::properties p, uint32_t nsid) {
    test_disk* disk = co_await add_disk(std::move(p));
    co_await call("nvmf_subsystem_add_ns",
                  with_nqn(fmt::format(R"("namespace": {{"bdev_name": "{}", "nsid": {}}})", disk->name(), nsid)));
    co_return disk;
}

task<json::value> test_system::ask(std::string method, std::string params) {
    json::value p;
    if (!params.empty()) p = co_await json::parse(params);
    auto reply = co_await as_result(methods.call(method, std::move(p), state));
    if (reply) co_return std::move(*reply);
    co_return json::value(json::object{{"code", rpc_code(reply.error().code())}, {"message", reply.error().message()}});
}

task<json::value> test_system::call(std::string method, std::string params) {
    json::value reply = co_await ask(method, params);
    if (reply.find("code") != nullptr)
        co_return fail(error(errc::invalid, method + " " + params + ": " + json::write(reply)));
    co_return reply;
}

task<> test_system::refused(std::string method, std::string params, int code, std::string begin) {
    json::value reply = co_await ask(method, params);
    const std::string* message = reply["message"].string();
    EXPECT_EQ(reply["code"].integer(), code) << method << ' ' << params << ": " << json::write(reply);
    EXPECT_TRUE(message != nullptr && message->starts_with(begin))
        << method << ' ' << params << ": " << json::write(reply);
}

std::string test_system::with_nqn(const std::string& further) {
    return fmt::format(R"({{"nqn": "{}"{}{}}})", test_nqn, further.empty() ? "" : ", ", further);
}

std::string test_system::address_json(uint16_t p) const {
    return fmt::format(R"({{"trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.1", "trsvcid": "{}"}})",
                       p == 0 ? port : p);
}

nvme::host::controller_options test_system::host(const char* subnqn) const {
    nvme::host::controller_options o;
    o.address = {env::address::family::ipv4, "127.0.0.1", port};
    o.subnqn = subnqn;
    o.hostnqn = test_host_nqn;
    o.host_id = *uuid::parse("99999999-2222-3333-4444-555555555555");
    return o;
}

task<nvme::status> status_of(nvme::host::queue_pair& on, nvme::sqe command, std::span<std::byte> data) {
    nvme::host::request r;
    r.command = command;
    r.set_data(data);
    co_await nvme::host::execute(on, r);
    co_return r.code();
}

std::vector<std::byte> pattern(std::size_t size, uint32_t seed) {
    std::vector<std::byte> bytes(size);
    for (auto& b : bytes) b = static_cast<std::byte>((seed = seed * 1664525 + 1013904223) >> 24);
    return bytes;
}

namespace {

class nvmf_test_system : public thread::in_every_world {};
INSTANTIATE_TEST_SUITE_P(worlds, nvmf_test_system, thread::every_world(), thread::world_name);

task<> starts(test_system& s) {
    co_await s.start();
    test_disk* disk = co_await s.export_disk({});
    auto c = co_await s.connect();
    EXPECT_EQ(c->namespaces().size(), 1u);
    auto q = co_await c->open_queue();
    auto out = pattern(4096, 1);
    auto in = pattern(4096, 2);
    co_await c->namespaces()[0].write(*q, 8, out);
    co_await c->namespaces()[0].read(*q, 8, in);
    EXPECT_EQ(in, out);
    EXPECT_EQ(disk->times(bdev::op::write), 1u);
    EXPECT_EQ(std::memcmp(disk->blocks.data() + 8 * 512, out.data(), out.size()), 0);
    co_await c->close_queue(std::move(q));
    co_await c->disconnect();
}
TEST_IN_WORLDS(nvmf_test_system, serves_a_host) { test_system(GetParam()).run(starts); }
TEST_IN_WORLDS(nvmf_test_system, stops_without_a_start) {
    test_system(GetParam()).run([](test_system&) -> task<> { co_return; });
}

}  // namespace
}  // namespace varve::targets::nvmf
