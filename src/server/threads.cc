#include "server/threads.h"

#include <fmt/format.h>

#include "server/instance.h"
#include "thread/io_device.h"
#include "thread/runtime.h"

namespace varve::server {

namespace {

using thread::poller_kind;

struct poller_counts {
    uint64_t active = 0, timed = 0, paused = 0;
};

// A woken poller runs when there is something for it, so it counts as active.
poller_counts count_pollers(thread::thread& t) {
    poller_counts n;
    for (const thread::poller& p : t.pollers()) {
        ++(p.paused() ? n.paused : p.kind() == poller_kind::timed ? n.timed : n.active);
    }
    return n;
}

task<json::value> get_stats(instance& i) {
    std::vector<std::pair<uint64_t, poller_counts>> counts;
    co_await i.threads().for_each_thread([&](thread::thread& t) { counts.emplace_back(t.id(), count_pollers(t)); });
    json::array out;
    for (const auto& info : i.threads().threads()) {
        poller_counts n;
        for (const auto& [id, c] : counts) {
            if (id == info.id) n = c;
        }
        out.push_back(json::object{{"name", info.name},
                                   {"id", info.id},
                                   {"cpumask", info.cpus.to_mask()},
                                   {"busy", info.stats.busy},
                                   {"idle", info.stats.idle},
                                   {"active_pollers_count", n.active},
                                   {"timed_pollers_count", n.timed},
                                   {"paused_pollers_count", n.paused}});
    }
    co_return json::object{{"tick_rate", tick_rate}, {"threads", std::move(out)}};
}

json::value to_json(const thread::poller& p) {
    json::object out{{"name", p.name()},
                     {"id", p.id()},
                     {"state", p.paused() ? "paused" : "waiting"},
                     {"run_count", p.runs()},
                     {"busy_count", p.busy_runs()}};
    if (p.kind() == poller_kind::timed) out.add("period_ticks", p.period());
    return out;
}

task<json::value> get_pollers(instance& i) {
    json::array out;
    co_await i.threads().for_each_thread([&](thread::thread& t) {
        json::array active, timed, paused;
        for (const thread::poller& p : t.pollers()) {
            (p.paused() ? paused : p.kind() == poller_kind::timed ? timed : active).push_back(to_json(p));
        }
        out.push_back(json::object{{"name", t.name()},
                                   {"id", t.id()},
                                   {"active_pollers", std::move(active)},
                                   {"timed_pollers", std::move(timed)},
                                   {"paused_pollers", std::move(paused)}});
    });
    co_return json::object{{"tick_rate", tick_rate}, {"threads", std::move(out)}};
}

task<json::value> get_io_channels(instance& i) {
    json::array out;
    co_await i.threads().for_each_thread([&](thread::thread& t) {
        json::array channels;
        for (const thread::channel_slot& c : t.channels()) {
            channels.push_back(json::object{{"name", c.device_name()}, {"ref", c.references()}});
        }
        out.push_back(json::object{{"name", t.name()}, {"io_channels", std::move(channels)}});
    });
    co_return json::object{{"tick_rate", tick_rate}, {"threads", std::move(out)}};
}

struct set_cpumask_params {
    uint64_t id = 0;
    std::string cpumask;
    static constexpr auto fields =
        std::tuple{rpc::required(&set_cpumask_params::id, "id", "Number of the thread, as thread_get_stats gives it"),
                   rpc::required(&set_cpumask_params::cpumask, "cpumask", "Processors it may run on: 0x3 or [0,1]")};
};

result<> set_cpumask(instance& i, set_cpumask_params p) {
    auto cpus = thread::cpu_set::parse(p.cpumask);
    if (!cpus) {
        return fail(
            error(errc::rpc_internal, fmt::format("Invalid cpumask {}: {}", p.cpumask, cpus.error().message())));
    }
    if (i.threads().find_thread(p.id) == nullptr) {
        return fail(error(errc::rpc_invalid_params, fmt::format("Thread {} does not exist", p.id)));
    }
    thread::cpu_set ours = i.threads().cpus(), both;
    for (unsigned cpu : cpus->list()) {
        if (ours.contains(cpu)) both.add(cpu);
    }
    if (both.empty()) {
        return fail(error(errc::rpc_internal, fmt::format("No CPU is selected from reactor mask {}", ours.to_mask())));
    }
    return i.threads().set_cpus(p.id, std::move(both));
}

}  // namespace

void add_thread_methods(instance& to) {
    using rpc::make_method;
    auto add = [&](auto m) { to.methods().add(m.bind(to)); };
    add(make_method("thread_get_stats", "How busy each thread was, and how many pollers it has", get_stats));
    add(make_method("thread_get_pollers", "The pollers of each thread", get_pollers));
    add(make_method("thread_get_io_channels", "The channels each thread has open", get_io_channels));
    add(make_method("thread_set_cpumask", "Sets the processors a thread may run on", set_cpumask));
}

}  // namespace varve::server
