// For tests: a simulated machine with one disk that loses power, a bdev on that disk, and bdevs on blobs.
//
//   sim_machine m(seed, {.volatile_cache = true});
//   m.live([](life& l) -> task<> { auto s = co_await store::init(l.devices, l.base(), {...}); ... });
//   m.disk().cut_power(...); m.live(...);           the next life finds what the disk kept
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "bdev/awaits.h"
#include "bdev/registry.h"
#include "bdev/test_device.h"
#include "blob/format/page.h"
#include "blob/format/wire.h"
#include "blob/store.h"
#include "env/sim/disk/disk.h"
#include "env/sim/lone_world.h"
#include "thread/runtime.h"

namespace varve::blob {

// Memory for data, aligned: whether a request needs a bounce buffer must not depend on where the heap happens to be, or
// a seed would not give the same run twice.
template <class T>
struct page_allocator {
    using value_type = T;
    page_allocator() noexcept = default;
    template <class U>
    page_allocator(const page_allocator<U>&) noexcept {}  // NOLINT
    T* allocate(std::size_t n) { return static_cast<T*>(::operator new(n * sizeof(T), page)); }
    void deallocate(T* at, std::size_t) noexcept { ::operator delete(at, page); }
    bool operator==(const page_allocator&) const noexcept { return true; }
    static constexpr std::align_val_t page{4096};
};
using data_bytes = std::vector<std::byte, page_allocator<std::byte>>;

// A bdev on a simulated disk.
class sim_channel final : public bdev::channel {
  public:
    sim_channel(thread::thread& on, env::file& target) : _on(on), _target(target) { _on.pin(); }
    ~sim_channel() override { _on.unpin(); }

  private:
    struct operation : env::file_op {
        bdev::io* request = nullptr;
        sim_channel* channel = nullptr;
    };
    void do_submit(bdev::io& r) noexcept override {
        auto* o = new operation;
        o->request = &r;
        o->channel = this;
        o->target = &_target;
        const uint64_t block = _target.logical_block_size();
        o->offset = r.lba * block;
        o->length = r.blocks * block;
        using kind = env::file_op_kind;
        o->kind = r.operation == bdev::op::read    ? kind::read
                  : r.operation == bdev::op::write ? kind::write
                  : r.operation == bdev::op::unmap ? kind::unmap
                  : r.operation == bdev::op::flush ? kind::flush
                                                   : kind::write_zeroes;
        if (o->kind == kind::read || o->kind == kind::write) {
            o->iov = r.iov;
            o->iov_count = r.iov_count;
        }
        o->done = done;
        _on.loop().submit(*o);
    }
    static void done(env::file_op& finished) noexcept {
        auto& o = static_cast<operation&>(finished);
        sim_channel& me = *o.channel;
        thread::entered in(me._on);
        bdev::io& r = *o.request;
        if (o.result >= 0 && (r.flags & bdev::io::fua) != 0 && o.kind == env::file_op_kind::write) {
            o.kind = env::file_op_kind::flush;
            o.iov_count = 0;
            return me._on.loop().submit(o);
        }
        bdev::status s = o.result >= 0         ? bdev::status::ok
                         : o.result == -ENOSPC ? bdev::status::no_space
                                               : bdev::status::media_error;
        delete &o;
        bdev::complete(r, s);
    }
    thread::thread& _on;
    env::file& _target;
};

class sim_base final : public bdev::device {
  public:
    sim_base(std::unique_ptr<env::file> target, const env::sim::disk_options& how, std::string name = "base")
        : device(properties_of(*target, how, std::move(name))), _target(std::move(target)) {}
    std::string_view module_name() const noexcept override { return "sim"; }
    std::unique_ptr<bdev::channel> open_channel() override {
        return std::make_unique<sim_channel>(*thread::thread::current(), *_target);
    }

  private:
    static bdev::properties properties_of(const env::file& f, const env::sim::disk_options& how, std::string name) {
        bdev::properties p;
        p.name = std::move(name);
        p.block_size = how.logical_block_size;
        p.num_blocks = f.size() / p.block_size;
        p.offered = bdev::op_bit(bdev::op::read) | bdev::op_bit(bdev::op::write) | bdev::op_bit(bdev::op::unmap) |
                    bdev::op_bit(bdev::op::write_zeroes) | bdev::op_bit(bdev::op::flush);
        p.write_cache = how.volatile_cache;
        p.unmap_zeroes = true;
        p.alignment = how.alignment;
        return p;
    }
    std::unique_ptr<env::file> _target;
};

class blob_device final : public bdev::device {
  public:
    blob_device(blob_ref b, std::string name) : device(b.properties(std::move(name))), blob(std::move(b)) {}
    std::string_view module_name() const noexcept override { return "blob"; }
    std::unique_ptr<bdev::channel> open_channel() override { return blob.open_channel(); }
    std::vector<bdev::device*> lower_devices() const override { return blob.lower_devices(); }
    task<> destruct() override {
        blob.serve_through(nullptr);
        co_return;
    }
    blob_ref blob;
};

inline format::super_block_wire super_of(const env::sim::disk& on) {
    format::page_bytes page;
    on.peek(0, page);
    return std::bit_cast<format::super_block_wire>(page);
}

// An unloaded store as SPDK left it when super blocks did not name the io unit: 4,096 bytes, whatever the device's
// blocks are; nor anything that came later.
inline void make_older(env::sim::disk& on) {
    format::super_block_wire w = super_of(on);
    w.version = 2;
    w.used_blobid_mask_start = w.used_blobid_mask_length = 0;
    w.io_unit_size = w.md_page_size = 0;
    std::ranges::fill(w.reserved96, uint8_t{});
    std::ranges::fill(w.extension, uint8_t{});
    w.crc = format::crc_of(std::bit_cast<format::page_bytes>(w));
    on.poke(0, std::bit_cast<format::page_bytes>(w));
}

// Devices outside of the store, named by their ids: memory with a pattern.
struct outside final : external_devices {
    explicit outside(bdev::registry& in) : devices(in) {}
    result<bdev::descriptor> open_external(std::string_view id, bdev::event_handler on_event) override {
        auto d = devices.open(id, bdev::open_mode::read_only, std::move(on_event));
        if (d) VARVE_TRY(d->claim(bdev::claim_type::read_many_write_none, "blob"));
        return d;
    }
    void external_lost(std::string_view id) noexcept override { lost += id; }
    task<bdev::ram_device*> add(std::string id, uint64_t bytes, unsigned seed, uint32_t block = 512) {
        bdev::properties p;
        p.name = id;
        p.block_size = block;
        p.num_blocks = bytes / block;
        auto made = std::make_unique<bdev::ram_device>(p);
        made->blocks = bdev::pattern(bytes, seed);
        bdev::ram_device* d = made.get();
        co_await devices.add(std::move(made));
        co_return d;
    }

    bdev::registry& devices;
    std::string lost;
};

// A system that runs on the machine, from power-on to its end.
struct life {
    explicit life(thread::runtime& rt) : devices(rt), external(devices) {}
    bdev::descriptor base() { return *devices.open("base", bdev::open_mode::read_write, {}); }

    static std::string name_of(blob_id id) { return "blob" + std::to_string(id & 0xffffffff); }
    // A bdev of the blob, open; closed by close().
    task<bdev::descriptor> serve(store& s, blob_id id) {
        std::string name = name_of(id);
        if (devices.find(name) == nullptr) {
            auto d = std::make_unique<blob_device>(co_await s.open(id), name);
            blob_device* at = d.get();
            co_await devices.add(std::move(d));
            at->blob.serve_through(at);
        }
        co_return co_await devices.open(name, bdev::open_mode::read_write, {});
    }
    task<> stop_serving(blob_id id) {
        std::string name = name_of(id);
        if (devices.find(name) != nullptr) co_await devices.remove(name);
    }

    bdev::registry devices;
    outside external;
};

class sim_machine {
  public:
    sim_machine(uint64_t seed, uint64_t bytes, const env::sim::disk_options& how)
        : _world(seed, {.cpus = 1}), _disk(_world.inside().add_disk("/disk", bytes, how)) {}

    env::sim::disk& disk() noexcept { return _disk; }

    // Runs body(life&) on the app thread of a new system; what it leaves behind is removed. Its error, if any.
    template <class Body>
    result<> live(Body body) {
        _world.inside().restore_power();
        thread::runtime_options options;
        options.cpus.emplace().add(0);
        auto rt = thread::runtime::make(_world, options);
        if (!rt) return fail(std::move(rt).error());
        result<> outcome;
        {
            life here(**rt);
            (*rt)->app_thread().post([&] {
                start_detached(whole(here, body), [&](result<> o) {
                    outcome = std::move(o);
                    (*rt)->stop();
                });
            });
            (*rt)->run();
        }
        return outcome;
    }

  private:
    template <class Body>
    task<> whole(life& here, Body& body) {
        auto file = co_await _world.open("/disk", {});
        co_await here.devices.add(std::make_unique<sim_base>(std::move(file), _disk.options()));
        result<> outcome = co_await as_result(body(here));
        co_await here.devices.remove_all();
        co_await std::move(outcome);
    }
    env::sim::lone_world _world;
    env::sim::disk& _disk;
};

}  // namespace varve::blob
