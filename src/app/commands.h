// The sub-commands of `varve`. Each gets its own arguments, the name of the command first, and returns the exit status.
#pragma once

#include <span>
#include <string>
#include <vector>

namespace varve::app {

using arguments = std::vector<std::string>;

enum exit_status : int { exit_ok = 0, exit_failed = 1, exit_usage = 2, exit_no_answer = 3 };

int serve_command(const arguments& args);
int rpc_command(const arguments& args);
int bench_command(const arguments& args);
int fsck_command(const arguments& args);
int jobs_command(const arguments& args);
int blob_command(const arguments& args);
int sim_command(const arguments& args);
int version_command(const arguments& args);

struct command {
    const char* name;
    const char* description;
    int (*run)(const arguments& args);
};

inline constexpr command commands[] = {
    {"serve", "serve disks: the storage daemon, driven by JSON-RPC", serve_command},
    {"rpc", "call a method of a running server", rpc_command},
    {"jobs", "show long operations of a running server, and pause, slow or end them", jobs_command},
    {"bench", "load a bdev or an NVMe/TCP namespace and say how fast it answered", bench_command},
    {"fsck", "check a store of volumes on a file or device, and repair it", fsck_command},
    {"blob", "print what is in a store of volumes", blob_command},
    {"sim", "simulate a server and a host, with faults, from a seed", sim_command},
    {"version", "say which version this is", version_command},
};

}  // namespace varve::app
