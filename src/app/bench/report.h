// What `varve bench` says: a line of progress a second, and the result in words or as JSON.
#pragma once

#include <cstdint>
#include <string>

#include "app/bench/options.h"
#include "app/bench/port.h"
#include "app/bench/worker.h"

namespace varve::app::bench {

struct totals {
    uint64_t ios = 0, errors = 0, verified = 0;
    bool wrong = false;  // something was read that was never written, or is gone
    time_ns took = 0;
    metrics::histogram latency_ns{10};
    std::string first_failure;
};

std::string progress_line(const options& how, uint64_t ios, uint64_t ios_before, time_ns since, time_ns elapsed);
std::string in_words(const options& how, const geometry& disk, const totals& t);
std::string as_json(const options& how, const geometry& disk, const totals& t);

}  // namespace varve::app::bench
