#include "nvme/host/discovery.h"

#include <fmt/format.h>

namespace varve::nvme::host {

namespace {

constexpr uint64_t entries_max = 65536;
constexpr unsigned attempts_max = 10;

}  // namespace

task<discovery_log> get_discovery_log(controller& from) {
    for (unsigned attempt = 0; attempt < attempts_max; ++attempt) {
        discovery_header header;
        const std::span<std::byte> header_bytes = std::as_writable_bytes(std::span(&header, 1));
        co_await from.get_log_page(log_page::discovery, 0, header_bytes, 0);
        if (header.record_format != 0)
            co_await fail(errc::unsupported, fmt::format("discovery log of format {}", header.record_format.get()));
        if (header.record_count > entries_max)
            co_await fail(errc::too_big, fmt::format("discovery log of {} entries", header.record_count.get()));
        discovery_log log{.generation = header.generation};
        log.entries.resize(header.record_count);
        co_await from.get_log_page(log_page::discovery, sizeof header, std::as_writable_bytes(std::span(log.entries)),
                                   0);
        // The entries belong together only if nothing changed while they were read.
        co_await from.get_log_page(log_page::discovery, 0, header_bytes, 0);
        if (header.generation == log.generation) co_return std::move(log);
    }
    co_return fail(errc::again, "the discovery log keeps changing");
}

task<discovery_log> discover(controller_options options) {
    options.subnqn = discovery_nqn;
    options.keep_alive_ms = 0;
    std::unique_ptr<controller> service = co_await controller::connect(std::move(options));
    result<discovery_log> log = co_await as_result(get_discovery_log(*service));
    co_await service->disconnect();
    co_return std::move(log);
}

}  // namespace varve::nvme::host
