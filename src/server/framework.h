// Methods about the system as a whole: rpc_get_methods, spdk_*, framework_*, saved configuration.
#pragma once

namespace varve::server {

class instance;

void add_framework_methods(instance& to);
void add_config_methods(instance& to);  // saved configuration; framework_config.cc

}  // namespace varve::server
