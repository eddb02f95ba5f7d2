#include <signal.h>

#include <fmt/format.h>

#include <charconv>
#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include "env/linux/make_system.h"
#include "env/sim/lone_world.h"
#include "thread/test_world.h"

#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#include <sanitizer/common_interface_defs.h>
#endif

namespace varve::thread {
namespace {

class unbound_world final : public env::system {
  public:
    unbound_world(std::unique_ptr<env::system> real, unsigned cpus) : _real(std::move(real)), _cpus(cpus) {}

    time_ns now() noexcept override { return _real->now(); }
    int64_t wall_clock_ns() noexcept override { return _real->wall_clock_ns(); }
    uint64_t random() noexcept override { return _real->random(); }
    env::memory& mem() noexcept override { return _real->mem(); }
    std::vector<unsigned> cpus() const override {
        std::vector<unsigned> all;
        for (unsigned i = 0; i < _cpus; ++i) all.push_back(i);
        return all;
    }
    result<std::unique_ptr<env::loop>> make_loop() override { return _real->make_loop(); }
    result<std::unique_ptr<env::file>> open(const std::string& path, const env::open_options& options) override {
        return _real->open(path, options);
    }
    result<std::string> read_text(const std::string& path) override { return _real->read_text(path); }
    result<> write_text(const std::string& path, std::string_view text) override {
        return _real->write_text(path, text);
    }
    void run(std::span<env::worker* const> workers) override {
        std::vector<std::thread> others;
        for (auto* w : workers.subspan(1)) others.emplace_back([w] { w->run(); });
        workers[0]->run();
        for (auto& t : others) t.join();
    }

  private:
    std::unique_ptr<env::system> _real;
    unsigned _cpus;
};

uint64_t number_from(const char* variable, uint64_t otherwise) {
    const char* text = std::getenv(variable);
    if (text == nullptr) return otherwise;
    uint64_t value = otherwise;
    std::from_chars(text, text + std::strlen(text), value);
    return value;
}

// Whatever the process dies of, it says which seed did it.
struct seed_of_death {
    seed_of_death() {
        for (int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGILL, SIGFPE}) {
            struct sigaction before{};
            sigaction(signal, nullptr, &before);
            if (before.sa_handler == SIG_DFL) ::signal(signal, died);
        }
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
        __sanitizer_set_death_callback(say);
#endif
    }
    static void say() { fmt::print(stderr, "VARVE_SEED={}\n", test_seed()); }
    static void died(int number) {
        say();
        ::signal(number, SIG_DFL);
        ::raise(number);
    }
    uint64_t seed = 0;
};
seed_of_death& now_running() {
    static seed_of_death one;
    return one;
}

}  // namespace

uint64_t test_seed() { return now_running().seed; }

void for_each_seed(void (*body)(), uint64_t count) {
    uint64_t first = number_from("VARVE_SEED", 0);
    count = number_from("VARVE_SEEDS", std::getenv("VARVE_SEED") != nullptr ? 1 : count);
    for (uint64_t seed = first; seed < first + count; ++seed) {
        now_running().seed = seed;
        SCOPED_TRACE("VARVE_SEED=" + std::to_string(seed));
        body();
        if (testing::Test::HasFailure() || testing::Test::IsSkipped()) return;
    }
    now_running().seed = 0;
}

std::unique_ptr<env::system> make_test_world(world_kind kind, unsigned cpus) {
    if (kind == world_kind::sim) {
        return std::make_unique<env::sim::lone_world>(test_seed(), env::sim::world_options{.cpus = cpus});
    }
    auto loops = kind == world_kind::epoll ? env::os_linux::loop_kind::epoll : env::os_linux::loop_kind::automatic;
    return std::make_unique<unbound_world>(env::os_linux::make_system({.kind = loops}), cpus);
}

}  // namespace varve::thread
