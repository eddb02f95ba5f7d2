// Admin commands that have a file of their own. Each answers the request, at once or from a task of the poll group's.
#pragma once

#include <cstddef>
#include <span>

#include "nvme/log_page.h"
#include "targets/nvmf/request.h"
#include "thread/task.h"

namespace varve::targets::nvmf {

void identify(request& r) noexcept;                         // admin_identify.cc
void get_log_page(request& r) noexcept;                     // admin_log.cc
task<> discovery_log(request& r, nvme::log_request asked);  // discovery.cc
void get_features(request& r) noexcept;                     // admin_features.cc
void set_features(request& r) noexcept;

// With a status that is not success: do not retry.
void answer(request& r, nvme::status code, uint64_t result = 0) noexcept;
// Sends `data` from `offset` on, cut to what the host asked for and filled up with zeroes. Past its end: Invalid Field
// (Base 5.16).
void answer_with(request& r, std::span<const std::byte> data, uint64_t offset = 0) noexcept;

}  // namespace varve::targets::nvmf
