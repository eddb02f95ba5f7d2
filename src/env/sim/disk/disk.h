// A simulated disk: operations take their time and complete in any order, fail as told or by chance, and lose what was
// not flushed when the power is cut (media.h). It outlives the files opened on it and the systems that use it.
//
// Memory of an operation is read or written when it completes, not when it is submitted.
//
// To run an operation of yours once for each I/O it issues, with that one failing or the power cut there:
//   count = ops_issued() before and after a good run; then for n in between: fail_operation(n) or cut_power_at(n).
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "env/sim/agenda.h"
#include "env/sim/disk/media.h"
#include "env/sim/disk/options.h"
#include "env/sim/ready.h"

namespace varve::env::sim {

class loop;
class universe;

class disk {
  public:
    // What was asked of the disk, for tests.
    struct record {
        uint64_t number = 0;
        file_op_kind kind = file_op_kind::read;
        uint64_t offset = 0, length = 0;
        int64_t result = 0;
        bool completed = false;
    };

    disk(universe& in, std::string name, uint64_t size, const disk_options& how);
    ~disk();
    disk(const disk&) = delete;

    const std::string& name() const noexcept { return _name; }
    uint64_t size() const noexcept { return _size; }
    const disk_options& options() const noexcept { return _how; }
    disk_options& options() noexcept { return _how; }  // chances and latencies may change at any time
    void resize(uint64_t size);

    // Contents without I/O. peek() sees what a read would see.
    void peek(uint64_t offset, std::span<std::byte> to) const { _media.read(offset, to); }
    void peek_durable(uint64_t offset, std::span<std::byte> to) const { _media.durable().read(offset, to); }
    void poke(uint64_t offset, std::span<const std::byte> from);  // durable at once
    void flip_bit(uint64_t offset, unsigned bit) { _media.flip(offset, bit); }
    bool dirty() const noexcept { return _media.dirty(); }

    // Operations so far; the next one is number ops_issued().
    uint64_t ops_issued() const noexcept { return _issued; }
    std::size_t in_flight() const noexcept { return _in_flight.size(); }
    const std::vector<record>& history() const noexcept { return _history; }
    void keep_history(bool keep) { _keep_history = keep; }

    void inject(const disk_fault& fault) { _faults.push_back(fault); }
    void fail_operation(uint64_t number, int errno_value = EIO) { _failing[number] = errno_value; }
    void clear_faults();
    std::size_t stuck() const noexcept;
    void release_stuck();
    // Writes that need more than this many bytes of new space fail with ENOSPC.
    void limit_space(uint64_t bytes_used_max) noexcept { _space = bytes_used_max; }

    // The power goes: what is under way or not flushed is lost, kept or torn; operations fail with EIO until it is
    // back, so that a system still running on it can wind down.
    void cut_power(cut_outcome how = cut_outcome::drawn);
    // While operation `number` is under way. `then` is told, to bring down the rest of the machine.
    void cut_power_at(uint64_t number, cut_outcome how = cut_outcome::drawn, std::move_only_function<void()> then = {});
    // A cut can be looked at again with another outcome:
    //   keep_cuts(true); cut_power_at(n, ...); ... the power goes; media before = before_cut().clone();
    //   for (...) { cut_otherwise(before, fates); ... what a new life finds ... }
    void keep_cuts(bool keep) { _keep_cuts = keep; }
    const media& before_cut() const { return *_before_cut; }
    void cut_otherwise(const media& before, std::span<const write_fate> fates);  // of before.unflushed()
    // All it holds, to be put back later. Nothing is under way.
    media save() const { return _media.clone(); }
    void restore(const media& contents);
    uint64_t durable_hash() const { return _media.durable().hash(); }
    void restore_power() noexcept { _powered = true; }
    bool powered() const noexcept { return _powered; }

    // The loop's.
    void start(file_op& op, loop& home);

  private:
    struct operation final : ready {
        operation(disk& d, file_op& asked, loop& from, uint64_t n) : on(d), op(asked), home(from), number(n) {}
        void deliver() noexcept override;
        disk& on;
        file_op& op;
        loop& home;
        const uint64_t number;
        uint64_t completions_before = 0;
        int failure = 0;
        bool stuck = false, done = false, flip = false, rot = false;
        bool refused = false;  // fails without having touched the medium
        time_ns delay = 0;
        agenda::event_id event{};
    };
    int check(const file_op& op) const;
    void draw_fate(operation& o);
    void schedule(operation& o);
    void finish(operation& o);
    int64_t perform(operation& o);
    int64_t read(operation& o);
    int64_t change(operation& o);
    void interrupt(operation& o);
    void flip_in_memory(const file_op& op, uint64_t length);
    bool fits(const file_op& op) const;

    universe& _universe;
    const std::string _name;
    uint64_t _size;
    disk_options _how;
    rng _chance;
    media _media;
    std::optional<media> _before_cut;  // with what was under way
    bool _keep_cuts = false;
    uint64_t _issued = 0;
    bool _powered = true;
    bool _keep_history = false;
    uint64_t _space = UINT64_MAX;
    std::map<uint64_t, std::unique_ptr<operation>> _in_flight;
    std::vector<record> _history;
    std::vector<disk_fault> _faults;
    std::map<uint64_t, int> _failing;
    uint64_t _cut_at = UINT64_MAX;
    cut_outcome _cut_how = cut_outcome::drawn;
    std::move_only_function<void()> _after_cut;
};

}  // namespace varve::env::sim
