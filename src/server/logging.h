// log_*: thresholds and flags of the system's log.
#pragma once

namespace varve::server {

class instance;

void add_log_methods(instance& to);

}  // namespace varve::server
