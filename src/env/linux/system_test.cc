// Clock, processors, randomness, text files, memory and the threads of workers.
#include <sched.h>
#include <sys/stat.h>

#include <atomic>
#include <cstdint>
#include <set>
#include <thread>

#include "env/linux/test_loop.h"

namespace varve::env::os_linux {
namespace {

TEST(system, clock_goes_forward_and_people_have_one_too) {
    auto world = make_system();
    time_ns last = world->now();
    for (int i = 0; i < 1000; ++i) {
        time_ns next = world->now();
        EXPECT_GE(next, last);
        last = next;
    }
    EXPECT_GT(world->wall_clock_ns(), 1'600'000'000 * seconds);
}

TEST(system, random_numbers_and_uuids_differ) {
    auto world = make_system();
    std::set<uint64_t> seen;
    for (int i = 0; i < 1000; ++i) seen.insert(world->random());
    EXPECT_EQ(seen.size(), 1000U);
    EXPECT_NE(world->make_uuid().to_string(), world->make_uuid().to_string());
}

TEST(system, text_is_replaced_in_one_step) {
    scratch_folder folder;
    auto world = make_system();
    std::string path = folder / "config.json";
    EXPECT_EQ(world->read_text(path).error().code(), errc::not_found);
    ASSERT_TRUE(world->write_text(path, "first"));
    struct stat about = {};
    ::stat(path.c_str(), &about);
    EXPECT_EQ(about.st_mode & 07777, 0600U);
    ::chmod(path.c_str(), 0640);
    std::string large(100'000, 'x');
    ASSERT_TRUE(world->write_text(path, large));
    EXPECT_EQ(world->read_text(path).value_or(""), large);
    ::stat(path.c_str(), &about);
    EXPECT_EQ(about.st_mode & 07777, 0640U);
    EXPECT_EQ(world->write_text(folder / "no/such", "x").error().code(), errc::not_found);
    int entries = 0;
    for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder / "")) ++entries;
    EXPECT_EQ(entries, 1);  // no temporary file is left
}

TEST(system, memory_is_zeroed_aligned_and_counted) {
    for (bool hugepages : {true, false}) {
        auto world = make_system({.hugepages = hugepages});
        env::memory& memory = world->mem();
        {
            std::deque<buffer> held;
            for (std::size_t size : {1, 63, 4096, 65535, 65536, 1 << 20, 2 << 20, (4 << 20) + 1, 10 << 20}) {
                for (std::size_t alignment : {1, 64, 4096, 65536, 4 << 20}) {
                    auto made = memory.allocate(size, alignment);
                    ASSERT_TRUE(made);
                    EXPECT_EQ(made->size(), size);
                    EXPECT_EQ(reinterpret_cast<uintptr_t>(made->data()) % std::max<std::size_t>(alignment, 64), 0U);
                    for (std::size_t i = 0; i < size; i += 61) ASSERT_EQ(made->data()[i], std::byte(0));
                    std::memset(made->data(), 0xa5, size);
                    held.push_back(std::move(*made));
                }
            }
            std::size_t total = 0;
            for (buffer& each : held) total += each.size();
            EXPECT_EQ(memory.bytes_allocated(), total);
        }
        EXPECT_EQ(memory.bytes_allocated(), 0U);
        EXPECT_EQ(memory.allocate(std::size_t(1) << 60).error().code(), errc::no_memory);
        EXPECT_EQ(memory.allocate(SIZE_MAX).error().code(), errc::no_memory);
        EXPECT_TRUE(memory.allocate(0));
    }
}

struct noting_worker final : worker {
    explicit noting_worker(unsigned where) : at(where) {}
    bool turn() noexcept override { return false; }
    time_ns next_deadline() const noexcept override { return 0; }
    bool finished() const noexcept override { return true; }
    void run() noexcept override {
        ran_on = static_cast<unsigned>(::sched_getcpu());
        thread = std::this_thread::get_id();
        sigset_t blocked;
        ::pthread_sigmask(SIG_SETMASK, nullptr, &blocked);
        signals_blocked = ::sigismember(&blocked, SIGTERM) == 1;
    }
    unsigned cpu() const noexcept override { return at; }
    unsigned at, ran_on = 9999;
    std::thread::id thread;
    bool signals_blocked = false;
};

TEST(system, each_worker_runs_on_its_processor_and_the_first_right_here) {
    auto world = make_system();
    std::vector<unsigned> cpus = world->cpus();
    ASSERT_FALSE(cpus.empty());
    std::deque<noting_worker> made;
    std::vector<worker*> workers;
    for (unsigned cpu : cpus) workers.push_back(&made.emplace_back(cpu));
    world->run(workers);
    std::set<std::thread::id> threads;
    for (noting_worker& each : made) {
        EXPECT_EQ(each.ran_on, each.at);
        EXPECT_EQ(each.signals_blocked, &each != &made.front());
        threads.insert(each.thread);
    }
    EXPECT_EQ(threads.size(), made.size());
    EXPECT_EQ(made.front().thread, std::this_thread::get_id());
    EXPECT_EQ(world->cpus(), cpus);  // the caller is no longer bound
    world->run({});
}

TEST(system, kind_of_loop_is_chosen_by_option_and_environment) {
    EXPECT_STREQ((*make_system({.kind = loop_kind::epoll})->make_loop())->kind(), "epoll");
    ::setenv("VARVE_LOOP", "epoll", 1);
    auto world = make_system();
    EXPECT_STREQ((*world->make_loop())->kind(), "epoll");
    ::setenv("VARVE_LOOP", "io_uring", 1);
    auto made = world->make_loop();
    if (made) EXPECT_STREQ((*made)->kind(), "io_uring");
    ::unsetenv("VARVE_LOOP");
}

TEST(address, is_written_as_people_write_it) {
    EXPECT_EQ((address{address::family::ipv4, "127.0.0.1", 4420}).to_string(), "127.0.0.1:4420");
    EXPECT_EQ((address{address::family::ipv6, "::1", 4420}).to_string(), "[::1]:4420");
    EXPECT_EQ((address{address::family::unix_path, "/var/tmp/spdk.sock", 0}).to_string(), "/var/tmp/spdk.sock");
}

}  // namespace
}  // namespace varve::env::os_linux
