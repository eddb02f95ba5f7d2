// One machine in a universe of its own: for whoever needs just an env::system and a seed.
#pragma once

#include "env/sim/universe.h"
#include "env/sim/world.h"

namespace varve::env::sim {

class lone_world final : public env::system {
  public:
    explicit lone_world(uint64_t seed, const world_options& how = {})
        : _all(seed), _world(_all.add_world("lone", how)) {}
    lone_world(uint64_t seed, const universe_options& weather, const world_options& how)
        : _all(seed, weather), _world(_all.add_world("lone", how)) {}

    universe& all() noexcept { return _all; }
    world& inside() noexcept { return _world; }

    time_ns now() noexcept override { return _world.now(); }
    int64_t wall_clock_ns() noexcept override { return _world.wall_clock_ns(); }
    uint64_t random() noexcept override { return _world.random(); }
    memory& mem() noexcept override { return _world.mem(); }
    std::vector<unsigned> cpus() const override { return _world.cpus(); }
    result<std::unique_ptr<env::loop>> make_loop() override { return _world.make_loop(); }
    result<std::unique_ptr<file>> open(const std::string& path, const open_options& options) override {
        return _world.open(path, options);
    }
    result<std::string> read_text(const std::string& path) override { return _world.read_text(path); }
    result<> write_text(const std::string& path, std::string_view text) override {
        return _world.write_text(path, text);
    }
    void run(std::span<worker* const> workers) override { _world.run(workers); }

  private:
    universe _all;
    world& _world;
};

}  // namespace varve::env::sim
