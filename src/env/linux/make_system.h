// The factory of the Linux world: all that the rest of Varve includes of this folder.
// Namespace os_linux and not linux, because GNU mode defines the latter as a macro.
#pragma once

#include <memory>

#include "env/system.h"

namespace varve::env::os_linux {

enum class loop_kind : uint8_t {
    automatic,  // the environment variable VARVE_LOOP if set, else io_uring if the kernel allows, else epoll
    io_uring,   // make_loop fails where the kernel does not allow it
    epoll,
};

struct options {
    loop_kind kind = loop_kind::automatic;
    bool hugepages = true;            // use reserved hugepages for large allocations
    bool incremental_receive = true;  // io_uring: let the kernel fill one large buffer bit by bit (Linux 6.12)
};

std::unique_ptr<env::system> make_system(const options& how = {});

}  // namespace varve::env::os_linux
