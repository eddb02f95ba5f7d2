// For tests: a system with a registry, and memory that does what it is told. It offers what it is told to offer, checks
// what the core promises about requests (bounds, alignment, boundaries, sizes), keeps requests until told to go on, or
// fails them.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bdev/awaits.h"
#include "bdev/batch.h"
#include "bdev/registry.h"
#include "thread/sync.h"
#include "thread/test_world.h"

namespace varve::bdev {

class ram_device;

// What all channels of a device look at. Changed on the app thread while nothing is under way on others.
struct ram_behaviour {
    bool keep = false;  // requests stay in the channel until ram_channel::let_go
    bool recall = false;
    status answer = status::ok;
};

class ram_channel final : public batching_channel {
  public:
    explicit ram_channel(ram_device& d);
    ~ram_channel() override;

    // Completes what was kept.
    void let_go() noexcept {
        for (work* w = _kept.take_all(); w != nullptr;) {
            work* next = w->next;
            gather(static_cast<io&>(*w));
            w = next;
        }
    }
    std::size_t kept() const noexcept { return _kept_count; }

  private:
    void do_submit(io& r) noexcept override;
    void run_batch(work* first) noexcept override;
    bool do_abort(io& r) noexcept override;
    void do_abort_all() noexcept override;
    void check(const io& r) const noexcept;
    status carry_out(io& r) noexcept;

    ram_device& _device;
    queue<work> _kept;
    std::size_t _kept_count = 0;
};

class ram_device : public device {
  public:
    explicit ram_device(properties p, ram_behaviour how = {})
        : device(std::move(p)), behaviour(how), blocks(num_blocks() * block_size()) {}
    ram_device(properties p, std::vector<std::byte> contents) : device(std::move(p)), blocks(std::move(contents)) {}
    std::string_view module_name() const noexcept override { return "ram"; }
    std::unique_ptr<channel> open_channel() override { return std::make_unique<ram_channel>(*this); }
    task<> reset() override {
        ++resets;
        if (reset_ends != nullptr) co_await reset_ends->wait();
    }
    task<> destruct() override {
        if (destructed != nullptr) *destructed = true;
        co_return;
    }
    ram_behaviour behaviour;
    std::vector<std::byte> blocks;
    std::atomic<ram_channel*> opened = nullptr;  // the last one; for tests on one thread
    // Held while blocks are touched: several threads may use the same ones, as with a disk.
    std::atomic_flag busy;
    unsigned resets = 0;
    event* reset_ends = nullptr;  // what a reset waits for
    bool* destructed = nullptr;
};

inline ram_channel::ram_channel(ram_device& d) : _device(d) { d.opened = this; }
inline ram_channel::~ram_channel() {
    ram_channel* me = this;
    _device.opened.compare_exchange_strong(me, nullptr);
}

inline void ram_channel::do_submit(io& r) noexcept {
    check(r);
    if (!_device.behaviour.keep) return gather(r);
    _kept.push(r);
    ++_kept_count;
}
inline void ram_channel::run_batch(work* first) noexcept {
    while (first != nullptr) {
        io& r = *static_cast<io*>(first);
        first = after(r);
        status outcome = _device.behaviour.answer;
        if (outcome == status::ok) {
            while (_device.busy.test_and_set(std::memory_order_acquire)) {
            }
            outcome = carry_out(r);
            _device.busy.clear(std::memory_order_release);
        }
        complete(r, outcome);
    }
}
inline bool ram_channel::do_abort(io& r) noexcept {
    const bool found = _device.behaviour.recall && take_from(_kept, r);
    if (found) complete_later(r, status::aborted);
    return found;
}
inline void ram_channel::do_abort_all() noexcept {
    if (!_device.behaviour.recall) return;
    for (work* w = _kept.take_all(); w != nullptr;) {
        work* next = w->next;
        complete_later(static_cast<io&>(*w), status::aborted);
        w = next;
    }
}

inline void ram_channel::check(const io& r) const noexcept {
    const properties& p = _device.props();
    EXPECT_TRUE(_device.offers(r.operation)) << name_of(r.operation);
    if (r.operation == op::flush) return;
    EXPECT_GT(r.blocks, 0u);
    EXPECT_TRUE(range_inside(r.lba, r.blocks, _device.blocks.size() / p.block_size)) << r.lba << " " << r.blocks;
    const bool zeroes = r.operation == op::unmap || r.operation == op::write_zeroes;
    if (p.split_on_boundary && !(zeroes && p.zeroing_crosses_boundary)) {
        EXPECT_EQ(r.lba / p.optimal_io_boundary, (r.lba + r.blocks - 1) / p.optimal_io_boundary);
    }
    if (r.operation != op::read && r.operation != op::write && r.operation != op::compare) return;
    if (p.max_blocks != 0) EXPECT_LE(r.blocks, p.max_blocks);
    if (p.max_segments != 0) EXPECT_LE(r.iov_count, p.max_segments);
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < r.iov_count; ++i) {
        bytes += r.iov[i].iov_len;
        EXPECT_EQ(reinterpret_cast<uintptr_t>(r.iov[i].iov_base) % p.alignment, 0u);
        EXPECT_EQ(r.iov[i].iov_len % p.alignment, 0u);
    }
    EXPECT_GE(bytes, uint64_t{r.blocks} * p.block_size);
}

inline status ram_channel::carry_out(io& r) noexcept {
    uint32_t block = _device.block_size();
    std::byte* at = _device.blocks.data() + r.lba * block;
    std::size_t left = std::size_t{r.blocks} * block;
    switch (r.operation) {
        case op::unmap:
        case op::write_zeroes:
            std::memset(at, 0, left);
            [[fallthrough]];
        case op::flush:
            return status::ok;
        case op::copy:
            std::memmove(at, _device.blocks.data() + r.source_lba * block, left);
            return status::ok;
        default:
            break;
    }
    for (const iovec* v = r.iov; left > 0; ++v) {
        std::size_t here = std::min(left, v->iov_len);
        if (r.operation == op::read) std::memcpy(v->iov_base, at, here);
        if (r.operation == op::write) std::memcpy(at, v->iov_base, here);
        if (r.operation == op::compare && std::memcmp(at, v->iov_base, here) != 0) return status::compare_failed;
        at += here;
        left -= here;
    }
    return status::ok;
}

// Runs a coroutine on a system with a registry; what it leaves behind is removed.
struct bdev_system {
    explicit bdev_system(thread::world_kind kind, unsigned cpus = 1) : system(kind, cpus), devices(*system.rt) {}

    void run(task<> body) { system.run(whole(std::move(body))); }
    task<ram_device*> add(properties p, ram_behaviour how = {}) {
        if (p.name.empty()) p.name = "ram";
        auto made = std::make_unique<ram_device>(std::move(p), how);
        ram_device* d = made.get();
        co_await devices.add(std::move(made));
        co_return d;
    }
    result<descriptor> open(device& d, open_mode mode = open_mode::read_write) {
        return devices.open(d.name(), mode, {});
    }
    thread::system_of system;
    registry devices;

  private:
    task<> whole(task<> body) {
        result<> outcome = co_await as_result(std::move(body));
        co_await devices.remove_all();
        co_await std::move(outcome);
    }
};

inline std::vector<std::byte> pattern(std::size_t size, unsigned seed) {
    std::vector<std::byte> out(size);
    for (std::size_t i = 0; i < size; ++i) out[i] = static_cast<std::byte>((i * 131 + i / 512 * 17 + seed * 7) & 0xff);
    return out;
}

// A request that somebody waits for later: several may be under way.
struct pending : io {
    explicit pending(op what, uint64_t at = 0, uint32_t count = 0) {
        operation = what;
        lba = at;
        blocks = count;
    }
    pending& data(std::span<std::byte> memory) {
        vec = {memory.data(), memory.size()};
        iov = &vec;
        iov_count = 1;
        return *this;
    }
    void go(channel& on) {
        push([](io& r, void*) noexcept { static_cast<pending&>(r).finish(); }, nullptr);
        on.submit(*this);
    }
    void finish() noexcept {
        done = true;
        over.set();
    }
    iovec vec{};
    bool done = false;
    event over;
};

}  // namespace varve::bdev
