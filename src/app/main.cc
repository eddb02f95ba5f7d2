// varve COMMAND [ARGUMENTS...]; `varve serve` when called by the name spdk_tgt.
#include <fmt/format.h>

#include <string_view>

#include "app/commands.h"
#include "util/version.h"

namespace varve::app {

int version_command(const arguments&) {
    fmt::print("varve {}\n", version());
    return exit_ok;
}

namespace {

void print_help(std::FILE* to) {
    fmt::print(to,
               "varve {}: files, memory and SSDs as disks over NVMe/TCP, driven by SPDK's JSON-RPC\n\n"
               "Usage: varve COMMAND [OPTIONS]\n\nCommands:\n",
               version());
    for (const command& c : commands) fmt::print(to, "  {:<10}{}\n", c.name, c.description);
    fmt::print(
        to,
        "\n`varve COMMAND --help` tells its options. A first disk:\n\n"
        "  varve serve &\n"
        "  varve rpc bdev_malloc_create --name ram0 --num_blocks 131072 --block_size 512\n"
        "  varve rpc nvmf_create_transport --trtype TCP\n"
        "  varve rpc nvmf_create_subsystem --nqn nqn.2016-06.io.spdk:ram --allow_any_host\n"
        "  varve rpc nvmf_subsystem_add_ns --nqn nqn.2016-06.io.spdk:ram --namespace '{{\"bdev_name\": \"ram0\"}}'\n"
        "  varve rpc nvmf_subsystem_add_listener --nqn nqn.2016-06.io.spdk:ram \\\n"
        "      --listen_address '{{\"trtype\": \"TCP\", \"adrfam\": \"IPv4\", \"traddr\": \"127.0.0.1\", \"trsvcid\": "
        "\"4420\"}}'\n");
}

int run(arguments args) {
    std::string_view self = args.empty() ? std::string_view("varve") : std::string_view(args[0]);
    self = self.substr(self.rfind('/') + 1);
    if (self == "spdk_tgt") return serve_command(args);
    if (args.size() < 2) {
        print_help(stderr);
        return exit_usage;
    }
    const std::string name = args[1];
    if (name == "--help" || name == "-h" || name == "help") {
        print_help(stdout);
        return exit_ok;
    }
    if (name == "--version") return version_command(args);
    args.erase(args.begin());
    for (const command& c : commands) {
        if (name == c.name) return c.run(args);
    }
    fmt::print(stderr, "varve: there is no command '{}'; `varve --help` lists them\n", name);
    return exit_usage;
}

}  // namespace
}  // namespace varve::app

int main(int argc, char** argv) { return varve::app::run(varve::app::arguments(argv, argv + argc)); }
