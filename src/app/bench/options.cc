#include "app/bench/options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <map>

namespace varve::app::bench {

namespace {

const std::map<std::string, workload> workloads = {
    {"read", workload::read},
    {"write", workload::write},
    {"rw", workload::rw},
    {"randread", workload::randread},
    {"randwrite", workload::randwrite},
    {"randrw", workload::randrw},
    {"verify", workload::verify},
    {"flush", workload::flush},
    {"unmap", workload::unmap},
    {"write_zeroes", workload::write_zeroes},
};

}  // namespace

const char* name_of(workload w) noexcept {
    for (const auto& [name, value] : workloads)
        if (value == w) return name.c_str();
    return "";
}

result<parsed> parse(const std::vector<std::string>& arguments) {
    parsed out;
    options& o = out.how;
    CLI::App app{
        "Load a bdev, or a namespace over NVMe/TCP, and say how fast it answered.\n\n"
        "  varve bench -q 32 -o 512                          a null bdev: what the layers above a disk cost\n"
        "  varve bench -c disks.json -T Malloc0 -w randrw    a bdev that a saved configuration makes\n"
        "  varve bench --nvme 'trtype:TCP traddr:127.0.0.1 trsvcid:4420 subnqn:NQN' -w verify",
        "varve bench"};
    app.add_option(
           "-w,--workload", o.load,
           "read, write, rw (in order); randread, randwrite, randrw; verify (write, read back, compare); flush, "
           "unmap, write_zeroes")
        ->transform(CLI::CheckedTransformer(workloads, CLI::ignore_case).description("NAME"))
        ->default_str("randread");
    app.add_option("-q,--queue-depth", o.depth, "requests under way for each processor")
        ->check(CLI::Range(1, 4096))
        ->capture_default_str();
    app.add_option("-o,--io-size", o.io_size, "bytes of a request (1k, 4k, 1m)")
        ->transform(CLI::AsSizeValue(false))
        ->capture_default_str();
    app.add_option("-t,--time", o.seconds, "seconds")->check(CLI::Range(1, 86400))->capture_default_str();
    app.add_option("-M,--rwmixread", o.read_percent, "reads of rw and randrw, in percent")
        ->check(CLI::Range(0, 100))
        ->capture_default_str();
    app.add_option("-m,--cpumask", o.cpus, "processors, each with a load of its own (0x3, [0,2-3]); default: one");
    app.add_option("-c,--config", o.config_file, "saved configuration that makes the bdevs; default: one null bdev")
        ->type_name("FILE");
    app.add_option("-T,--bdev", o.bdev, "the bdev to load; default: the first")->type_name("NAME");
    app.add_option("--nvme", o.nvme,
                   "a namespace over NVMe/TCP instead: trtype:TCP traddr:A trsvcid:P subnqn:NQN [nsid:N]")
        ->type_name("TRID");
    app.add_option("--record", o.record_file,
                   "of verify: flush now and then, check first what earlier runs wrote, and note what this one does")
        ->type_name("FILE");
    app.add_flag("--hdgst", o.header_digest, "NVMe/TCP header digests");
    app.add_flag("--ddgst", o.data_digest, "NVMe/TCP data digests");
    app.add_option("--seed", o.seed, "of the random addresses")->capture_default_str();
    app.add_flag("--busy-poll", o.busy_poll, "never sleep");
    app.add_flag("--json", o.json, "the result as JSON, and no progress");
    app.add_flag("--quiet", o.quiet, "no progress");
    try {
        app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend() - 1));
    } catch (const CLI::CallForHelp&) {
        out.what = asked::help;
        out.text = app.help();
        return out;
    } catch (const CLI::ParseError& e) {
        return fail(error(errc::invalid, e.what()));
    }
    if (!o.record_file.empty() && (o.load != workload::verify || !o.cpus.empty()))
        return fail(error(errc::invalid, "--record goes with -w verify and one processor"));
    if (!o.nvme.empty() && (!o.config_file.empty() || !o.bdev.empty()))
        return fail(error(errc::invalid, "--nvme does not go with -c or -T"));
    return out;
}

result<transport_id> parse_transport_id(const std::string& text) {
    transport_id id;
    std::size_t at = 0;
    while (at < text.size()) {
        std::size_t end = text.find_first_of(" ,\t", at);
        std::string_view part = std::string_view(text).substr(at, end == text.npos ? text.npos : end - at);
        at = end == text.npos ? text.size() : end + 1;
        if (part.empty()) continue;
        std::size_t colon = part.find_first_of(":=");
        if (colon == part.npos)
            return fail(errc::invalid, fmt::format("\"{}\" in the transport id has no value", part));
        std::string_view key = part.substr(0, colon), value = part.substr(colon + 1);
        if (key == "traddr") {
            id.traddr = value;
        } else if (key == "trsvcid") {
            id.trsvcid = value;
        } else if (key == "subnqn") {
            id.subnqn = value;
        } else if (key == "nsid" || key == "ns") {
            std::from_chars(value.data(), value.data() + value.size(), id.nsid);
        } else if (key == "trtype") {
            if (value != "TCP" && value != "tcp")
                return fail(errc::invalid, fmt::format("trtype {} is not offered; TCP is", value));
        } else if (key != "adrfam") {
            return fail(errc::invalid, fmt::format("\"{}\" is no part of a transport id", key));
        }
    }
    if (id.subnqn.empty()) return fail(errc::invalid, "the transport id has no subnqn");
    return id;
}

}  // namespace varve::app::bench
