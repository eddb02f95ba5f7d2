// The command line of `varve serve`. It takes every option of spdk_tgt, so that scripts work unchanged; those that have
// no meaning here are accepted, and --help says so.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "app/commands.h"
#include "util/log.h"

namespace varve::app {

struct serve_options {
    std::string cpus;  // empty: the first this process may use
    std::string rpc_socket = "/var/tmp/spdk.sock";
    bool no_rpc_server = false;
    std::string config_file;
    bool ignore_config_errors = false;
    bool wait_for_rpc = false;
    bool no_huge = false;
    bool busy_poll = false;
    std::vector<std::string> log_flags;
    bool silence_notices = false;
    std::vector<std::string> allowed_methods;
    std::string pid_file;
};

// Nullopt: there is nothing to serve, and `status` is the exit status (--help, --version, a mistake, told).
std::optional<serve_options> parse_serve_options(const arguments& args, int& status);

}  // namespace varve::app
