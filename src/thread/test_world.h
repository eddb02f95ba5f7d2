// For tests: a system with some reactors in any of the worlds, and a coroutine to run on it.
//
//   class my_test : public in_every_world {};
//   INSTANTIATE_TEST_SUITE_P(worlds, my_test, every_world(), world_name);
//   TEST_IN_WORLDS(my_test, does_it) { system_of s(GetParam(), 2); s.run(body(*s.rt)); }
//
// A TEST_P runs on Linux, with each kind of loop; a TEST_IN_WORLDS also, as my_test_sim.does_it, in the simulated
// world: once for each seed from 0 to 999 (to 49 under sanitizers), up to the first that fails. The seed is printed,
// also when the process dies of it. VARVE_SEED=n runs that seed alone, VARVE_SEEDS=count so many.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "env/system.h"
#include "thread/runtime.h"

namespace varve::thread {

enum class world_kind : uint8_t { epoll, io_uring, sim };

// Has as many processors as asked for, whatever the machine has: reactors are OS threads that are not bound.
std::unique_ptr<env::system> make_test_world(world_kind kind, unsigned cpus);

inline auto every_world() { return testing::Values(world_kind::epoll, world_kind::io_uring); }
inline std::string world_name(const testing::TestParamInfo<world_kind>& info) {
    return info.param == world_kind::epoll ? "epoll" : "io_uring";
}
using in_every_world = testing::TestWithParam<world_kind>;

// The seed of simulated worlds made from now on.
uint64_t test_seed();
// Sanitizers see what one run does, and take their time: what is tried many times is tried more often without.
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
constexpr bool sanitized = true;
#else
constexpr bool sanitized = false;
#endif
constexpr uint64_t seeds_of_a_test = sanitized ? 50 : 1000;
constexpr uint64_t fewer_if_sanitized(uint64_t seeds) { return sanitized ? (seeds + 9) / 10 : seeds; }
// `count` of them unless VARVE_SEEDS says otherwise.
void for_each_seed(void (*body)(), uint64_t count = seeds_of_a_test);

#define TEST_IN_WORLDS(suite, name)                                                                                 \
    class suite##_##name##_body : public suite {                                                                    \
      public:                                                                                                       \
        explicit suite##_##name##_body(::varve::thread::world_kind kind) : _kind(kind) {}                           \
        ::varve::thread::world_kind GetParam() const { return _kind; }                                              \
        void TestBody() override;                                                                                   \
                                                                                                                    \
      private:                                                                                                      \
        const ::varve::thread::world_kind _kind;                                                                    \
    };                                                                                                              \
    TEST_P(suite, name) { suite##_##name##_body(GetParam()).TestBody(); }                                           \
    TEST(suite##_sim, name) {                                                                                       \
        ::varve::thread::for_each_seed([] { suite##_##name##_body(::varve::thread::world_kind::sim).TestBody(); }); \
    }                                                                                                               \
    void suite##_##name##_body::TestBody()

struct system_of {
    explicit system_of(world_kind kind, unsigned cpus, runtime_options options = {})
        : world(make_test_world(kind, cpus)) {
        options.cpus.emplace();
        for (unsigned i = 0; i < cpus; ++i) options.cpus->add(i);
        auto made = runtime::make(*world, std::move(options));
        if (!made) std::abort();
        rt = std::move(*made);
    }
    // Runs the body on the app thread, and the system until it has ended.
    void run(task<> body) {
        std::optional<error> failed;
        rt->app_thread().post([&] {
            start_detached(std::move(body), [&](result<> outcome) {
                if (!outcome) failed = std::move(outcome).error();
                rt->stop();
            });
        });
        rt->run();
        if (failed) ADD_FAILURE() << failed->message();
    }
    std::unique_ptr<env::system> world;
    std::unique_ptr<runtime> rt;
};

inline thread& here() { return *thread::current(); }

// For gate::spawn, where nothing is expected to fail.
inline void unexpected(error e) { ADD_FAILURE() << e.message(); }

}  // namespace varve::thread
