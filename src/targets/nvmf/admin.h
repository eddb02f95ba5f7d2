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

constexpr uint32_t keep_alive_step_unit_ms = 100;  // of KAS

struct controller::admin_state : work {  // the work is the keep-alive timer's
    explicit admin_state(controller& c) : of(c), keep_alive(*this) {}

    controller& of;

    // --- keep-alive (Base 3.9): expires unless a command came in the last interval
    thread::timer keep_alive;
    uint32_t keep_alive_ms = 0;            // 0: off
    uint32_t keep_alive_ms_connected = 0;  // the one Connect asked for, which a reset restores
    bool asked_to_stay = false;            // Connect named an interval
    bool active = false;                   // an admin or keep-alive command came since the timer was started

    // --- asynchronous events (Base 5.2)
    std::vector<request*> event_requests;  // waiting on the host's behalf, at most async_event_limit
    std::deque<nvme::async_event> events;  // happened, not yet told
    // A notice is told once, then not again until the host has read its log page: bit per event_info of notices told.
    bool namespace_notice_masked = false, ana_notice_masked = false, discovery_notice_masked = false;

    // --- features a host may set; as they are here after a reset
    struct feature_values {
        uint32_t async_event_config = 0;  // see default_features()
        uint32_t temperature_threshold = 0, power_management = 0, arbitration = 0, error_recovery = 0,
                 write_atomicity = 0;
        uint8_t advanced_retry = 0;  // ACRE of host behavior support
    };
    feature_values features;

    // --- log pages
    std::vector<uint32_t> changed_namespaces;  // ascending; more than 1024 are told as "all"
    bool changed_overflow = false;
    uint64_t error_count = 0;
    std::deque<nvme::error_log_entry> errors;  // newest first
};

// What a host gets that asks for this interval (milliseconds, not 0): rounded up as Identify says, or to the longest.
uint32_t granted_keep_alive(const controller& c, uint32_t asked) noexcept;
// What features are before a host sets them (Base 5.27.1).
controller::admin_state::feature_values default_features(const controller& c) noexcept;
// The host has reset the controller (Base 3.7.2): what is the controller's own is as after Connect.
void reset_state(controller& c) noexcept;
// Starts (or restarts) the keep-alive timer with the interval the controller has now.
void start_keep_alive(controller& c) noexcept;
// Tells the host, at once when it has asked for events.
void post_event(controller& c, nvme::async_event e) noexcept;
// The host has read the log page that a notice names, and not asked to retain it: what waits to be told is forgotten,
// and the next change is told again (Base 5.2, 5.16, RAE).
void notice_read(controller& c, nvme::log_page page) noexcept;
// Ends the host's waiting event requests; the admin queue is going, or the controller was reset.
void abort_events(controller& c, nvme::status with) noexcept;

}  // namespace varve::targets::nvmf
