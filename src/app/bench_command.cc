// varve bench
#include <fmt/format.h>
#include <unistd.h>

#include <charconv>
#include <cstdio>

#include "app/bench/report.h"
#include "app/commands.h"
#include "app/log_sink.h"
#include "app/modules.h"
#include "bdev/registry.h"
#include "env/linux/make_system.h"
#include "nvme/host/controller.h"
#include "server/instance.h"
#include "server/saved_config.h"
#include "thread/awaits.h"
#include "thread/runtime.h"

namespace varve::app::bench {

namespace {

class session {
  public:
    session(const options& how, thread::runtime& threads, server::instance& system, bdev::registry& devices)
        : _how(how), _threads(threads), _system(system), _devices(devices) {}

    task<> run() {
        auto done = co_await as_result(_how.nvme.empty() ? run_on_bdev() : run_on_nvme());
        co_await std::move(done);
    }
    const totals& result() const noexcept { return _totals; }
    const geometry& disk() const noexcept { return _disk; }

  private:
    task<> run_on_bdev() {
        co_await make_bdevs();
        auto loaded = co_await as_result(load_bdev(_devices));
        co_await _system.stop();
        co_await std::move(loaded);
    }

    task<> make_bdevs() {
        if (!_how.config_file.empty()) {
            auto text = _threads.world().read_text(_how.config_file);
            if (!text) co_await fail(std::move(text).error().in("configuration"));
            json::value config = co_await server::read_config(*text);
            co_await server::load_all(_system, std::move(config), false);
            co_return;
        }
        co_await _system.start();
        constexpr uint64_t null_bytes = uint64_t{1} << 40;
        uint32_t block = _how.io_size % 4096 == 0 ? 4096 : 512;
        co_await _system.call(
            "bdev_null_create",
            json::object{{"name", "Null0"}, {"num_blocks", null_bytes / block}, {"block_size", block}});
    }

    task<> load_bdev(bdev::registry& devices) {
        if (devices.devices().empty()) co_await fail(errc::no_device, "the configuration makes no bdev");
        std::string name = _how.bdev.empty() ? devices.devices().front()->name() : _how.bdev;
        bool reads_only =
            _how.load == workload::read || _how.load == workload::randread || _how.load == workload::flush;
        bdev::descriptor disk = co_await devices.open(
            name, reads_only ? bdev::open_mode::read_only : bdev::open_mode::read_write, [](bdev::device_event) {});
        _disk = {disk->num_blocks(), disk->block_size(), name};
        co_await check_sizes();
        co_await load_all_processors([&](thread::thread& on, unsigned index) {
            return call_on(on, [&, index] { return load_channel(disk, index); });
        });
    }

    task<> load_channel(bdev::descriptor& disk, unsigned index) {
        bdev::channel_ref channel = disk.channel();
        co_await work_through(bdev_port(*channel), index);
    }

    task<> run_on_nvme() {
        transport_id id = co_await parse_transport_id(_how.nvme);
        nvme::host::controller_options how;
        how.address.host = id.traddr;
        how.address.kind =
            id.traddr.find(':') == std::string::npos ? env::address::family::ipv4 : env::address::family::ipv6;
        std::from_chars(id.trsvcid.data(), id.trsvcid.data() + id.trsvcid.size(), how.address.port);
        how.subnqn = id.subnqn;
        how.tcp.header_digest = _how.header_digest;
        how.tcp.data_digest = _how.data_digest;
        how.io_queue_entries = static_cast<uint16_t>(std::max(2u, _how.depth + 1));
        auto controller = co_await nvme::host::controller::connect(std::move(how));
        auto loaded = co_await as_result(load_namespace(*controller, id));
        co_await as_result(controller->disconnect());
        co_await std::move(loaded);
    }

    task<> load_namespace(nvme::host::controller& controller, const transport_id& id) {
        if (controller.namespaces().empty()) co_await fail(errc::no_device, "the subsystem has no namespace");
        const nvme::host::ns* found = id.nsid == 0 ? &controller.namespaces().front() : controller.find(id.nsid);
        if (found == nullptr) co_await fail(errc::no_device, fmt::format("there is no namespace {}", id.nsid));
        nvme::host::ns ns = *found;
        _disk = {ns.blocks, ns.block_size, fmt::format("{} namespace {}", id.subnqn, ns.nsid)};
        if (_how.io_size > ns.transfer_max)
            co_await fail(errc::invalid, fmt::format("the controller takes {} bytes in one command, not {}",
                                                     ns.transfer_max, _how.io_size));
        co_await check_sizes();
        co_await load_all_processors([&](thread::thread& on, unsigned index) {
            return call_on(on, [&, index] { return load_queue(controller, ns.nsid, index); });
        });
    }

    task<> load_queue(nvme::host::controller& controller, uint32_t nsid, unsigned index) {
        auto queue = co_await controller.open_queue();
        auto worked = co_await as_result(work_through(nvme_port(*queue, nsid), index));
        co_await controller.close_queue(std::move(queue));
        co_await std::move(worked);
    }

    task<> check_sizes() {
        if (_how.io_size == 0 || _how.io_size % _disk.block_size != 0)
            co_await fail(errc::invalid, fmt::format("--io-size {} is not a multiple of the {} bytes of a block of {}",
                                                     _how.io_size, _disk.block_size, _disk.name));
        _units = _disk.num_blocks * _disk.block_size / _how.io_size;
        if (_how.load == workload::verify) _units = std::min<uint64_t>(_units, verify_units_max);
        if (_units / _threads.cpus().list().size() == 0)
            co_await fail(errc::invalid, fmt::format("{} is smaller than one request for each processor", _disk.name));
    }

    // On the worker's thread.
    template <class Port>
    task<> work_through(Port port, unsigned index) {
        uint64_t share = _units / _told.size();
        env::buffer memory = co_await _threads.world().mem().allocate(worker<Port>::memory_needed(_how));
        std::optional<record> kept;
        if (!_how.record_file.empty()) kept = co_await read_record();
        auto mine = std::make_unique<worker<Port>>(port, _how, _disk, index * share, share, std::move(memory),
                                                   *_told[index], kept ? &*kept : nullptr);
        co_await mine->run(thread::thread::current()->now() + static_cast<time_ns>(_how.seconds) * seconds);
        _outcomes[index] = mine->result();
        if (kept) co_await _threads.world().write_text(_how.record_file, kept->to_text(_how.io_size));
    }

    varve::result<record> read_record() {
        auto text = _threads.world().read_text(_how.record_file);
        if (!text && text.error().code() == errc::not_found) return record(_units);
        if (!text) return fail(std::move(text).error());
        return record::from_text(*text, _units, _how.io_size);
    }

    template <class Start>
    task<> load_all_processors(Start start) {
        std::vector<unsigned> cpus = _threads.cpus().list();
        std::vector<thread::thread*> workers;
        for (unsigned cpu : cpus) {
            thread::cpu_set only;
            only.add(cpu);
            workers.push_back(co_await _threads.create_thread(fmt::format("bench_{}", cpu), only));
            _told.push_back(std::make_unique<progress>());
        }
        _outcomes.resize(cpus.size());
        gate running;
        std::optional<error> failed;
        time_ns began = thread::thread::current()->now();
        _busy = cpus.size();
        for (unsigned i = 0; i < cpus.size(); ++i)
            running.spawn(finish_one(start(*workers[i], i), failed), [](error) {});
        co_await watch(began);
        co_await running.close();
        _totals.took = _ended - began;
        for (thread::thread* w : workers) _threads.destroy_thread(*w);
        if (failed) co_await fail(std::move(*failed));
        sum_up();
    }

    task<> finish_one(task<> load, std::optional<error>& failed) {
        auto outcome = co_await as_result(std::move(load));
        if (!outcome && !failed) failed = std::move(outcome).error();
        --_busy;
        _ended = thread::thread::current()->now();
    }

    uint64_t ios() const noexcept {
        uint64_t sum = 0;
        for (auto& told : _told) sum += told->ios.load(std::memory_order_relaxed);
        return sum;
    }

    task<> watch(time_ns began) {
        bool shown = !_how.json && !_how.quiet && ::isatty(STDERR_FILENO) != 0;
        constexpr time_ns step = 500 * milliseconds, look = 5 * milliseconds;
        uint64_t before = 0;
        time_ns last = began;
        while (_busy != 0) {
            co_await sleep(look);
            time_ns now = thread::thread::current()->now();
            if (now - last < step || !shown) continue;
            uint64_t sum = ios();
            fmt::print(stderr, "{}", progress_line(_how, sum, before, now - last, now - began));
            std::fflush(stderr);
            before = sum;
            last = now;
        }
        if (shown) fmt::print(stderr, "\r{:78}\r", "");
    }

    void sum_up() {
        for (auto& told : _told) {
            _totals.ios += told->ios;
            _totals.errors += told->errors;
        }
        for (auto& o : _outcomes) {
            _totals.latency_ns.merge(o.latency_ns);
            _totals.verified += o.verified;
            _totals.wrong = _totals.wrong || o.wrong;
            if (_totals.first_failure.empty()) _totals.first_failure = o.first_failure;
        }
    }

    static constexpr uint64_t verify_units_max = 1 << 20;  // their generations are remembered

    const options& _how;
    thread::runtime& _threads;
    server::instance& _system;
    bdev::registry& _devices;
    geometry _disk;
    uint64_t _units = 0;
    std::vector<std::unique_ptr<progress>> _told;
    std::vector<outcome> _outcomes;
    std::size_t _busy = 0;
    time_ns _ended = 0;
    totals _totals;
};

int complain(const error& e) {
    fmt::print(stderr, "varve bench: {}\n", e.message());
    return exit_failed;
}

int bench(const options& how) {
    auto world = env::os_linux::make_system();
    log lines(make_log_sink(*world));
    lines.set_print_level(log_level::warning);
    thread::runtime_options runtime_options{.busy_poll = how.busy_poll};
    if (!how.cpus.empty()) {
        auto cpus = thread::cpu_set::parse(how.cpus);
        if (!cpus) return complain(cpus.error());
        runtime_options.cpus = std::move(*cpus);
    }
    auto threads = thread::runtime::make(*world, std::move(runtime_options));
    if (!threads) return complain(threads.error());
    result<> outcome;
    totals found;
    geometry disk;
    {
        server::instance system(**threads, lines, {});
        session s(how, **threads, system, add_modules(system));
        (*threads)->app_thread().post([&] {
            start_detached(s.run(), [&](result<> ended) {
                outcome = std::move(ended);
                (*threads)->stop();
            });
        });
        (*threads)->run();
        found = s.result();
        disk = s.disk();
    }
    if (!outcome) return complain(outcome.error());
    fmt::print("{}", how.json ? as_json(how, disk, found) : in_words(how, disk, found));
    return found.errors == 0 ? exit_ok : exit_failed;
}

}  // namespace

}  // namespace varve::app::bench

namespace varve::app {

int bench_command(const arguments& args) {
    auto asked = bench::parse(args);
    if (!asked) {
        fmt::print(stderr, "varve bench: {}\n", asked.error().message());
        return exit_usage;
    }
    if (asked->what == bench::asked::help) {
        fmt::print("{}", asked->text);
        return exit_ok;
    }
    return bench::bench(asked->how);
}

}  // namespace varve::app
