// The host of a scenario: workers, each with a connection and a part of the disk of its own, write, read, flush and
// check, and connect again whenever fate has struck.
#include <fmt/format.h>

#include <memory>
#include <vector>

#include "env/memory.h"
#include "nvme/host/controller.h"
#include "sim/ledger.h"
#include "sim/shared_state.h"
#include "thread/awaits.h"
#include "thread/gate.h"
#include "thread/runtime.h"

namespace varve::sim {

namespace {

namespace nvme_host = nvme::host;

class worker {
  public:
    worker(shared_state& s, unsigned number, uint64_t sectors)
        : _s(s),
          _number(number),
          _chance(s.all.stream(fmt::format("worker {}", number))),
          _ledger(number * sectors, sectors),
          _left(s.how.operations) {}

    task<> live() {
        _memory = co_await _s.host.mem().allocate(span_max * ledger::sector_size);
        time_ns give_up = _s.all.now() + 600 * seconds;
        while (_left > 0 || !_verified) {
            if (_s.all.now() > give_up) co_return _s.problem(fmt::format("worker {} does not get through", _number));
            bool disturbed = _s.disturbed();
            uint64_t before = _s.disturbances;
            auto ended = co_await as_result(session());
            if (!ended && !disturbed && before == _s.disturbances) {
                _s.problem(fmt::format("worker {}, undisturbed: {}", _number, ended.error().message()));
            }
            // The server may still be carrying out what was under way when the connection went. A host without
            // recovery can but wait until that is over.
            if (_left > 0 || !_verified) co_await sleep(2 * seconds);
        }
    }

  private:
    static constexpr uint64_t span_max = 40;

    task<> session() {
        nvme_host::controller_options o;
        o.address = {env::address::family::ipv4, _s.server.host(), port};
        o.subnqn = subsystem_nqn;
        o.host_id = _s.host.make_uuid();
        o.tcp.header_digest = _chance.coin();
        o.tcp.data_digest = _chance.coin();
        auto connected = co_await nvme_host::controller::connect(o);
        ++_s.result.connections;
        auto done = co_await as_result(use(*connected));
        co_await as_result(connected->disconnect());
        co_await std::move(done);
    }

    task<> use(nvme_host::controller& c) {
        const nvme_host::ns* found = c.find(1);
        if (found == nullptr) co_await fail(errc::no_device, "namespace 1");
        nvme_host::ns disk = *found;
        auto queue = co_await c.open_queue();
        auto done = co_await as_result(work_on(disk, *queue));
        co_await as_result(c.close_queue(std::move(queue)));
        co_await std::move(done);
    }

    task<> work_on(const nvme_host::ns& disk, nvme_host::queue_pair& queue) {
        while (_left > 0) {
            --_left;
            ++_s.result.operations;
            uint64_t dice = _chance.below(100);
            if (dice < 50) {
                co_await write(disk, queue);
            } else if (dice < 80) {
                co_await read(disk, queue);
            } else if (dice < 92) {
                co_await disk.flush(queue);
                notice_power_cuts();
                _ledger.flush_succeeded();
            } else {
                co_await visit_the_other_namespace(queue);
            }
            if (_chance.one_in(3)) co_await sleep(_chance.between_log<time_ns>(microseconds, 20 * milliseconds));
        }
        for (uint64_t at = 0; at < _ledger.sectors(); at += span_max) {
            co_await read_at(disk, queue, _ledger.first() + at, std::min(span_max, _ledger.sectors() - at));
        }
        _verified = true;
    }

    void draw_range(uint64_t& lba, uint64_t& count) {
        count = _chance.between_log<uint64_t>(1, std::min(span_max, _ledger.sectors()));
        lba = _ledger.first() + _chance.between<uint64_t>(0, _ledger.sectors() - count);
    }

    task<> write(const nvme_host::ns& disk, nvme_host::queue_pair& queue) {
        uint64_t lba = 0, count = 0, generation = ++_generation;
        draw_range(lba, count);
        auto bytes = _memory.bytes().first(count * ledger::sector_size);
        ledger::fill(lba, bytes, generation);
        notice_power_cuts();
        _ledger.write_submitted(lba, count, generation);
        co_await disk.write(queue, lba, bytes);
        // Its success is older than a power cut noticed only now.
        _ledger.write_succeeded(lba, count, generation);
    }

    task<> read(const nvme_host::ns& disk, nvme_host::queue_pair& queue) {
        uint64_t lba = 0, count = 0;
        draw_range(lba, count);
        co_await read_at(disk, queue, lba, count);
    }
    task<> read_at(const nvme_host::ns& disk, nvme_host::queue_pair& queue, uint64_t lba, uint64_t count) {
        auto bytes = _memory.bytes().first(count * ledger::sector_size);
        notice_power_cuts();
        uint64_t cuts = _cuts_seen;
        co_await disk.read(queue, lba, bytes);
        if (cuts != _s.result.power_cuts) co_return;  // from before a cut: no news
        if (auto wrong = _ledger.check_read(lba, bytes)) {
            _s.problem(fmt::format("worker {}: sector {} holds what it may not (operation {}, {} power cuts, {} ns)",
                                   _number, *wrong, _s.how.operations - _left, _s.result.power_cuts, _s.all.now()));
        }
    }

    // It comes and goes: any answer will do, but there must be one.
    task<> visit_the_other_namespace(nvme_host::queue_pair& queue) {
        nvme_host::request r;
        r.command = nvme_host::block_command(nvme::nvm_opcode::read, 2, _chance.below(60), 1);
        auto bytes = _memory.bytes().first(ledger::sector_size);
        r.set_data(bytes);
        co_await nvme_host::execute(queue, r);
    }

    void notice_power_cuts() {
        if (_cuts_seen == _s.result.power_cuts) return;
        _cuts_seen = _s.result.power_cuts;
        _ledger.power_was_cut();
    }

    shared_state& _s;
    const unsigned _number;
    env::sim::rng _chance;
    ledger _ledger;
    env::buffer _memory;
    unsigned _left;
    bool _verified = false;
    uint64_t _generation = 0;
    uint64_t _cuts_seen = 0;
};

task<> work(std::vector<std::unique_ptr<worker>>& workers, shared_state& s) {
    gate all;
    for (auto& w : workers) {
        all.spawn(w->live(), [&s](error e) { s.problem("the host: " + e.message()); });
    }
    co_await all.close();
}

}  // namespace

void live_as_host(shared_state& s) {
    thread::cpu_set cpus;
    cpus.add(0);
    auto threads = thread::runtime::make(s.host, {.cpus = cpus});
    if (!threads) return s.problem("no runtime: " + threads.error().message());
    {
        std::vector<std::unique_ptr<worker>> workers;
        for (unsigned i = 0; i < s.how.workers; ++i) {
            workers.push_back(std::make_unique<worker>(s, i, s.how.sectors / s.how.workers));
        }
        (*threads)->app_thread().post([&] { start_detached(work(workers, s), [&](result<>) { (*threads)->stop(); }); });
        (*threads)->run();
    }
    s.over = true;
}

}  // namespace varve::sim
