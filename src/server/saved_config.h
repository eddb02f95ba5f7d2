// Saved configuration: {"subsystems": [{"subsystem": NAME, "config": [{"method": ..., "params": {...}}, ...]}, ...]},
// read and written as SPDK does, so that either loads what the other saved.
//
// Loading goes over the file once in each state: what may be called at start-up is called then, the rest at run time.
// An entry that is an array is a batch: its calls in order. What concerns a subsystem this program does not have is
// skipped with a line in the log, and so are settings of parts it does not have yet (see saved_config.cc); any other
// unknown method, and any call that fails, ends the loading.
#pragma once

#include <string>
#include <string_view>

#include "json/value.h"
#include "thread/task.h"

namespace varve::server {

class instance;

// The shape only. Comments are allowed, as in SPDK's files.
result<json::value> read_config(std::string_view text);

json::value saved_config(const instance& of);
// {"subsystem": NAME, "config": [...] or null}; errc::not_found
result<json::value> saved_subsystem(const instance& of, std::string_view name);

struct load_options {
    bool ignore_errors = false;  // --json-ignore-init-errors: log and go on
    // Methods allowed in both states are called at start-up only; true when there was no start-up pass.
    bool first_pass = true;
};
// Calls what may be called in the present state.
task<> load_config(instance& into, json::value config, load_options how);
// Both passes and the start between them, or at run time the one that is left.
task<> load_all(instance& into, json::value config, bool ignore_errors);
// {"subsystem": NAME, "config": [...]}
task<> load_subsystem(instance& into, json::value part);

}  // namespace varve::server
