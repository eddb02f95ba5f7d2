#include "sim/scenario.h"

#include "env/sim/net/network.h"
#include "sim/shared_state.h"

namespace varve::sim {

void live_as_fate(shared_state& s) {
    env::sim::rng chance = s.all.stream("fate");
    uint64_t strokes = chance.between<uint64_t>(0, 6);
    while (strokes-- > 0 && !s.over) {
        s.all.pause(chance.between_log<time_ns>(milliseconds, 3 * seconds));
        if (s.over) return;
        switch (chance.below(4)) {
            case 0:
                if (!s.how.lose_connections) break;
                ++s.disturbances;
                ++s.result.losses;
                s.all.net().lose_between(s.host, s.server);
                break;
            case 1:
                if (!s.how.part_network) break;
                ++s.disturbances;
                ++s.result.partitions;
                s.parted = true;
                s.all.net().part(s.host, s.server);
                s.all.pause(chance.between_log<time_ns>(milliseconds, 40 * seconds));
                s.all.net().join(s.host, s.server);
                s.parted = false;
                ++s.disturbances;
                break;
            case 2:
                if (!s.how.cut_power || !s.disk->powered()) break;
                ++s.disturbances;
                ++s.result.power_cuts;
                s.server_is_up = false;
                s.server.cut_power();
                s.server_must_end = true;
                s.all.wait_until([&s] { return s.disk->powered() || s.over; });
                ++s.disturbances;
                break;
            default:
                s.grow_to = s.disk->size() / 512 + chance.between<uint64_t>(1, 100);
                break;
        }
    }
}

outcome run(const scenario& what) {
    shared_state s(what);
    s.disk = &s.server.add_disk(disk_path, what.sectors * 512);
    s.disk->options().cache_lies = what.cache_lies;
    time_ns begin = s.all.now();
    s.all.start("server", [&] { live_as_server(s); });
    s.all.start("host", [&] { live_as_host(s); });
    s.all.start("fate", [&] { live_as_fate(s); });
    s.all.run();
    s.result.trace_hash = s.all.log().hash();
    s.result.duration = s.all.now() - begin;
    s.result.disk_operations = s.disk->ops_issued();
    return s.result;
}

}  // namespace varve::sim
