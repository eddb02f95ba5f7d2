#include "app/bench/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "json/value.h"
#include "json/write.h"

namespace varve::app::bench {

namespace {

struct point {
    const char* name;
    double fraction;
};
constexpr point points[] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p99.9", 0.999}, {"p99.99", 0.9999}};

double per_second(uint64_t n, time_ns in) {
    return in > 0 ? static_cast<double>(n) * 1e9 / static_cast<double>(in) : 0;
}
double mebibytes(double bytes) { return bytes / (1024.0 * 1024.0); }
double microseconds_of(uint64_t ns) { return static_cast<double>(ns) / 1000.0; }

}  // namespace

std::string progress_line(const options& how, uint64_t ios, uint64_t ios_before, time_ns since, time_ns elapsed) {
    constexpr std::size_t width = 30;
    double share = std::min(1.0, static_cast<double>(elapsed) / (static_cast<double>(how.seconds) * 1e9));
    auto done = static_cast<std::size_t>(share * width);
    double rate = per_second(ios - ios_before, since);
    return fmt::format("\r  [{}{}] {:3.0f} %  {:>9.0f} IOPS  {:>8.1f} MiB/s ", std::string(done, '#'),
                       std::string(width - done, '.'), share * 100, rate, mebibytes(rate * how.io_size));
}

std::string in_words(const options& how, const geometry& disk, const totals& t) {
    double rate = per_second(t.ios, t.took);
    std::string text = fmt::format("{}: {} of {} bytes, queue depth {}, {:.1f} s\n", disk.name, name_of(how.load),
                                   how.io_size, how.depth, static_cast<double>(t.took) / 1e9);
    text += fmt::format("  {:.0f} IOPS, {:.1f} MiB/s, {} requests, {} errors", rate, mebibytes(rate * how.io_size),
                        t.ios, t.errors);
    if (how.load == workload::verify) text += fmt::format(", {} read back and compared", t.verified);
    text += "\n  latency in microseconds:";
    for (auto [name, fraction] : points)
        text += fmt::format("  {} {:.1f}", name, microseconds_of(t.latency_ns.quantile(fraction)));
    text += '\n';
    if (!t.first_failure.empty()) text += fmt::format("  first failure: {}\n", t.first_failure);
    return text;
}

std::string as_json(const options& how, const geometry& disk, const totals& t) {
    double rate = per_second(t.ios, t.took);
    json::object latency;
    for (auto [name, fraction] : points) latency.add(name, microseconds_of(t.latency_ns.quantile(fraction)));
    json::object out{{"disk", disk.name},
                     {"workload", name_of(how.load)},
                     {"io_size", how.io_size},
                     {"queue_depth", how.depth},
                     {"seconds", static_cast<double>(t.took) / 1e9},
                     {"ios", t.ios},
                     {"errors", t.errors},
                     {"iops", rate},
                     {"mibps", mebibytes(rate * how.io_size)},
                     {"latency_us", std::move(latency)}};
    if (how.load == workload::verify) {
        out.add("verified", t.verified);
        out.add("wrong", t.wrong);
    }
    if (!t.first_failure.empty()) out.add("first_failure", t.first_failure);
    return json::write(out, 2) + "\n";
}

}  // namespace varve::app::bench
