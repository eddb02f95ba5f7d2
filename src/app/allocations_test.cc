// Nothing is allocated on the way of a request: every data path is warmed up, and then takes no memory from the heap,
// counted where all of it comes from.
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>

#include "app/bench/port.h"
#include "app/modules.h"
#include "bdev/registry.h"
#include "json/parse.h"
#include "nvme/host/controller.h"
#include "server/instance.h"
#include "thread/sync.h"
#include "thread/test_world.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define VARVE_HEAP_IS_THE_SANITIZERS
#endif
#endif

namespace varve::app {
namespace {

std::atomic<uint64_t> taken{0};  // from the heap, by this process

}  // namespace
}  // namespace varve::app

#ifndef VARVE_HEAP_IS_THE_SANITIZERS
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);

void* malloc(std::size_t size) noexcept {
    varve::app::taken.fetch_add(1, std::memory_order_relaxed);
    return __libc_malloc(size);
}
void* calloc(std::size_t count, std::size_t size) noexcept {
    varve::app::taken.fetch_add(1, std::memory_order_relaxed);
    return __libc_calloc(count, size);
}
void* realloc(void* old, std::size_t size) noexcept {
    varve::app::taken.fetch_add(1, std::memory_order_relaxed);
    return __libc_realloc(old, size);
}
void* aligned_alloc(std::size_t alignment, std::size_t size) noexcept {
    varve::app::taken.fetch_add(1, std::memory_order_relaxed);
    return __libc_memalign(alignment, size);
}
int posix_memalign(void** out, std::size_t alignment, std::size_t size) noexcept {
    varve::app::taken.fetch_add(1, std::memory_order_relaxed);
    *out = __libc_memalign(alignment, size);
    return *out != nullptr ? 0 : ENOMEM;
}
}
#endif

namespace varve::app {
namespace {

constexpr uint32_t io_bytes = 4096;

// Keeps `depth` requests under way, of the given operations in turn, until nothing was taken from the heap during a
// window of them. Pools grow to the largest number there ever was at once, and on a busy machine that may be late; one
// allocation in a thousand requests is seen in every window.
template <class Port>
class load {
  public:
    static constexpr unsigned depth = 32;
    static constexpr uint64_t window = 4000, windows_max = 8;

    load(Port port, uint32_t block_size, std::span<const bdev::op> operations, std::string name)
        : _port(port), _blocks(io_bytes / block_size), _operations(operations), _name(std::move(name)) {
        for (slot& s : _slots) {
            s.of = this;
            s.data = s.memory.data();
            Port::bind(s);
        }
    }
    task<> run() {
        for (slot& s : _slots) next(s);
        co_await _over.wait();
        EXPECT_EQ(_failed, 0u);
        EXPECT_EQ(_in_window, 0u) << "taken from the heap during the last " << window << " requests: " << _name;
    }

  private:
    struct slot {
        typename Port::request request;
        load* of = nullptr;
        std::byte* data = nullptr;
        alignas(4096) std::array<std::byte, io_bytes> memory{};
        void finished(bool ok) noexcept { of->finished(*this, ok); }
    };
    void next(slot& s) noexcept {
        uint64_t number = _begun++;
        bdev::op what = _operations[number % _operations.size()];
        bool whole = what == bdev::op::flush;
        // Not where a multiple of the size begins, so that requests cross boundaries.
        _port.go(s, what, whole ? 0 : number * 3 % 97, whole ? 0 : _blocks, io_bytes);
    }
    void finished(slot& s, bool ok) noexcept {
        _failed += !ok;
        ++_ended;
        if (_ended % window == 0 && !_enough) {
            uint64_t now = taken.load(std::memory_order_relaxed);
            _in_window = now - std::exchange(_before, now);
            _enough = _in_window == 0 || _ended == window * windows_max;
        }
        if (!_enough) return next(s);
        if (_ended == _begun) _over.set();
    }

    Port _port;
    const uint32_t _blocks;
    const std::span<const bdev::op> _operations;
    const std::string _name;
    uint64_t _begun = 0, _ended = 0, _failed = 0, _before = 0, _in_window = 0;
    bool _enough = false;
    event _over;
    std::array<slot, depth> _slots;
};

constexpr bdev::op data_only[] = {bdev::op::read, bdev::op::write};
constexpr bdev::op with_flush[] = {bdev::op::read, bdev::op::write, bdev::op::write, bdev::op::flush};

struct whole_system {
    explicit whole_system(thread::world_kind kind)
        : runs(kind, 1), lines([](const log::line&) {}), system(*runs.rt, lines, {}), devices(add_modules(system)) {}

    template <class Body>
    void run(Body body) {
        runs.run(whole(body(*this)));
    }
    task<> call(std::string method, std::string params) {
        json::value parsed = co_await json::parse(params);
        co_await system.call(method, std::move(parsed));
    }
    task<> load_bdev(std::string name, std::span<const bdev::op> operations) {
        bdev::descriptor opened = co_await devices.open(name, bdev::open_mode::read_write, {});
        bdev::channel_ref channel = opened.channel();
        auto all = std::make_unique<load<bench::bdev_port>>(bench::bdev_port(*channel), opened->block_size(),
                                                            operations, name);
        co_await all->run();
    }

    thread::system_of runs;
    log lines;
    server::instance system;
    bdev::registry& devices;

  private:
    task<> whole(task<> body) {
        co_await system.start();
        auto outcome = co_await as_result(std::move(body));
        co_await system.stop();
        co_await std::move(outcome);
    }
};

class allocations_test : public thread::in_every_world {
  protected:
    void SetUp() override {
#ifdef VARVE_HEAP_IS_THE_SANITIZERS
        GTEST_SKIP() << "the heap is the sanitizer's";
#endif
    }
};

task<> in_memory(whole_system& s) {
    co_await s.call("bdev_null_create", R"({"name": "null", "num_blocks": 4096, "block_size": 512})");
    co_await s.load_bdev("null", data_only);
    co_await s.call("bdev_malloc_create", R"({"name": "malloc", "num_blocks": 4096, "block_size": 512})");
    co_await s.load_bdev("malloc", with_flush);
    co_await s.call("bdev_malloc_create",
                    R"({"name": "split", "num_blocks": 4096, "block_size": 512, "optimal_io_boundary": 4})");
    co_await s.load_bdev("split", data_only);
    co_await s.call("bdev_passthru_create", R"({"name": "passthru", "base_bdev_name": "malloc"})");
    co_await s.load_bdev("passthru", with_flush);
    co_await s.call("bdev_error_create", R"({"base_name": "passthru"})");
    co_await s.call("bdev_delay_create", R"({"name": "delay", "base_bdev_name": "EE_passthru", "avg_read_latency": 20,
        "p99_read_latency": 20, "avg_write_latency": 20, "p99_write_latency": 20})");
    co_await s.load_bdev("delay", with_flush);
}
TEST_P(allocations_test, memory_and_layers) { whole_system(GetParam()).run(in_memory); }

std::string make_file(const char* name) {
    auto path = std::filesystem::temp_directory_path() / (std::string(name) + std::to_string(::getpid()));
    std::ofstream(path).close();
    std::filesystem::resize_file(path, 4096 * 1024);
    return path.string();
}
task<> in_files(whole_system& s) {
    for (const char* kind : {"aio", "uring"}) {
        std::string path = make_file("varve_allocations.");
        co_await s.call(
            "bdev_" + std::string(kind) + "_create",
            R"({"name": ")" + std::string(kind) + R"(", "filename": ")" + path + R"(", "block_size": 4096})");
        std::filesystem::remove(path);
        co_await s.load_bdev(kind, with_flush);
    }
}
TEST_P(allocations_test, files) { whole_system(GetParam()).run(in_files); }

uint16_t free_port() {
    int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof at;
    EXPECT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&at), size), 0);
    EXPECT_EQ(::getsockname(fd, reinterpret_cast<sockaddr*>(&at), &size), 0);
    ::close(fd);
    return ntohs(at.sin_port);
}
task<> load_namespace(nvme::host::controller& c, uint32_t block_size, std::span<const bdev::op> operations) {
    auto queue = co_await c.open_queue();
    {
        auto all =
            std::make_unique<load<bench::nvme_port>>(bench::nvme_port(*queue, 1), block_size, operations, "NVMe/TCP");
        co_await all->run();
    }
    co_await c.close_queue(std::move(queue));
}
task<> over_tcp(whole_system& s) {
    std::string path = make_file("varve_allocations.");
    co_await s.call("bdev_aio_create", R"({"name": "file", "filename": ")" + path + R"(", "block_size": 4096})");
    std::filesystem::remove(path);
    co_await s.call("nvmf_create_transport", R"({"trtype": "TCP"})");
    const std::string nqn = "nqn.2016-06.io.spdk:a";
    const uint16_t port = free_port();
    co_await s.call("nvmf_create_subsystem", R"({"nqn": ")" + nqn + R"(", "allow_any_host": true})");
    co_await s.call("nvmf_subsystem_add_ns", R"({"nqn": ")" + nqn + R"(", "namespace": {"bdev_name": "file"}})");
    co_await s.call("nvmf_subsystem_add_listener", R"({"nqn": ")" + nqn +
                                                       R"(", "listen_address": {"trtype": "TCP", "adrfam": "IPv4",
        "traddr": "127.0.0.1", "trsvcid": ")" + std::to_string(port) +
                                                       R"("}})");
    for (bool digests : {false, true}) {
        nvme::host::controller_options how;
        how.address = {.kind = env::address::family::ipv4, .host = "127.0.0.1", .port = port};
        how.subnqn = nqn;
        how.tcp.header_digest = how.tcp.data_digest = digests;
        auto controller = co_await nvme::host::controller::connect(std::move(how));
        auto loaded = co_await as_result(load_namespace(*controller, 4096, with_flush));
        co_await as_result(controller->disconnect());
        co_await std::move(loaded);
    }
}
TEST_P(allocations_test, nvme_over_tcp_both_ends) { whole_system(GetParam()).run(over_tcp); }

INSTANTIATE_TEST_SUITE_P(worlds, allocations_test, thread::every_world(), thread::world_name);

}  // namespace
}  // namespace varve::app
