// One command under way. Its issuer owns it and gives it to a queue pair with submit(); from then until done() the
// request and the memory it points to belong to the queue. Nothing is allocated to carry it.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "nvme/spec.h"

namespace varve::nvme::host {

struct request {
    request() = default;
    request(const request&) = delete;
    request& operator=(const request&) = delete;

    // ---- the issuer's, before submit ----
    sqe command{};  // the queue fills in the identifier and the data pointer
    void (*done)(request&) noexcept = nullptr;
    void* context = nullptr;
    const iovec* iov = nullptr;  // the data, written to or read from by the command's direction
    uint32_t iov_count = 0;
    uint32_t length = 0;  // bytes: the sum of iov

    // ---- the queue's answer, at done ----
    cqe completion{};
    uint32_t transferred = 0;  // bytes that came from the controller

    // ---- the queue's ----
    request* next = nullptr;
    iovec whole{};

    // One piece of memory as the data; for memory that is only read, too.
    void set_data(std::span<std::byte> bytes) noexcept {
        whole = {bytes.data(), bytes.size()};
        iov = &whole;
        iov_count = bytes.empty() ? 0 : 1;
        length = static_cast<uint32_t>(bytes.size());
    }
    bool ok() const noexcept { return completion.ok(); }
    status code() const noexcept { return completion.code(); }
};

// Which way the data goes. Fabrics commands say it in their type (Base 6), all others in their opcode.
constexpr data_direction direction_of(const sqe& command) noexcept {
    const bool fabrics = command.opcode == raw(admin_opcode::fabrics);
    return nvme::direction_of(fabrics ? static_cast<uint8_t>(command.nsid.get()) : command.opcode);
}

}  // namespace varve::nvme::host
