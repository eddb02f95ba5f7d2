// For tests: a machine with disks in memory that keep what they hold from one life of a system to the next.
//
//   class my_test : public thread::in_every_world {};
//   INSTANTIATE_TEST_SUITE_P(worlds, my_test, thread::every_world(), thread::world_name);
//   LVOL_TEST(my_test, does_it) {  m is the machine; on epoll, io_uring, and 8 simulated seeds (sanitizers: 2)
//       m.live([](life& s) -> task<> { co_await s.plug("disk"); co_await s.call(...); });
//       m.live(...);                          the next life finds what the disks kept
//   }
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "accel/memory.h"
#include "bdev/awaits.h"
#include "bdev/test_module.h"
#include "blob/disk.h"
#include "env/system.h"
#include "jobs/registry.h"
#include "modules/lvol/module.h"
#include "thread/awaits.h"

namespace varve::modules::lvol {

constexpr uint64_t mib = 1024 * 1024;

// What a test reads of the log.
class logging_module final : public bdev::module {
  public:
    explicit logging_module(std::string& lines)
        : _lines(lines), _log([this](const log::line& l) {
              _lines += l.text;
              _lines += '\n';
          }) {}
    std::string_view name() const noexcept override { return _made->name(); }
    void attach(rpc::registry& methods, bdev::registry& devices) override {
        _jobs.add_methods(methods);
        _made->attach(methods, devices);
    }
    task<> stop() override {
        co_await _jobs.stop();
        co_await _made->stop();
    }

  private:
    std::string& _lines;
    log _log;
    jobs::registry _jobs;
    std::unique_ptr<bdev::module> _made = make_lvol(_log.component("lvol"), _jobs);
};

using disk_image = std::vector<std::byte>;

// For systems of one thread.
class kept_disk final : public bdev::ram_device {
  public:
    // The image is empty while there is the disk; one that was empty before is of a new disk.
    kept_disk(bdev::properties p, disk_image& image) : ram_device(std::move(p), std::move(image)), _image(image) {
        _image.clear();
        if (blocks.empty()) blocks.resize(num_blocks() * block_size());
    }
    std::unique_ptr<bdev::channel> open_channel() override { return std::make_unique<head>(*this); }
    task<> destruct() override {
        _image = std::move(blocks);
        co_return;
    }
    unsigned seen(bdev::op o) const { return _seen[static_cast<std::size_t>(o)]; }  // requests
    // Such requests wait until they are let go.
    void hold(bdev::op o) { _hold = bdev::op_bit(o); }
    std::size_t held() const { return _held.size(); }
    // Such requests fail.
    void refuse(bdev::op_set ops) { _refused = ops; }
    // Such requests fail after so many of them; of the second, one does.
    void refuse_after(bdev::op o, unsigned count) { _fails = {.what = o, .after = count}; }
    void refuse_one_after(bdev::op o, unsigned count) { _fails = {.what = o, .after = count, .times = 1}; }
    bool refused_one() const { return _fails.what && _fails.times == 0; }
    void let_go() {
        _hold = 0;
        for (bdev::io* r : std::exchange(_held, {})) carry_out(*r);
    }

  private:
    class head final : public bdev::channel {
      public:
        explicit head(kept_disk& d) : _disk(d) {}

      private:
        void do_submit(bdev::io& r) noexcept override {
            ++_disk._seen[static_cast<std::size_t>(r.operation)];
            const bdev::op_set wanted = bdev::op_bit(r.operation);
            if (_disk.fails(r.operation) || (_disk._refused & wanted) != 0)
                return bdev::complete_later(r, bdev::status::media_error);
            if ((_disk._hold & wanted) != 0) return _disk._held.push_back(&r);
            _disk.carry_out(r);
        }
        kept_disk& _disk;
    };
    bool fails(bdev::op o) {
        if (_fails.what != o) return false;
        unsigned& left = _fails.after != 0 ? _fails.after : _fails.times;
        const bool now = _fails.after == 0 && left != 0;
        if (left != 0) --left;
        return now;
    }
    void carry_out(bdev::io& r) {
        std::span<std::byte> at;
        if (r.operation != bdev::op::flush) {
            at = std::span(blocks).subspan(r.lba * block_size(), std::size_t{r.blocks} * block_size());
        }
        if (r.operation == bdev::op::unmap || r.operation == bdev::op::write_zeroes) {
            for (; !at.empty(); at = at.subspan(std::min(at.size(), zeroed_at_once))) {
                auto piece = at.first(std::min(at.size(), zeroed_at_once));
                if (!accel::all_zero(piece)) std::ranges::fill(piece, std::byte{});
            }
        }
        for (const iovec* v = r.iov; !at.empty(); ++v) {
            const std::size_t here = std::min(at.size(), v->iov_len);
            const bool reads = r.operation == bdev::op::read;
            std::memcpy(reads ? v->iov_base : at.data(), reads ? at.data() : v->iov_base, here);
            at = at.subspan(here);
        }
        bdev::complete_later(r, bdev::status::ok);
    }

    // Most of a disk is never written, and reading costs less than writing.
    static constexpr std::size_t zeroed_at_once = 64 << 10;
    disk_image& _image;
    std::array<unsigned, bdev::op_count> _seen{};
    bdev::op_set _hold = 0, _refused = 0;
    struct failure {
        std::optional<bdev::op> what;
        unsigned after = 0, times = ~0U;
    } _fails;
    std::vector<bdev::io*> _held;
};

struct life : bdev::module_system {
    life(thread::world_kind kind, std::map<std::string, disk_image>& kept, std::string& log_lines)
        : module_system(kind, std::make_unique<logging_module>(log_lines)), images(kept), lines(log_lines) {}

    static bdev::properties disk_properties(std::string name, uint64_t bytes = 32 * mib) {
        using bdev::op;
        bdev::properties p;
        p.name = std::move(name);
        p.num_blocks = bytes / 512;
        p.offered = bdev::op_bit(op::read) | bdev::op_bit(op::write) | bdev::op_bit(op::unmap) |
                    bdev::op_bit(op::write_zeroes) | bdev::op_bit(op::flush);
        p.write_cache = p.unmap_zeroes = true;
        return p;
    }
    // A disk appears; what the module makes of it has happened.
    task<kept_disk*> plug(bdev::properties p, std::string image = {}) {
        if (image.empty()) image = p.name;
        auto made = std::make_unique<kept_disk>(std::move(p), images[image]);
        kept_disk* d = made.get();
        co_await bdevs.devices.add(std::move(made));
        co_await bdevs.devices.wait_for_examine();
        co_return d;
    }
    task<kept_disk*> plug(std::string name) { return plug(disk_properties(std::move(name))); }
    task<> unplug(std::string name) {
        co_await bdevs.devices.remove(std::move(name));
        co_await bdevs.devices.wait_for_examine();
    }
    // A disk with an lvstore "lvs" of clusters of 1 MiB on it. The store's uuid.
    task<std::string> make_store() {
        co_await plug("disk");
        json::value id = co_await call("bdev_lvol_create_lvstore",
                                       R"({"bdev_name": "disk", "lvs_name": "lvs", "cluster_sz": 1048576})");
        co_return *id.string();
    }
    task<std::string> make_volume(std::string name, uint64_t size_in_mib, bool thin = true) {
        json::value id = co_await call("bdev_lvol_create",
                                       fmt::format(R"({{"lvs_name": "lvs", "lvol_name": "{}", "size_in_mib": {}, )"
                                                   R"("thin_provision": {}}})",
                                                   name, size_in_mib, thin));
        co_return *id.string();
    }
    // One entry of a list that a method gives; null when there is none.
    task<json::value> entry(std::string method, std::string_view key, std::string_view value) {
        json::value all = co_await call(std::move(method));
        for (const json::value& v : *all.items()) {
            if (v[key] == json::value(value)) co_return v;
        }
        co_return json::value();
    }
    kept_disk& disk() { return static_cast<kept_disk&>(*bdevs.devices.find("disk")); }
    // The last job of a kind; null when there is none.
    task<json::value> job(std::string kind) {
        json::value all = co_await call("job_get_jobs"), found;
        for (const json::value& v : *all.items()) {
            if (v["kind"] == json::value(kind)) found = v;
        }
        co_return found;
    }
    task<json::value> volume(std::string name) { return entry("bdev_lvol_get_lvols", "name", std::move(name)); }
    task<json::value> store(std::string name) { return entry("bdev_lvol_get_lvstores", "name", std::move(name)); }
    json::value specific(std::string_view bdev_name) {
        bdev::device* d = bdevs.devices.find(bdev_name);
        return d == nullptr ? json::value() : d->driver_specific()["lvol"];
    }
    task<> ask(std::string method, std::string params, std::string& answer) {
        answer = co_await refusal(std::move(method), std::move(params));
    }
    // Whatever goes on in the background has had its turns.
    static task<> pass_turns() {
        for (int i = 0; i < 300; ++i) co_await yield();
    }
    // What the client reads of an error: "-17 File exists".
    task<std::string> refusal(std::string method, std::string params) {
        auto outcome = co_await as_result(call(std::move(method), std::move(params)));
        if (outcome) co_return "done";
        co_return fmt::format("{} {}", rpc_code(outcome.error().code()), outcome.error().message());
    }
    task<> fill(std::string name, uint64_t lba, std::size_t bytes, unsigned seed) {
        bdev::descriptor opened = co_await open(name);
        bdev::channel_ref c = opened.channel();
        co_await bdev::write(*c, lba, bdev::pattern(bytes, seed));
        co_await bdev::flush(*c);
    }
    task<> expect(std::string name, uint64_t lba, std::vector<std::byte> wanted) {
        bdev::descriptor opened = co_await bdevs.devices.open(name, bdev::open_mode::read_only, {});
        bdev::channel_ref c = opened.channel();
        std::vector<std::byte> seen(wanted.size(), std::byte{0x5a});
        co_await bdev::read(*c, lba, seen);
        EXPECT_EQ(std::memcmp(seen.data(), wanted.data(), seen.size()), 0) << name << " from block " << lba;
    }

    std::map<std::string, disk_image>& images;
    std::string& lines;
};

struct machine {
    explicit machine(thread::world_kind k) : kind(k) {}
    void live(task<> (*body)(life&)) {
        life here(kind, images, lines);
        here.run(differently(here, ++lives, body));
    }
    // With a number that the body is told, and may change.
    void live(task<> (*body)(life&, unsigned&), unsigned& number) {
        life here(kind, images, lines);
        here.run(differently(here, ++lives, body, number));
    }
    // A simulated life makes the uuids that the one before made, unless it begins otherwise.
    template <class Body, class... More>
    static task<> differently(life& here, int number, Body body, More&... more) {
        for (int i = 0; i < 1000 * number; ++i) static_cast<void>(here.bdevs.devices.world().make_uuid());
        co_await body(here, more...);
    }
    const thread::world_kind kind;
    int lives = 0;
    std::map<std::string, disk_image> images;
    std::string lines;  // of the log
};

#define LVOL_TEST(suite, name)                               \
    void name(machine& m);                                   \
    TEST_P(suite, name) {                                    \
        machine m(GetParam());                               \
        name(m);                                             \
    }                                                        \
    TEST(suite##_sim, name) {                                \
        ::varve::thread::for_each_seed(                      \
            [] {                                             \
                machine m(::varve::thread::world_kind::sim); \
                name(m);                                     \
            },                                               \
            ::varve::thread::sanitized ? 2 : 8);             \
    }                                                        \
    void name(machine& m)

}  // namespace varve::modules::lvol
