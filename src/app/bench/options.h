// What `varve bench` was asked to do.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "util/result.h"

namespace varve::app::bench {

enum class workload : uint8_t {
    read,
    write,
    rw,
    randread,
    randwrite,
    randrw,
    verify,
    flush,
    unmap,
    write_zeroes,
};

struct options {
    workload load = workload::randread;
    unsigned depth = 32;
    uint32_t io_size = 4096;  // bytes
    unsigned seconds = 10;
    unsigned read_percent = 50;  // of rw and randrw
    std::string cpus;            // empty: one processor
    std::string config_file;     // makes the bdevs
    std::string bdev;            // empty: the first
    std::string nvme;            // a transport id instead of a bdev
    std::string record_file;     // of verify: what was written, from one run to the next
    bool header_digest = false, data_digest = false;
    uint64_t seed = 1;
    bool json = false, quiet = false, busy_poll = false;
};

enum class asked : uint8_t { run, help };
struct parsed {
    asked what = asked::run;
    options how;
    std::string text;  // the help
};
// errc::invalid with what to say.
result<parsed> parse(const std::vector<std::string>& arguments);

const char* name_of(workload w) noexcept;

// "trtype:TCP traddr:127.0.0.1 trsvcid:4420 subnqn:NQN", separated by spaces or commas.
struct transport_id {
    std::string traddr = "127.0.0.1", trsvcid = "4420", subnqn;
    uint32_t nsid = 0;  // 0: the first
};
result<transport_id> parse_transport_id(const std::string& text);

}  // namespace varve::app::bench
