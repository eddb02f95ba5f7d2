#include "sim/sim.h"

#include <fmt/format.h>

#include "sim/scenario.h"

namespace varve::sim {

namespace {

bool is_well(uint64_t seed, const outcome& o, bool twice, std::FILE* report) {
    for (const std::string& p : o.problems) fmt::print(report, "seed {}: {}\n", seed, p);
    if (!twice || !o.problems.empty()) return o.problems.empty();
    outcome again = run({.seed = seed});
    if (again.trace_hash == o.trace_hash) return true;
    fmt::print(report, "seed {}: the second run left another trace ({:016x}, then {:016x})\n", seed, o.trace_hash,
               again.trace_hash);
    return false;
}

}  // namespace

int run(const options& how, std::FILE* report) {
    outcome sum;
    for (uint64_t n = 0; n < how.seeds; ++n) {
        uint64_t seed = how.seed + n;
        outcome o = run({.seed = seed});
        if (!is_well(seed, o, how.twice, report)) return 1;
        sum.operations += o.operations;
        sum.connections += o.connections;
        sum.power_cuts += o.power_cuts;
        sum.losses += o.losses;
        sum.partitions += o.partitions;
        sum.namespace_changes += o.namespace_changes;
        sum.disk_operations += o.disk_operations;
        sum.duration += o.duration;
        if (how.seeds == 1) fmt::print(report, "trace {:016x}\n", o.trace_hash);
    }
    fmt::print(report,
               "{} seed{} from {}: {} operations of hosts on {} connections, {} of disks; {} connections lost, {} "
               "partitions, {} power cuts, {} changes of namespaces; {} s of simulated time; all is well\n",
               how.seeds, how.seeds == 1 ? "" : "s", how.seed, sum.operations, sum.connections, sum.disk_operations,
               sum.losses, sum.partitions, sum.power_cuts, sum.namespace_changes, sum.duration / seconds);
    return 0;
}

}  // namespace varve::sim
