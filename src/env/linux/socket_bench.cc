// Each loop as a server of NVMe/TCP-shaped traffic over loopback: requests of 72 bytes (and the data of a write),
// answers of a header, data and 24 bytes. The client is bare system calls on another processor, the same for all, so
// the server is what differs. Arguments: data bytes, requests in flight, 1 for writes, 1 for polling without sleep on
// both ends.
//
// The figures are requests per second, and the processor time of the server's thread per request. The first needs two
// processors that nobody else uses; the second is useful on a busy machine too, for the runs that sleep.
#include <benchmark/benchmark.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <time.h>

#include <atomic>
#include <cerrno>
#include <limits>
#include <thread>
#include <vector>

#include "env/linux/descriptor.h"
#include "env/linux/make_system.h"
#include "env/linux/socket_setup.h"

namespace varve::env::os_linux {
namespace {

struct traffic {
    std::size_t data, in_flight;
    bool writes, polls;
    std::size_t request_size() const { return 72 + (writes ? data : 0); }
    std::size_t answer_size() const { return 24 + (writes ? 0 : data + 24); }
};

// Binds the calling thread while it lives.
class bound_to {
  public:
    explicit bound_to(unsigned cpu) {
        ::sched_getaffinity(0, sizeof _before, &_before);
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        ::sched_setaffinity(0, sizeof one, &one);
    }
    ~bound_to() { ::sched_setaffinity(0, sizeof _before, &_before); }

  private:
    cpu_set_t _before = {};
};

// What both ends of a measured connection have: no pacing, room for everything in flight.
void prepare(int socket) {
    int yes = 1, room = 4 << 20;
    ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    ::setsockopt(socket, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5);
    ::setsockopt(socket, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    ::setsockopt(socket, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
}

class server final : public accept_handler, public socket_handler {
  public:
    explicit server(const traffic& shape) : _shape(shape), _data(1 << 19), _answers(shape.in_flight) {
        for (answer& each : _answers) {
            each.mine = this;
            each.done = [](send_op& op) noexcept { static_cast<answer&>(op).mine->_free.push_back(&op); };
            _free.push_back(&each);
        }
    }
    void on_accept(std::unique_ptr<env::socket> fresh) noexcept override {
        connection = std::move(fresh);
        connection->start(*this);
    }
    std::size_t on_data(std::span<const std::byte> bytes) noexcept override {
        for (_have += bytes.size(); _have >= _shape.request_size(); _have -= _shape.request_size()) reply();
        return bytes.size();
    }
    void on_closed(int) noexcept override { connection.reset(), closed = true; }

    std::unique_ptr<env::socket> connection;
    bool closed = false;

  private:
    struct answer : send_op {
        server* mine;
        iovec vectors[3];
    };
    void reply() {
        auto& op = *static_cast<answer*>(_free.back());
        _free.pop_back();
        op.vectors[0] = {_header, 24};
        op.iov = op.vectors;
        op.iov_count = 1;
        if (!_shape.writes) {
            op.vectors[1] = {_data.data() + (_next++ * _shape.data) % (_data.size() - _shape.data + 1), _shape.data};
            op.vectors[2] = {_header, 24};
            op.iov_count = 3;
        }
        connection->send(op);
    }

    const traffic _shape;
    char _header[24] = {};
    std::vector<std::byte> _data;
    std::vector<answer> _answers;
    std::vector<send_op*> _free;
    std::size_t _have = 0, _next = 0;
};

// Keeps `in_flight` requests under way until `end`; how many were answered.
uint64_t drive(int socket, const traffic& shape, env::system& world, time_ns end) {
    std::vector<char> requests(shape.request_size() * shape.in_flight), answers(4 << 20);
    std::size_t owed = shape.in_flight, sent_part = 0, have = 0;
    uint64_t count = 0;
    for (uint64_t turn = 0; (turn & 255) != 0 || world.now() < end; ++turn) {
        if (owed > 0) {
            std::size_t left = owed * shape.request_size() - sent_part;
            ssize_t sent = ::send(socket, requests.data(), left, MSG_NOSIGNAL | MSG_DONTWAIT);
            if (sent > 0) {
                std::size_t total = sent_part + static_cast<std::size_t>(sent);
                owed -= total / shape.request_size();
                sent_part = total % shape.request_size();
            }
        }
        ssize_t got = ::recv(socket, answers.data(), answers.size(), MSG_DONTWAIT);
        if (got <= 0) {
            pollfd readable{.fd = socket, .events = POLLIN, .revents = 0};
            if (!shape.polls) ::poll(&readable, 1, 100);
            continue;
        }
        have += static_cast<std::size_t>(got);
        std::size_t whole = have / shape.answer_size();
        have -= whole * shape.answer_size();
        count += whole;
        owed += whole;
    }
    return count;
}

// Loops do not show their descriptors; what is accepted inherits from what listens.
void prepare_listening() {
    for (int number = 3; number < 1000; ++number) {
        int listens = 0;
        socklen_t size = sizeof listens;
        if (::getsockopt(number, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) == 0 && listens != 0) prepare(number);
    }
}

double thread_seconds() {
    timespec used = {};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    return static_cast<double>(used.tv_sec) + static_cast<double>(used.tv_nsec) / 1e9;
}

void serve(benchmark::State& state, options how) {
    traffic shape{static_cast<std::size_t>(state.range(0)), static_cast<std::size_t>(state.range(1)),
                  state.range(2) != 0, state.range(3) != 0};
    auto world = make_system(how);
    const std::vector<unsigned> cpus = world->cpus();
    server served(shape);
    std::atomic<uint16_t> port = 0;
    std::atomic<bool> accepted = false;
    double used = 0;
    std::thread runs([&] {
        bound_to server_cpu(cpus.back());
        auto loop = std::move(*world->make_loop());
        auto listener = std::move(*loop->listen({address::family::ipv4, "127.0.0.1", 0}, served));
        prepare_listening();
        port = listener->local().port;
        while (!served.connection) loop->poll();
        accepted = true;
        while (!served.closed) shape.polls ? loop->poll() : loop->wait(std::numeric_limits<time_ns>::max());
        used = thread_seconds();
        listener.reset();
    });
    while (port == 0) {
    }
    auto name = numeric_name({address::family::ipv4, "127.0.0.1", port});
    descriptor client(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    prepare(client.get());
    bound_to client_cpu(cpus.front());
    uint64_t answered = 0;
    time_ns took = 0;
    if (::connect(client.get(), name->get(), name->length) != 0) state.SkipWithError("connect");
    while (!accepted) {
    }
    for (auto _ : state) {
        time_ns began = world->now();
        answered += drive(client.get(), shape, *world, began + seconds);
        took += world->now() - began;
    }
    client.reset();
    runs.join();
    auto requests = static_cast<double>(answered);
    state.counters["requests/s"] = requests / (static_cast<double>(took) / 1e9);
    state.counters["server_ns"] = used / requests * 1e9;
}

void shapes(benchmark::internal::Benchmark* bench) {
    bench->Iterations(1)->UseRealTime()->Unit(benchmark::kSecond);
    for (int64_t polls : {0, 1}) {
        for (int64_t writes : {0, 1}) {
            bench->Args({4096, 1, writes, polls})->Args({4096, 32, writes, polls})->Args({4096, 128, writes, polls});
            bench->Args({512, 128, writes, polls})->Args({131072, 16, writes, polls});
        }
    }
}

BENCHMARK_CAPTURE(serve, io_uring, options{.kind = loop_kind::io_uring})->Apply(shapes);
BENCHMARK_CAPTURE(serve, io_uring_plain, options{.kind = loop_kind::io_uring, .incremental_receive = false})
    ->Apply(shapes);
BENCHMARK_CAPTURE(serve, epoll, options{.kind = loop_kind::epoll})->Apply(shapes);

}  // namespace
}  // namespace varve::env::os_linux
