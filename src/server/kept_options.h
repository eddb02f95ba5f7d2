// Subsystems of SPDK's whose options have no meaning here, because memory is sized by need and sockets are the
// system's: sock, iobuf, accel. Clients and saved configurations set them, so they are accepted, kept, reported and
// saved again.
#pragma once

#include <memory>

#include "rpc/subsystem.h"

namespace varve::server {

std::unique_ptr<rpc::subsystem> make_sock();
std::unique_ptr<rpc::subsystem> make_iobuf();
std::unique_ptr<rpc::subsystem> make_accel();

}  // namespace varve::server
