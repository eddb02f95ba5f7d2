// What carries queue pairs. TCP here; others later.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "env/socket.h"
#include "thread/task.h"

namespace varve::targets::nvmf {

class target;

// nvmf_create_transport's parameters that concern TCP, with SPDK's names and defaults.
struct transport_options {
    std::string trtype = "TCP";
    uint16_t max_queue_depth = 128;
    uint16_t max_io_qpairs_per_ctrlr = 127;
    uint32_t in_capsule_data_size = 4096;
    uint32_t max_io_size = 131072;
    uint32_t max_aq_depth = 128;
    bool dif_insert_or_strip = false;
    bool zcopy = false;
    bool c2h_success = true;
    uint32_t sock_priority = 0;
    uint32_t abort_timeout_sec = 1;
    uint32_t ack_timeout = 0;
    uint32_t data_wr_pool_size = 0;
    bool disable_command_passthru = false;
    uint16_t kas = 100;
    uint32_t min_kato = 10000;
};

class transport {
  public:
    virtual ~transport() = default;
    const transport_options& options() const noexcept { return _options; }

    // App thread. Several subsystems may listen at one address: counted.
    virtual task<> listen(const env::address& at) = 0;
    virtual void stop_listening(const env::address& at) noexcept = 0;

  protected:
    explicit transport(transport_options o) : _options(std::move(o)) {}
    transport_options _options;
};

// tcp_transport.cc
std::unique_ptr<transport> make_tcp_transport(target& of, transport_options options);

}  // namespace varve::targets::nvmf
