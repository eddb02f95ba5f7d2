// What belongs to a controller's admin queue: features, events, log pages, keep-alive. The admin queue's thread.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <vector>

#include "nvme/log_page.h"
#include "targets/nvmf/controller.h"
#include "thread/thread.h"

namespace varve::targets::nvmf {

constexpr std::size_t async_event_limit = 4;    // AERL + 1
constexpr std::size_t error_log_entries = 128;  // ELPE + 1

constexpr uint32_t keep_alive_ms_min = 1000;  // what a host may ask for at least

struct controller::admin_state : work {  // the work is the keep-alive timer's
    explicit admin_state(controller& c) : of(c), keep_alive(*this) {}

    controller& of;

    // --- keep-alive (Base 3.9): expires unless a command came in the last interval
    thread::timer keep_alive;
    uint32_t keep_alive_ms = 0;  // 0: off
    bool active = false;         // an admin or keep-alive command came since the timer was started

    // --- asynchronous events (Base 5.2)
    std::vector<request*> event_requests;  // waiting on the host's behalf, at most async_event_limit
    std::deque<nvme::async_event> events;  // happened, not yet told
    // A notice is told once, then not again until the host has read its log page: bit per event_info of notices told.
    bool namespace_notice_masked = false, ana_notice_masked = false, discovery_notice_masked = false;

    // --- features
    uint32_t async_event_config = 0;
    uint32_t temperature_threshold = 0, power_management = 0, arbitration = 0, error_recovery = 0, write_atomicity = 0;
    uint8_t advanced_retry = 0;  // ACRE of host behavior support

    // --- log pages
    std::vector<uint32_t> changed_namespaces;  // ascending; more than 1024 are told as "all"
    bool changed_overflow = false;
    uint64_t error_count = 0;
    std::deque<nvme::error_log_entry> errors;  // newest first
};

// Starts (or restarts) the keep-alive timer with the interval the controller has now.
void start_keep_alive(controller& c) noexcept;
// Tells the host, at once when it has asked for events.
void post_event(controller& c, nvme::async_event e) noexcept;
// Ends the host's waiting event requests; the admin queue is going, or the controller was reset.
void abort_events(controller& c, nvme::status with) noexcept;

}  // namespace varve::targets::nvmf
