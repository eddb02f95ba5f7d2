// The Linux system: small direct calls. What is large lives in files of its own.
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "env/linux/blocking_threads.h"
#include "env/linux/descriptor.h"
#include "env/linux/disk_file.h"
#include "env/linux/epoll/loop.h"
#include "env/linux/file_steps.h"
#include "env/linux/make_system.h"
#include "env/linux/memory.h"
#include "env/linux/uring/loop.h"
#include "util/assert.h"

namespace varve::env::os_linux {
namespace {

// The set of processors a thread may run on, of whatever size the kernel has.
class affinity {
  public:
    affinity() noexcept { ::sched_getaffinity(0, sizeof _set, &_set); }
    static void bind_to(unsigned cpu) noexcept {
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        ::sched_setaffinity(0, sizeof one, &one);
    }
    void restore() const noexcept { ::sched_setaffinity(0, sizeof _set, &_set); }
    std::vector<unsigned> list() const {
        std::vector<unsigned> cpus;
        for (unsigned cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
            if (CPU_ISSET(cpu, &_set)) cpus.push_back(cpu);
        }
        return cpus;
    }

  private:
    cpu_set_t _set = {};
};

time_ns read_clock(clockid_t which) noexcept {
    timespec now = {};
    ::clock_gettime(which, &now);
    return now.tv_sec * seconds + now.tv_nsec;
}

result<> write_all(int number, std::string_view text) noexcept {
    while (!text.empty()) {
        ssize_t wrote = ::write(number, text.data(), text.size());
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote < 0) return fail(from_errno(errno));
        text.remove_prefix(static_cast<std::size_t>(wrote));
    }
    return {};
}

std::string folder_of(const std::string& path) {
    std::size_t slash = path.rfind('/');
    if (slash == std::string::npos) return ".";
    return slash == 0 ? "/" : path.substr(0, slash);
}

class linux_system final : public env::system {
  public:
    explicit linux_system(const options& how) : _options(how), _memory(how.hugepages) {}

    // Through the vDSO: 20 ns here, against 9 of a bare rdtsc that would drift away from the kernel's timers.
    time_ns now() noexcept override { return read_clock(CLOCK_MONOTONIC); }
    int64_t wall_clock_ns() noexcept override { return read_clock(CLOCK_REALTIME); }
    uint64_t random() noexcept override;
    env::memory& mem() noexcept override { return _memory; }
    std::vector<unsigned> cpus() const override { return affinity().list(); }

    result<std::unique_ptr<loop>> make_loop() override;
    result<std::unique_ptr<file>> open(const std::string& path, const open_options& how) override {
        return disk_file::open(path, how);
    }
    result<std::string> read_text(const std::string& path) override;
    result<> write_text(const std::string& path, std::string_view text) override;
    void run(std::span<worker* const> workers) override;

  private:
    loop_kind wanted_loop() const;

    const options _options;
    system_memory _memory;
    zero_pages _zeroes;
    blocking_threads _blocking;
};

uint64_t linux_system::random() noexcept {
    uint64_t value = 0;
    ssize_t got = ::getrandom(&value, sizeof value, 0);
    VARVE_ASSERT(got == sizeof value);  // never interrupted for so few bytes
    return value;
}

loop_kind linux_system::wanted_loop() const {
    if (_options.kind != loop_kind::automatic) return _options.kind;
    const char* said = std::getenv("VARVE_LOOP");
    std::string_view name = said == nullptr ? "" : said;
    if (name == "epoll") return loop_kind::epoll;
    return name == "io_uring" ? loop_kind::io_uring : loop_kind::automatic;
}

result<std::unique_ptr<loop>> linux_system::make_loop() {
    surroundings around{_blocking, _zeroes};
    loop_kind kind = wanted_loop();
    if (kind != loop_kind::epoll) {
        auto made = uring::loop::make(around, _options.incremental_receive);
        if (made || kind == loop_kind::io_uring) return made;
    }
    return epoll::loop::make(around);
}

result<std::string> linux_system::read_text(const std::string& path) {
    descriptor opened(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!opened) return fail(from_errno(errno), path);
    std::string text;
    char piece[16384];
    for (;;) {
        ssize_t got = ::read(opened.get(), piece, sizeof piece);
        if (got == 0) return text;
        if (got > 0) {
            text.append(piece, static_cast<std::size_t>(got));
        } else if (errno != EINTR) {
            return fail(from_errno(errno), path);
        }
    }
}

result<> linux_system::write_text(const std::string& path, std::string_view text) {
    std::string draft = path + ".XXXXXX";
    descriptor opened(::mkostemp(draft.data(), O_CLOEXEC));
    if (!opened) return fail(from_errno(errno), draft);
    struct stat before = {};
    bool replaces = ::stat(path.c_str(), &before) == 0;
    ::fchmod(opened.get(), replaces ? before.st_mode & 07777 : 0600);
    auto written = write_all(opened.get(), text);
    if (written && (::fsync(opened.get()) != 0 || ::rename(draft.c_str(), path.c_str()) != 0)) {
        written = fail(from_errno(errno), path);
    }
    if (!written) {
        ::unlink(draft.c_str());
        return written;
    }
    descriptor folder(::open(folder_of(path).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!folder || ::fsync(folder.get()) != 0) return fail(from_errno(errno), folder_of(path));
    return {};
}

void linux_system::run(std::span<worker* const> workers) {
    if (workers.empty()) return;
    // Signals go to the calling thread, which knows about them: the others are born with all blocked.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    std::vector<std::thread> threads;
    for (worker* each : workers.subspan(1)) {
        threads.emplace_back([each] {
            pthread_setname_np(pthread_self(), ("varve_" + std::to_string(each->cpu())).c_str());
            affinity::bind_to(each->cpu());
            each->run();
        });
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    affinity mine;
    affinity::bind_to(workers.front()->cpu());
    workers.front()->run();
    mine.restore();
    for (std::thread& each : threads) each.join();
}

}  // namespace

std::unique_ptr<env::system> make_system(const options& how) { return std::make_unique<linux_system>(how); }

}  // namespace varve::env::os_linux
