#include "modules/malloc.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "bdev/batch.h"
#include "bdev/block_params.h"
#include "env/system.h"

namespace varve::modules {

namespace {

using namespace bdev;

struct create_params : block_params {
    uint32_t optimal_io_boundary = 0;
    bool md_interleave = false;
    int32_t numa_id = -1;

    static constexpr auto fields = rpc::extend(
        block_params::fields,
        rpc::optional(&create_params::name, "name", "Name of the new bdev; MallocN when not given"),
        rpc::optional(&create_params::optimal_io_boundary, "optimal_io_boundary",
                      "Requests are split where they cross a multiple of so many blocks (a power of two); 0: nowhere"),
        rpc::optional(&create_params::md_interleave, "md_interleave",
                      "Metadata follows each block's data instead of having a buffer of its own"),
        rpc::optional(&create_params::numa_id, "numa_id", "NUMA node to take memory from; -1: any"));
};

// The medium: blocks, and their metadata when that is kept apart.
struct medium {
    const env::buffer& memory;
    std::byte* blocks = nullptr;
    std::byte* metadata = nullptr;
    uint32_t block_size = 0, metadata_size = 0;

    std::byte* at(uint64_t lba) const noexcept { return blocks + lba * block_size; }
};

class malloc_channel final : public batching_channel {
  public:
    explicit malloc_channel(const medium& m) noexcept : _medium(m) {
        _clearing.of = this;
        _clearing.run = [](work& w) noexcept { static_cast<clearing&>(w).of->clear_a_piece(); };
    }

  private:
    // The first lines of each request are fetched while the others of the batch are submitted; the processor goes on
    // with the rest by itself.
    static constexpr std::size_t prefetched = 512;
    // What is to be zeroes is cleared in pieces, one in a turn of the thread, so that others have theirs.
    static constexpr std::size_t cleared_at_once = 1 << 20;

    void do_submit(io& r) noexcept override {
        const std::byte* from = _medium.at(r.lba);
        for (std::size_t i = 0; i < prefetched; i += 64) __builtin_prefetch(from + i);
        gather(r);
    }

    void run_batch(work* first) noexcept override {
        for (io* r = static_cast<io*>(first); r != nullptr;) {
            io* next = after(*r);
            carry_out(*r);
            r = next;
        }
    }

    void carry_out(io& r) noexcept {
        std::byte* at = _medium.at(r.lba);
        std::size_t bytes = std::size_t{r.blocks} * _medium.block_size;
        static_assert(op::read < op::write && static_cast<int>(op::write) == 1);
        if (r.operation <= op::write && r.iov_count == 1 && r.metadata == nullptr && r.iov->iov_len >= bytes)
            [[likely]] {
            void* theirs = r.iov->iov_base;
            std::memcpy(r.operation == op::read ? theirs : at, r.operation == op::read ? at : theirs, bytes);
            return complete(r, status::ok);
        }
        carry_out_rest(r, at, bytes);
    }

    [[gnu::noinline]] void carry_out_rest(io& r, std::byte* at, std::size_t bytes) noexcept {
        const bool zeroes = r.operation == op::unmap || r.operation == op::write_zeroes;
        if (!zeroes || bytes <= cleared_at_once) return complete(r, carry_out_now(r, at, bytes));
        _large.push(r);
        clear_soon();
    }

    status carry_out_now(io& r, std::byte* at, std::size_t bytes) noexcept {
        switch (r.operation) {
            case op::read:
            case op::write:
            case op::compare:
                return transfer(r, at, bytes);
            case op::unmap:
            case op::write_zeroes:
                std::memset(at, 0, bytes);
                if (std::byte* m = metadata_at(r.lba)) std::memset(m, 0, metadata_bytes(r));
                return status::ok;
            case op::copy:
                std::memmove(at, _medium.at(r.source_lba), bytes);
                if (std::byte* m = metadata_at(r.lba)) std::memmove(m, metadata_at(r.source_lba), metadata_bytes(r));
                return status::ok;
            case op::flush:
                return status::ok;
            default:
                return status::unsupported;
        }
    }

    void clear_soon() noexcept {
        if (_large.empty() || std::exchange(_clears_soon, true)) return;
        on_thread().defer(_clearing);
    }
    void clear_a_piece() noexcept {
        _clears_soon = false;
        if (_large.empty()) return;
        io& r = static_cast<io&>(*_large.front());
        const std::size_t bytes = std::size_t{r.blocks} * _medium.block_size;
        const std::size_t here = std::min(bytes - _cleared, cleared_at_once);
        std::byte* at = _medium.at(r.lba) + _cleared;
        _medium.memory.populate(static_cast<std::size_t>(at - _medium.blocks), here);
        std::memset(at, 0, here);
        _cleared += here;
        if (_cleared == bytes) {
            if (std::byte* m = metadata_at(r.lba)) std::memset(m, 0, metadata_bytes(r));
            _cleared = 0;
            _large.pop();
        }
        clear_soon();
        if (_cleared == 0) complete(r, status::ok);
    }

    bool do_abort(io& r) noexcept override {
        if (batching_channel::do_abort(r)) return true;
        if (_large.front() == &r) _cleared = 0;
        const bool found = take_from(_large, r);
        if (found) complete_later(r, status::aborted);
        return found;
    }

    status transfer(const io& r, std::byte* at, std::size_t left) noexcept {
        if (r.metadata != nullptr && _medium.metadata != nullptr && !transfer_metadata(r)) {
            return status::compare_failed;
        }
        for (const iovec *v = r.iov, *end = r.iov + r.iov_count; left > 0; ++v) {
            if (v == end) return status::invalid;  // less memory than blocks
            std::size_t here = v->iov_len < left ? v->iov_len : left;
            if (r.operation == op::read) {
                std::memcpy(v->iov_base, at, here);
            } else if (r.operation == op::write) {
                std::memcpy(at, v->iov_base, here);
            } else if (std::memcmp(at, v->iov_base, here) != 0) {
                return status::compare_failed;
            }
            at += here;
            left -= here;
        }
        return status::ok;
    }
    bool transfer_metadata(const io& r) noexcept {
        std::byte* m = metadata_at(r.lba);
        if (r.operation == op::read) std::memcpy(r.metadata, m, metadata_bytes(r));
        if (r.operation == op::write) std::memcpy(m, r.metadata, metadata_bytes(r));
        return r.operation != op::compare || std::memcmp(r.metadata, m, metadata_bytes(r)) == 0;
    }
    std::byte* metadata_at(uint64_t lba) const noexcept {
        return _medium.metadata == nullptr ? nullptr : _medium.metadata + lba * _medium.metadata_size;
    }
    std::size_t metadata_bytes(const io& r) const noexcept { return std::size_t{r.blocks} * _medium.metadata_size; }

    struct clearing : work {
        malloc_channel* of = nullptr;
    };

    const medium _medium;
    queue<work> _large;
    std::size_t _cleared = 0;  // of the first of them
    clearing _clearing;
    bool _clears_soon = false;
};

properties properties_of(const create_params& p) {
    properties out = p.describe("Malloc disk", p.md_interleave);
    out.offered = op_bit(op::read) | op_bit(op::write) | op_bit(op::unmap) | op_bit(op::write_zeroes) |
                  op_bit(op::flush) | op_bit(op::compare) | op_bit(op::copy);
    out.unmap_zeroes = true;
    out.optimal_io_boundary = p.optimal_io_boundary;
    out.split_on_boundary = p.optimal_io_boundary != 0;
    out.numa_id = p.numa_id;
    return out;
}

class malloc_device final : public device {
  public:
    malloc_device(create_params p, env::buffer blocks, env::buffer metadata)
        : device(properties_of(p)),
          _made_with(std::move(p)),
          _blocks(std::move(blocks)),
          _metadata(std::move(metadata)) {}
    std::string_view module_name() const noexcept override { return "malloc"; }
    std::unique_ptr<channel> open_channel() override {
        return std::make_unique<malloc_channel>(
            medium{_blocks, _blocks.data(), _metadata.data(), block_size(), props().metadata_size});
    }
    std::optional<rpc::call> recreate() const override {
        create_params now = _made_with;
        now.name = name();
        now.id = props().uuid;
        return rpc::call{"bdev_malloc_create", rpc::encode(now)};
    }

  private:
    const create_params _made_with;
    env::buffer _blocks, _metadata;
};

std::string free_name(const registry& devices) {
    for (unsigned i = 0;; ++i) {
        std::string name = fmt::format("Malloc{}", i);
        if (devices.find(name) == nullptr) return name;
    }
}

task<std::string> create(registry& devices, create_params p) {
    if (p.take_metadata_off()) p.md_interleave = true;
    co_await p.check();
    if (p.optimal_io_boundary != 0 && !is_power_of_two(p.optimal_io_boundary)) {
        co_await fail(errc::invalid,
                      fmt::format("optimal_io_boundary {} is not a power of two", p.optimal_io_boundary));
    }
    // The name first: who asks for one that is taken should not hear of memory.
    if (p.name.empty()) p.name = free_name(devices);
    if (devices.find(p.name) != nullptr)
        co_await fail(errc::exists, fmt::format("bdev name {} already exists", p.name));
    uint64_t bytes = 0;
    if (!checked_multiply(p.num_blocks, p.block_size + (p.md_interleave ? p.md_size : 0), bytes)) {
        co_await fail(errc::no_memory, fmt::format("{} blocks of {} bytes", p.num_blocks, p.block_size));
    }
    env::memory& from = devices.world().mem();
    env::buffer blocks = co_await from.allocate(bytes);
    env::buffer metadata;
    if (p.md_size != 0 && !p.md_interleave) metadata = co_await from.allocate(p.num_blocks * p.md_size);
    co_return co_await devices.add(
        std::make_unique<malloc_device>(std::move(p), std::move(blocks), std::move(metadata)));
}

task<> remove(registry& devices, delete_params p) { return devices.remove(std::move(p.name), "malloc"); }

}  // namespace

std::unique_ptr<bdev::module> make_malloc() {
    return make_module("malloc", rpc::make_method("bdev_malloc_create", "Create a bdev in memory", create),
                       rpc::make_method("bdev_malloc_delete", "Delete a malloc bdev and its contents", remove));
}

}  // namespace varve::modules
