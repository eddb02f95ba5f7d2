// How a controller learns its namespaces.
#include <fmt/format.h>

#include <algorithm>

#include "nvme/host/controller.h"

namespace varve::nvme::host {

namespace {

constexpr std::size_t namespaces_max = 4096;  // more than that we do not keep

}  // namespace

const ns* controller::find(uint32_t nsid) const noexcept {
    auto at = std::ranges::find(_namespaces, nsid, &ns::nsid);
    return at == _namespaces.end() ? nullptr : &*at;
}

task<ns> controller::identify_namespace_of(uint32_t nsid) {
    auto data = std::make_unique<identify_namespace>();
    co_await ask(identify_command(cns::active_namespace, nsid), std::as_writable_bytes(std::span(data.get(), 1)),
                 fmt::format("identifying namespace {}", nsid));
    auto descriptors = std::make_unique<std::array<std::byte, identify_size>>();
    // Optional before NVMe 1.3; without them the namespace has no UUID.
    const cqe answer = co_await admin(identify_command(cns::namespace_descriptors, nsid), *descriptors);
    co_return ns::from(nsid, *data,
                       answer.ok() ? std::span<const std::byte>(*descriptors) : std::span<const std::byte>(),
                       _transfer_max);
}

task<> controller::scan() {
    std::vector<ns> found;
    auto page = std::make_unique<namespace_list>();
    for (uint32_t after = 0;;) {
        co_await ask(identify_command(cns::active_namespace_list, after),
                     std::as_writable_bytes(std::span(page.get(), 1)), "listing the namespaces");
        uint32_t last = after;
        for (const uint32_t id : page->ids) {
            // Ascending, ended by 0: anything else would have us ask for ever.
            if (id <= last || id == nsid_all) break;
            last = id;
            // It may have gone, or be of a kind we cannot use: the others are none the worse.
            result<ns> one = co_await as_result(identify_namespace_of(id));
            if (_lost) co_await varve::fail(errc::not_connected, "the connection was lost");
            if (one && one->blocks != 0) found.push_back(*one);
        }
        const bool full = page->ids[std::size(page->ids) - 1] != 0;
        if (!full || last == after || found.size() >= namespaces_max) break;
        after = last;
    }
    _namespaces = std::move(found);
}

task<> controller::rescan() {
    if (_scanning) {  // the one under way may have passed what has changed now
        _scan_again = true;
        co_return;
    }
    _scanning = true;
    _scan_again = false;
    const std::vector<ns> before = _namespaces;
    result<> outcome = co_await as_result(scan());
    if (outcome && before != _namespaces && _on_namespaces_changed) _on_namespaces_changed();
    _scanning = false;
    // Not awaited: namespaces that change faster than they are read would hold up the caller for ever.
    if (outcome && _scan_again && !_disconnecting && !_lost) _handlers.spawn(rescan(), [](error) {});
    co_await std::move(outcome);
}

}  // namespace varve::nvme::host
