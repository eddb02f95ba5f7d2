#include "app/serve_options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "util/version.h"

namespace varve::app {

namespace {

struct ignored {
    const char* names;
    bool takes_value;
    const char* why;
};

constexpr const char* ignored_group = "Accepted for spdk_tgt's users, without effect";
constexpr ignored ignored_options[] = {
    {"-s,--mem-size", true, "memory is taken as needed"},
    {"-n,--mem-channels", true, "memory is taken as needed"},
    {"-g,--single-file-segments", false, "there are no memory files"},
    {"-R,--huge-unlink", false, "hugepages are anonymous"},
    {"--huge-dir", true, "hugepages are anonymous"},
    {"--iova-mode", true, "decided for each device"},
    {"--base-virtaddr", true, "the kernel chooses"},
    {"--env-context", true, "there is no DPDK"},
    {"--msg-mempool-size", true, "messages need no pool"},
    {"--enforce-numa", false, "memory is taken where it is used"},
    {"-i,--shm-id", true, "nothing is shared with other processes"},
    {"-u,--no-pci", false, "PCI devices are used when asked for"},
    {"-A,--pci-allowed", true, "PCI devices are used when asked for"},
    {"-B,--pci-blocked", true, "PCI devices are used when asked for"},
    {"--vfio-vf-token", true, "PCI devices are used when asked for"},
    {"-e,--tpoint-group", true, "no trace points"},
    {"--num-trace-entries", true, "no trace points"},
    {"--interrupt-mode", false, "idle processors always sleep, unless --busy-poll"},
    {"--disable-cpumask-locks", false, "processors are shared with others"},
    {"-d,--limit-coredump", false, "core dumps are left as the system has them"},
    {"-p,--main-core", true, "the first processor of the mask"},
    {"-S", true, "the folder of vhost sockets"},
};

void add_ignored(CLI::App& app) {
    for (const ignored& o : ignored_options) {
        // Nobody reads what is given; the option must only outlive parsing.
        auto* option = o.takes_value ? app.add_option_function<std::string>(
                                           o.names, [](const std::string&) {}, o.why)
                                     : app.add_flag_function(o.names, [](std::int64_t) {}, o.why);
        option->group(ignored_group)->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
    }
}

void add_options(CLI::App& app, serve_options& o, std::string& lcores) {
    app.add_option("-r,--rpc-socket", o.rpc_socket, "Unix socket of the JSON-RPC server")->capture_default_str();
    app.add_flag("--no-rpc-server", o.no_rpc_server, "do not listen for JSON-RPC");
    app.add_option("-c,--config,--json", o.config_file, "configuration to load, as save_config wrote it")
        ->type_name("FILE");
    app.add_flag("--json-ignore-init-errors", o.ignore_config_errors, "go on when a call of the configuration fails");
    app.add_flag("--wait-for-rpc", o.wait_for_rpc, "start the subsystems when framework_start_init is called");
    app.add_option("-m,--cpumask", o.cpus, "processors to run on: 0x3 or [0,2-3] (default: one)")->type_name("CPUS");
    app.add_option("--lcores", lcores, "processors to run on, as a list: 0,2-3")
        ->type_name("CPUS")
        ->excludes("--cpumask");
    app.add_flag("--busy-poll", o.busy_poll, "never sleep: a little less latency for all of the processors' time");
    app.add_flag("--no-huge", o.no_huge, "use ordinary memory even where hugepages are reserved");
    app.add_option("-L,--logflag", o.log_flags, "print debug lines of this part (log_get_flags), or of \"all\"")
        ->type_name("FLAG")
        ->allow_extra_args(false);
    app.add_flag("--silence-noticelog", o.silence_notices, "print warnings and errors only");
    app.add_option("--rpcs-allowed", o.allowed_methods, "the only methods that may be called")
        ->delimiter(',')
        ->type_name("METHOD,...");
    app.add_option("-f,--pid-file", o.pid_file, "write the process id to this file")->type_name("FILE");
}

}  // namespace

std::optional<serve_options> parse_serve_options(const arguments& args, int& status) {
    CLI::App app(
        "Serves block devices over NVMe/TCP, driven by JSON-RPC on a Unix socket. Works without options: any user,\n"
        "no hugepages, one processor that sleeps when there is nothing to do. SIGTERM or Ctrl-C ends it in order.",
        "varve serve");
    serve_options o;
    std::string lcores;
    bool version_wanted = false;
    app.add_flag("-v,--version", version_wanted, "print the version");
    add_options(app, o, lcores);
    add_ignored(app);
    app.footer("Example:\n  varve serve -m 0x3 -r /run/varve.sock -c varve.json");
    try {
        std::vector<std::string> rest(args.rbegin(), args.rend() - 1);
        app.parse(std::move(rest));
    } catch (const CLI::ParseError& e) {
        status = app.exit(e) == 0 ? exit_ok : exit_usage;
        return std::nullopt;
    }
    if (version_wanted) {
        fmt::print("varve {}\n", version());
        status = exit_ok;
        return std::nullopt;
    }
    if (o.wait_for_rpc && !o.config_file.empty()) {
        fmt::print(stderr, "varve serve: --wait-for-rpc and a configuration file exclude each other\n");
        status = exit_usage;
        return std::nullopt;
    }
    if (!lcores.empty()) o.cpus = "[" + lcores + "]";
    return o;
}

}  // namespace varve::app
