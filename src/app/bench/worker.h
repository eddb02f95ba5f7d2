// One lightweight thread's load: `depth` slots that each keep one request under way until the time is over.
#pragma once

#include <algorithm>
#include <atomic>
#include <coroutine>
#include <memory>
#include <string>
#include <vector>

#include "app/bench/options.h"
#include "app/bench/pattern.h"
#include "app/bench/port.h"
#include "app/bench/record.h"
#include "env/memory.h"
#include "metrics/histogram.h"
#include "thread/thread.h"

namespace varve::app::bench {

// What a worker has done so far; read by others while it runs.
struct progress {
    std::atomic<uint64_t> ios{0}, bytes{0}, errors{0};
};

struct outcome {
    metrics::histogram latency_ns{10};
    std::string first_failure;
    uint64_t verified = 0;
    bool wrong = false;  // something was read that cannot be
};

template <class Port>
class worker {
  public:
    // Units [first, first + count) of io_size are this worker's. The buffers are made here. `kept`: of all units, or
    // null.
    worker(Port port, const options& how, const geometry& disk, uint64_t first, uint64_t count, env::buffer memory,
           progress& told, record* kept = nullptr)
        : _port(port),
          _how(how),
          _disk(disk),
          _first(first),
          _count(count),
          _blocks(how.io_size / disk.block_size),
          _random(how.seed * 0x9e3779b97f4a7c15 + first + 1),
          _memory(std::move(memory)),
          _record(kept),
          _told(told) {
        _depth = static_cast<unsigned>(std::min<uint64_t>(how.depth, _load_is_verify() ? count : how.depth));
        _slots = std::make_unique<slot[]>(_depth);
        for (unsigned i = 0; i < _depth; ++i) {
            slot& s = _slots[i];
            s.of = this;
            s.index = i;
            s.unseen = i;
            s.data = _memory.data() + static_cast<std::size_t>(i) * how.io_size;
            Port::bind(s);
        }
        if (_load_is_verify()) {
            _generations.resize(count);
            if (_record != nullptr) _generations = _record->issued;
            _fresh.resize(count);
            _last_written.resize(_depth);
        }
        _ended.of = this;
        _ended.run = [](work& w) noexcept { static_cast<ended_work&>(w).of->_waiter.resume(); };
    }

    // co_await: runs until `deadline` (thread::now() time), then until nothing is under way.
    struct running {
        worker& of;
        time_ns deadline;
        bool await_ready() const noexcept { return false; }
        void await_suspend(std::coroutine_handle<> waiter) noexcept {
            of._waiter = waiter;
            of._deadline = deadline;
            of._thread = thread::thread::current();
            of._under_way = of._depth;
            for (unsigned i = 0; i < of._depth; ++i) of.next(of._slots[i]);
        }
        void await_resume() const noexcept {}
    };
    running run(time_ns deadline) noexcept { return {*this, deadline}; }
    const outcome& result() const noexcept { return _outcome; }
    static std::size_t memory_needed(const options& how) noexcept {
        return static_cast<std::size_t>(how.depth) * how.io_size;
    }

  private:
    struct slot {
        typename Port::request request;
        worker* of = nullptr;
        std::byte* data = nullptr;
        time_ns began = 0;
        uint64_t unit = 0;
        unsigned index = 0;
        bdev::op what = bdev::op::read;
        bool looks = false;  // at what an earlier run wrote
        uint64_t unseen = 0;
        record::writes in_flush;
        void finished(bool ok) noexcept { of->finished(*this, ok); }
    };

    bool _load_is_verify() const noexcept { return _how.load == workload::verify; }

    uint64_t random() noexcept {
        _random ^= _random << 13;
        _random ^= _random >> 7;
        _random ^= _random << 17;
        return _random;
    }
    // A number below `n`, without a division.
    uint64_t below(uint64_t n) noexcept {
        return static_cast<uint64_t>(static_cast<unsigned __int128>(random()) * n >> 64);
    }
    uint64_t in_order() noexcept {
        uint64_t unit = _next++;
        if (_next == _count) _next = 0;
        return unit;
    }

    void next(slot& s) noexcept {
        using enum workload;
        switch (_how.load) {
            case randread:
                s.unit = below(_count);
                s.what = bdev::op::read;
                break;
            case randwrite:
                s.unit = below(_count);
                s.what = bdev::op::write;
                break;
            case read:
                s.unit = in_order();
                s.what = bdev::op::read;
                break;
            case write:
                s.unit = in_order();
                s.what = bdev::op::write;
                break;
            case rw:
            case randrw:
                s.unit = _how.load == rw ? in_order() : below(_count);
                s.what = below(100) < _how.read_percent ? bdev::op::read : bdev::op::write;
                break;
            case flush:
                s.unit = 0;
                s.what = bdev::op::flush;
                break;
            case unmap:
                s.unit = below(_count);
                s.what = bdev::op::unmap;
                break;
            case write_zeroes:
                s.unit = below(_count);
                s.what = bdev::op::write_zeroes;
                break;
            case verify:
                choose_verify(s);
                break;
        }
        s.began = _thread->now();
        bool whole_disk = s.what == bdev::op::flush;
        _port.go(s, s.what, whole_disk ? 0 : (_first + s.unit) * _blocks, whole_disk ? 0 : _blocks, _how.io_size);
    }

    // First what earlier runs wrote; then, after each write, a read of something this slot wrote before, usually
    // something else.
    void choose_verify(slot& s) noexcept {
        while (s.unseen < _count && (_record == nullptr || _record->issued[s.unseen] == 0)) s.unseen += _depth;
        s.looks = s.unseen < _count;
        if (s.looks) {
            s.unit = s.unseen;
            s.unseen += _depth;
            s.what = bdev::op::read;
            return;
        }
        constexpr uint64_t flush_one_in = 40;
        if (_record != nullptr && s.what != bdev::op::flush && below(flush_one_in) == 0) {
            s.what = bdev::op::flush;
            s.in_flush = std::exchange(_record->acknowledged, {});
            return;
        }
        uint64_t mine = (_count - s.index + _depth - 1) / _depth;
        s.unit = below(mine) * _depth + s.index;
        bool was_write = s.what == bdev::op::write;
        if (was_write && !_fresh[s.unit]) s.unit = _last_written[s.index];
        s.what = was_write ? bdev::op::read : bdev::op::write;
        if (s.what == bdev::op::write) {
            _last_written[s.index] = s.unit;
            fill({s.data, _how.io_size}, offset_of(s), ++_generations[s.unit], _how.seed);
            if (_record != nullptr) _record->issued[s.unit] = _generations[s.unit];
            _fresh[s.unit] = true;
        }
    }
    uint64_t offset_of(const slot& s) const noexcept { return (_first + s.unit) * _how.io_size; }

    void finished(slot& s, bool ok) noexcept {
        time_ns now = _thread->now();
        _outcome.latency_ns.tally(static_cast<uint64_t>(now - s.began));
        _told.ios.store(_told.ios.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
        if (!ok) [[unlikely]]
            failed(s, Port::failure(s.request));
        if (_load_is_verify() && ok) [[unlikely]]
            verify(s);
        if (now < _deadline && !_broken) [[likely]]
            return next(s);
        if (--_under_way == 0) _thread->defer(_ended);  // later: whoever waits destroys what called this
    }

    void verify(slot& s) noexcept {
        if (s.what == bdev::op::write && _record != nullptr)
            _record->acknowledged.emplace_back(s.unit, _generations[s.unit]);
        if (s.what == bdev::op::flush && _record != nullptr) _record->flushed(s.in_flush);
        if (s.what != bdev::op::read) return;
        ++_outcome.verified;
        generations any{s.looks ? _record->safe[s.unit] : _generations[s.unit], _generations[s.unit]};
        if (auto wrong = check({s.data, _how.io_size}, offset_of(s), any, _how.seed)) {
            _outcome.wrong = true;
            failed(s, *wrong);
        }
    }

    // Errors are counted and the first is told; after the first wrong byte nothing more is written over the evidence.
    void failed(slot& s, std::string why) noexcept {
        _told.errors.store(_told.errors.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
        if (_outcome.first_failure.empty())
            _outcome.first_failure = std::string(bdev::name_of(s.what)) + " of block " +
                                     std::to_string((_first + s.unit) * _blocks) + ": " + why;
        constexpr uint64_t too_many = 1000;
        if (_load_is_verify() || _told.errors.load(std::memory_order_relaxed) >= too_many) _broken = true;
    }

    Port _port;
    const options& _how;
    const geometry& _disk;
    const uint64_t _first, _count;
    const uint32_t _blocks;
    uint64_t _random, _next = 0;
    unsigned _depth = 0, _under_way = 0;
    bool _broken = false;
    time_ns _deadline = 0;
    thread::thread* _thread = nullptr;
    env::buffer _memory;
    std::unique_ptr<slot[]> _slots;
    std::vector<uint64_t> _generations, _last_written;
    std::vector<bool> _fresh;  // written in this run
    record* const _record;
    struct ended_work : work {
        worker* of = nullptr;
    };
    ended_work _ended;
    std::coroutine_handle<> _waiter;
    progress& _told;
    outcome _outcome;
};

}  // namespace varve::app::bench
