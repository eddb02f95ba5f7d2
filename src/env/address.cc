#include "env/socket.h"

namespace varve::env {

std::string address::to_string() const {
    switch (kind) {
        case family::ipv4:
            return host + ':' + std::to_string(port);
        case family::ipv6:
            return '[' + host + "]:" + std::to_string(port);
        case family::unix_path:
            break;
    }
    return host;
}

}  // namespace varve::env
