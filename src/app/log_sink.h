// Where log lines go: those to be printed to standard error, one system call a line; those to be recorded to syslog.
#pragma once

#include "util/log.h"

namespace varve::env {
class system;
}

namespace varve::app {

log::sink make_log_sink(env::system& world);

}  // namespace varve::app
