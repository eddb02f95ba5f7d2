// What a turn costs when nothing happens, and a piece of work of each kind. The loop does nothing here; the clock is
// Linux's.
#include <benchmark/benchmark.h>

#include <deque>
#include <functional>

#include "env/linux/make_system.h"
#include "env/system.h"
#include "thread/buffer_pool.h"
#include "thread/runtime.h"

namespace varve::thread {
namespace {

class idle_loop final : public env::loop {
  public:
    bool poll() noexcept override { return false; }
    bool wait(time_ns) noexcept override { return false; }
    void wake() noexcept override {}
    std::size_t in_flight() const noexcept override { return 0; }
    void submit(env::file_op&) noexcept override {}
    result<std::unique_ptr<env::listener>> listen(const env::address&, env::accept_handler&) override {
        return fail(errc::unsupported);
    }
    void connect(const env::address&, env::connect_handler&) override {}
    std::unique_ptr<env::detached_socket> detach(std::unique_ptr<env::socket>) noexcept override { return nullptr; }
    result<std::unique_ptr<env::socket>> adopt(std::unique_ptr<env::detached_socket>) override {
        return fail(errc::unsupported);
    }
    result<std::unique_ptr<env::watch>> watch_readable(int, work&) override { return fail(errc::unsupported); }
    const char* kind() const noexcept override { return "idle"; }
};

// Hands the reactors to a function instead of running them.
class bench_world final : public env::system {
  public:
    explicit bench_world(unsigned cpus) : _real(env::os_linux::make_system({})), _cpus(cpus) {}
    time_ns now() noexcept override { return _real->now(); }
    int64_t wall_clock_ns() noexcept override { return 0; }
    uint64_t random() noexcept override { return 0; }
    env::memory& mem() noexcept override { return _real->mem(); }
    std::vector<unsigned> cpus() const override {
        std::vector<unsigned> all;
        for (unsigned i = 0; i < _cpus; ++i) all.push_back(i);
        return all;
    }
    result<std::unique_ptr<env::loop>> make_loop() override { return std::make_unique<idle_loop>(); }
    result<std::unique_ptr<env::file>> open(const std::string&, const env::open_options&) override {
        return fail(errc::unsupported);
    }
    result<std::string> read_text(const std::string&) override { return fail(errc::unsupported); }
    result<> write_text(const std::string&, std::string_view) override { return fail(errc::unsupported); }
    void run(std::span<env::worker* const> workers) override {
        measured(workers);
        for (bool left = true; left;) {
            left = false;
            for (auto* w : workers) {
                if (!w->finished()) w->turn();
                left |= !w->finished();
            }
        }
    }
    std::function<void(std::span<env::worker* const>)> measured;

  private:
    std::unique_ptr<env::system> _real;
    unsigned _cpus;
};

struct bench_system {
    explicit bench_system(unsigned cpus) : world(cpus) {
        cpu_set all;
        for (unsigned i = 0; i < cpus; ++i) all.add(i);
        rt = std::move(*runtime::make(world, {.cpus = all}));
    }
    void run(std::function<void(std::span<env::worker* const>)> measured) {
        world.measured = [&](std::span<env::worker* const> workers) {
            for (int i = 0; i < 100; ++i) {
                for (auto* w : workers) w->turn();
            }
            measured(workers);
            rt->stop();
        };
        rt->run();
    }
    bench_world world;
    std::unique_ptr<runtime> rt;
};

void clock_reading(benchmark::State& state) {
    auto world = env::os_linux::make_system({});
    for (auto _ : state) benchmark::DoNotOptimize(world->now());
}
BENCHMARK(clock_reading);

void empty_turn(benchmark::State& state) {
    bench_system s(1);
    for (int64_t i = 1; i < state.range(0); ++i) (void)s.rt->create_thread("another");
    s.run([&](auto workers) {
        for (auto _ : state) workers[0]->turn();
    });
}
BENCHMARK(empty_turn)->ArgName("threads")->Arg(1)->Arg(2)->Arg(8);

// A piece of work that queues itself again, each time in the next turn.
struct again : work {
    explicit again(thread& on) : home(on) {
        run = [](work& w) noexcept {
            auto& self = static_cast<again&>(w);
            if (self.enough) return;
            ++self.runs;
            self.home.defer(self);
        };
    }
    thread& home;
    uint64_t runs = 0;
    bool enough = false;
};

void deferred_work(benchmark::State& state) {
    bench_system s(1);
    std::deque<again> all;
    for (int64_t i = 0; i < state.range(0); ++i) s.rt->app_thread().post(all.emplace_back(s.rt->app_thread()));
    s.run([&](auto workers) {
        for (auto _ : state) workers[0]->turn();
        for (auto& each : all) each.enough = true;
    });
    state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(deferred_work)->ArgName("queued")->Arg(1)->Arg(32);

struct ball : work {
    thread* sides[2];
    uint64_t hits = 0;
    bool enough = false;
};

// A message between two threads, there and back; on one reactor, or on two driven by this one OS thread.
void ping_pong(benchmark::State& state) {
    bench_system s(static_cast<unsigned>(state.range(0)));
    ball b;
    b.sides[0] = &s.rt->app_thread();
    b.sides[1] = *s.rt->create_thread("other");
    b.run = [](work& w) noexcept {
        auto& self = static_cast<ball&>(w);
        if (self.enough) return;
        self.sides[++self.hits % 2]->post(self);
    };
    b.sides[0]->post(b);
    s.run([&](auto workers) {
        const uint64_t before = b.hits;
        for (auto _ : state) {
            for (auto* w : workers) w->turn();
        }
        state.SetItemsProcessed(static_cast<int64_t>(b.hits - before));
        b.enough = true;
    });
}
BENCHMARK(ping_pong)->ArgName("reactors")->Arg(1)->Arg(2);

void busy_poller(benchmark::State& state) {
    bench_system s(1);
    std::unique_ptr<poller> polls;
    bool found = state.range(0) != 0;
    s.rt->app_thread().post([&] { polls = std::make_unique<poller>("p", poller_kind::busy, [&] { return found; }); });
    s.run([&](auto workers) {
        for (auto _ : state) workers[0]->turn();
    });
    polls.reset();
}
BENCHMARK(busy_poller)->ArgName("finds_work")->Arg(0)->Arg(1);

void timer_restart(benchmark::State& state) {
    bench_system s(1);
    work never{nullptr, [](work&) noexcept {}};
    std::deque<timer> others;
    s.rt->app_thread().post([&] {
        for (int64_t i = 0; i < state.range(0); ++i) others.emplace_back(never).start(seconds + i);
        timer t(never);
        for (auto _ : state) t.start(seconds / 2);
    });
    s.run([](auto) {});
    others.clear();
}
BENCHMARK(timer_restart)->ArgName("others")->Arg(0)->Arg(1000);

void buffer_taken_and_given_back(benchmark::State& state) {
    bench_system s(1);
    s.rt->app_thread().post([&] {
        auto& pool = buffer_pool::of(*thread::current());
        for (auto _ : state) benchmark::DoNotOptimize(pool.try_get(4096));
    });
    s.run([](auto) {});
}
BENCHMARK(buffer_taken_and_given_back);

}  // namespace
}  // namespace varve::thread
