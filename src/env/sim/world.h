// One machine of a simulation: the env::system that a Varve runs on. Its disks, text files and memory stay when the
// system on it goes and another is started, as those of a computer would.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "env/sim/disk/disk.h"
#include "env/sim/memory.h"
#include "env/sim/rng.h"
#include "env/system.h"

namespace varve::env::sim {

class universe;

struct world_options {
    unsigned cpus = 4;
};

class world final : public env::system {
  public:
    world(universe& all, std::string name, unsigned index, const world_options& how);
    ~world() override;

    universe& all() const noexcept { return _all; }
    const std::string& name() const noexcept { return _name; }
    unsigned index() const noexcept { return _index; }
    const std::string& host() const noexcept { return _host; }  // its address on the network

    // A disk that open() finds under this path. The second form makes it behave as said instead of as drawn.
    disk& add_disk(const std::string& path, uint64_t size);
    disk& add_disk(const std::string& path, uint64_t size, const disk_options& how);
    disk& disk_at(const std::string& path);
    std::map<std::string, std::unique_ptr<disk>>& disks() noexcept { return _disks; }
    // All disks at once, and every connection with them.
    void cut_power(cut_outcome how = cut_outcome::drawn);
    void restore_power() noexcept;
    // The next so many write_text fail with EIO.
    void fail_text_writes(unsigned times) noexcept { _failing_text_writes = times; }

    time_ns now() noexcept override;
    int64_t wall_clock_ns() noexcept override;
    uint64_t random() noexcept override;
    simulated_memory& mem() noexcept override { return _memory; }
    std::vector<unsigned> cpus() const override;
    result<std::unique_ptr<env::loop>> make_loop() override;
    result<std::unique_ptr<file>> open(const std::string& path, const open_options& options) override;
    result<std::string> read_text(const std::string& path) override;
    result<> write_text(const std::string& path, std::string_view text) override;
    void run(std::span<worker* const> workers) override;

  private:
    universe& _all;
    const std::string _name;
    const unsigned _index;
    const std::string _host;
    const world_options _how;
    rng _chance;
    simulated_memory _memory;
    std::map<std::string, std::unique_ptr<disk>> _disks;
    std::map<std::string, std::string> _texts;
    unsigned _failing_text_writes = 0;
    uint64_t _loops = 0;
};

}  // namespace varve::env::sim
