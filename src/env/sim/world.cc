#include "env/sim/world.h"

#include <fmt/format.h>

#include <numeric>

#include "env/sim/disk/file.h"
#include "env/sim/loop.h"
#include "env/sim/net/network.h"
#include "env/sim/universe.h"
#include "util/assert.h"

namespace varve::env::sim {

world::world(universe& all, std::string name, unsigned index, const world_options& how)
    : _all(all),
      _name(std::move(name)),
      _index(index),
      _host(fmt::format("10.0.{}.{}", index / 254, index % 254 + 1)),
      _how(how),
      _chance(all.stream("world " + _name)),
      _memory(all.stream("memory of " + _name)) {}

world::~world() = default;

disk& world::add_disk(const std::string& path, uint64_t size) { return add_disk(path, size, _all.options().disk); }

disk& world::add_disk(const std::string& path, uint64_t size, const disk_options& how) {
    auto& slot = _disks[path];
    VARVE_ASSERT(slot == nullptr);
    slot = std::make_unique<disk>(_all, fmt::format("{}:{}", _name, path), size, how);
    return *slot;
}

disk& world::disk_at(const std::string& path) {
    auto found = _disks.find(path);
    VARVE_ASSERT(found != _disks.end());
    return *found->second;
}

void world::cut_power(cut_outcome how) {
    for (auto& [path, d] : _disks) d->cut_power(how);
    _all.net().lose_all_of(*this);
}

void world::restore_power() noexcept {
    for (auto& [path, d] : _disks) d->restore_power();
}

time_ns world::now() noexcept { return _all.now(); }

int64_t world::wall_clock_ns() noexcept {
    constexpr int64_t start = 1'767'225'600'000'000'000;  // 2026-01-01, so that logs of two runs agree
    return start + _all.now();
}

uint64_t world::random() noexcept { return _chance.next(); }

std::vector<unsigned> world::cpus() const {
    std::vector<unsigned> all(_how.cpus);
    std::iota(all.begin(), all.end(), 0U);
    return all;
}

result<std::unique_ptr<env::loop>> world::make_loop() { return std::make_unique<loop>(*this, _loops++); }

result<std::unique_ptr<file>> world::open(const std::string& path, const open_options& options) {
    if (!_disks.contains(path)) {
        if (!options.create) return fail(errc::not_found, path);
        add_disk(path, options.create_size);
    }
    disk& d = disk_at(path);
    if (!d.powered()) return fail(errc::io, path);
    return std::make_unique<disk_file>(path, d, options);
}

result<std::string> world::read_text(const std::string& path) {
    auto found = _texts.find(path);
    if (found == _texts.end()) return fail(errc::not_found, path);
    return found->second;
}

result<> world::write_text(const std::string& path, std::string_view text) {
    if (_failing_text_writes > 0) {
        --_failing_text_writes;
        return fail(errc::io, path);
    }
    _texts.insert_or_assign(path, std::string(text));
    return {};
}

void world::run(std::span<worker* const> workers) { _all.run_workers(workers); }

}  // namespace varve::env::sim
