// bdev_get_iostat, bdev_reset_iostat, histograms, queue depth sampling. Keys and their order are SPDK's.
#include <fmt/format.h>

#include <algorithm>

#include "bdev/awaits.h"
#include "bdev/core/device_state.h"
#include "bdev/methods/service.h"
#include "env/system.h"
#include "util/base64.h"

namespace varve::bdev {

constexpr auto names_of(stats_reset) {
    return std::to_array<rpc::named<stats_reset>>({{"all", stats_reset::all},
                                                   {"maxmin", stats_reset::maxmin},
                                                   {"error", stats_reset::error},
                                                   {"none", stats_reset::none}});
}

namespace {

constexpr uint64_t tick_rate = 1'000'000'000;

// Keys of "io_error"; SPDK's where it has one for it.
constexpr std::array<const char*, status_count> error_names = {
    "ok",          "failed",     "invalid", "unsupported", "out_of_range", "read_only",           "no_space",
    "media_error", "miscompare", "aborted", "no_device",   "nomem",        "reservation_conflict"};

json::object encode(const channel_stats& s, uint32_t block_size) {
    json::object out;
    constexpr std::pair<op, const char*> amounts[] = {
        {op::read, "read"}, {op::write, "written"}, {op::unmap, "unmapped"}, {op::copy, "copied"}};
    constexpr std::pair<op, const char*> kinds[] = {
        {op::read, "read"}, {op::write, "write"}, {op::unmap, "unmap"}, {op::copy, "copy"}};
    for (unsigned i = 0; i < std::size(kinds); ++i) {
        out.add(fmt::format("bytes_{}", amounts[i].second), s[kinds[i].first].blocks * block_size);
        out.add(fmt::format("num_{}_ops", kinds[i].second), s[kinds[i].first].ops);
    }
    for (const auto& [o, name] : kinds) {
        const op_stats& one = s[o];
        out.add(fmt::format("{}_latency_ticks", name), one.latency_sum);
        out.add(fmt::format("max_{}_latency_ticks", name), one.latency_max);
        out.add(fmt::format("min_{}_latency_ticks", name),
                one.ops == 0 || one.latency_min == INT64_MAX ? 0 : one.latency_min);
    }
    json::object errors;
    for (unsigned i = 1; i < status_count; ++i) {
        if (s.errors[i] != 0) errors.add(error_names[i], s.errors[i]);
    }
    out.add("io_error", std::move(errors));
    return out;
}

void append(json::object& to, json::object from) {
    for (json::member& m : from) to.add(std::move(m.name), std::move(m.data));
}

struct iostat_params {
    std::optional<std::vector<std::string>> names;
    bool per_channel = false;
    stats_reset reset_mode = stats_reset::none;
    static constexpr auto fields =
        std::tuple{rpc::optional(&iostat_params::names, "names", "Names of bdevs; all when not given"),
                   rpc::optional(&iostat_params::per_channel, "per_channel", "Each channel of one bdev by itself"),
                   rpc::optional(&iostat_params::reset_mode, "reset_mode", "What to reset after reading")};
};

// The device stays while its statistics are gathered.
result<gate::holder> hold(device& d) {
    gate::holder held = device_state::of_device(d).tasks.enter();
    if (!held) return fail(errc::no_device, fmt::format("bdev {} is being removed", d.name()));
    return held;
}

task<json::value> describe_stats(device& d, stats_reset reset_mode) {
    gate::holder stays = co_await hold(d);
    device_state& s = device_state::of_device(d);
    json::object out{{"name", d.name()}};
    append(out, encode(co_await s.stats(), d.block_size()));
    if (const auto* q = s.sampling.get()) {
        out.add("queue_depth_polling_period", q->period / microseconds);
        out.add("queue_depth", q->depth);
        out.add("io_time", q->io_time / microseconds);
        out.add("weighted_io_time", q->weighted_io_time / microseconds);
    }
    if (reset_mode != stats_reset::none) co_await s.reset_stats(reset_mode);
    co_return out;
}

task<json::array> describe_channels(device& d, stats_reset reset_mode) {
    gate::holder stays = co_await hold(d);
    device_state& s = device_state::of_device(d);
    json::array out;
    co_await s.look_around([&](channel_core& c) {
        json::object one{{"thread_id", c.on.id()}};
        append(one, encode(c.stats(), d.block_size()));
        out.push_back(std::move(one));
    });
    if (reset_mode != stats_reset::none) co_await s.reset_stats(reset_mode);
    co_return out;
}

task<json::value> get_iostat(registry& devices, iostat_params p) {
    if (p.per_channel && (!p.names || p.names->size() != 1)) {
        co_await fail(errc::invalid, "per_channel is for one bdev; give its name in names");
    }
    std::vector<std::string> names;
    if (p.names) {
        names = std::move(*p.names);
        for (const std::string& name : names) co_await find(devices, name);
    } else {
        for (device* d : devices.devices()) names.push_back(d->name());
    }
    auto now = static_cast<uint64_t>(devices.world().now());
    json::object out{{"tick_rate", tick_rate}, {"ticks", now}};
    if (p.per_channel) {
        device& d = *co_await find(devices, names[0]);
        out.add("name", d.name());
        out.add("channels", co_await describe_channels(d, p.reset_mode));
        co_return out;
    }
    json::array all;
    for (const std::string& name : names) {
        device* d = devices.find(name);
        if (d != nullptr) all.push_back(co_await describe_stats(*d, p.reset_mode));  // else gone meanwhile
    }
    out.add("bdevs", std::move(all));
    co_return out;
}

struct reset_params {
    std::optional<std::string> name;
    stats_reset mode = stats_reset::all;
    static constexpr auto fields =
        std::tuple{rpc::optional(&reset_params::name, "name", "Name of one bdev; all when not given"),
                   rpc::optional(&reset_params::mode, "mode", "What to reset")};
};

task<> reset_iostat(registry& devices, reset_params p) {
    if (p.name) co_await find(devices, *p.name);
    std::vector<std::string> names;
    for (device* d : devices.devices()) names.push_back(d->name());
    if (p.name) names = {*p.name};
    for (const std::string& name : names) {
        device* d = devices.find(name);
        if (d == nullptr) continue;
        gate::holder stays = co_await hold(*d);
        co_await device_state::of_device(*d).reset_stats(p.mode);
    }
}

struct sampling_params {
    std::string name;
    uint64_t period = 0;
    static constexpr auto fields =
        std::tuple{rpc::required(&sampling_params::name, "name", "Name of the bdev"),
                   rpc::required(&sampling_params::period, "period", "Microseconds between samples; 0: none",
                                 rpc::range<0, 1'000'000'000'000>)};
};

result<> set_sampling(registry& devices, sampling_params p) {
    result<device*> d = find(devices, p.name);
    if (!d) return fail(std::move(d).error());
    device_state& s = device_state::of_device(**d);
    s.sampling.reset();
    if (p.period != 0) {
        s.sampling = std::make_unique<queue_depth_sampling>(s, static_cast<time_ns>(p.period) * microseconds);
    }
    return {};
}

struct enable_histogram_params {
    std::string name;
    bool enable = false;
    std::optional<std::string> opc;
    std::optional<uint8_t> granularity;
    std::optional<uint64_t> min_nsec, max_nsec;
    static constexpr auto fields = std::tuple{
        rpc::required(&enable_histogram_params::name, "name", "Name of the bdev"),
        rpc::required(&enable_histogram_params::enable, "enable", "Begin to count latencies, or end"),
        rpc::optional(&enable_histogram_params::opc, "opc", "Only of this operation, as supported_io_types names them"),
        rpc::optional(&enable_histogram_params::granularity, "granularity",
                      "Each power of two is divided into 2^granularity buckets", rpc::range<1, 20>),
        rpc::optional(&enable_histogram_params::min_nsec, "min_nsec", "Least latency that is resolved"),
        rpc::optional(&enable_histogram_params::max_nsec, "max_nsec", "Greatest latency that is resolved",
                      rpc::range<1, INT64_MAX>)};
};

task<> enable_histogram(registry& devices, enable_histogram_params p) {
    device& d = *co_await find(devices, p.name);
    gate::holder stays = co_await hold(d);
    std::optional<histogram_options> wanted;
    if (p.enable) {
        wanted.emplace();
        if (p.opc) {
            std::optional<op> only = op_named(*p.opc);
            if (!only) co_await fail(error(errc::rpc_internal, fmt::format("Invalid Io type: opc {}", *p.opc)));
            wanted->only = *only;
        }
        if (p.granularity) wanted->granularity = *p.granularity;
        if (p.min_nsec) wanted->min = static_cast<time_ns>(std::min<uint64_t>(*p.min_nsec, INT64_MAX));
        if (p.max_nsec) wanted->max = static_cast<time_ns>(*p.max_nsec);
        if (wanted->min > wanted->max) co_await fail(errc::invalid, "min_nsec must not be above max_nsec");
    }
    co_await device_state::of_device(d).set_histogram(wanted);
}

struct get_histogram_params {
    std::string name;
    static constexpr auto fields = std::tuple{rpc::required(&get_histogram_params::name, "name", "Name of the bdev")};
};

task<metrics::histogram> histogram_of(registry& devices, std::string name) {
    device& d = *co_await find(devices, name);
    gate::holder stays = co_await hold(d);
    std::optional<metrics::histogram> sum = co_await device_state::of_device(d).histogram();
    // The code is SPDK's.
    if (!sum)
        co_await fail(errc::no_memory, fmt::format("bdev {} counts no latencies: see bdev_enable_histogram", name));
    co_return std::move(*sum);
}

task<json::value> get_histogram(registry& devices, get_histogram_params p) {
    metrics::histogram h = co_await histogram_of(devices, p.name);
    co_return json::object{{"histogram", base64(std::as_bytes(h.counts()))},
                           {"granularity", h.granularity()},
                           {"min_range", h.min_range()},
                           {"max_range", h.max_range()},
                           {"tsc_rate", tick_rate}};
}

struct borders_params {
    std::string name;
    std::vector<uint64_t> borders;
    static constexpr auto fields =
        std::tuple{rpc::required(&borders_params::name, "name", "Name of the bdev"),
                   rpc::required(&borders_params::borders, "borders", "Microseconds, ascending; at most 256")};
};

// A bucket counts where it begins.
task<json::value> get_histogram_borders(registry& devices, borders_params p) {
    if (p.borders.size() > 256 || !std::is_sorted(p.borders.begin(), p.borders.end())) {
        co_await fail(errc::invalid, "borders must ascend and be at most 256");
    }
    metrics::histogram h = co_await histogram_of(devices, p.name);
    std::vector<uint64_t> counts(p.borders.size() + 1);
    for (std::size_t i = 0; i < h.counts().size(); ++i) {
        uint64_t at = h.bounds_of(i).begin / microseconds;
        auto slot = std::upper_bound(p.borders.begin(), p.borders.end(), at) - p.borders.begin();
        counts[static_cast<std::size_t>(slot)] += h.counts()[i];
    }
    co_return json::object{{"borders_count", rpc::encode(counts)}};
}

}  // namespace

void append_config(const device& d, std::vector<rpc::call>& calls) {
    const device_state& s = device_state::of_device(d);
    if (const auto& h = s.histogram_wanted) {
        json::object params{{"name", d.name()}, {"enable", true}};
        if (h->only != op::count) params.add("opc", name_of(h->only));
        if (histogram_options defaults;
            h->granularity != defaults.granularity || h->min != defaults.min || h->max != defaults.max) {
            params.add("granularity", h->granularity);
            params.add("min_nsec", h->min);
            params.add("max_nsec", h->max);
        }
        calls.push_back({"bdev_enable_histogram", std::move(params)});
    }
    if (s.limits.any()) {
        json::object params{{"name", d.name()}};
        append(params, limits_of(d));
        calls.push_back({"bdev_set_qos_limit", std::move(params)});
    }
}

void add_statistics_methods(rpc::registry& methods, registry& devices) {
    auto add = [&](auto method) { methods.add(method.bind(devices)); };
    using rpc::make_method;
    add(make_method("bdev_get_iostat", "What bdevs have done, per operation, and how long it took", get_iostat));
    add(make_method("bdev_reset_iostat", "Begin counting anew", reset_iostat));
    add(make_method("bdev_set_qd_sampling_period", "Sample how many requests are under way", set_sampling));
    add(make_method("bdev_enable_histogram", "Count latencies in a histogram", enable_histogram));
    add(make_method("bdev_get_histogram", "The latency histogram of a bdev, base64 of 64-bit counts", get_histogram));
    add(make_method("bdev_get_histogram_borders", "The latency histogram of a bdev between given borders",
                    get_histogram_borders));
}

}  // namespace varve::bdev
