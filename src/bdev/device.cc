#include "bdev/device.h"

#include <algorithm>

#include "bdev/core/device_state.h"
#include "json/value.h"
#include "rpc/call.h"
#include "thread/thread.h"

namespace varve::bdev {

device::device(properties p) : _properties(std::move(p)) {}
device::~device() = default;

bool device::supports(op o) const noexcept {
    bool reads = offers(op::read), writes = offers(op::write) && !is_read_only(*this);
    switch (o) {
        case op::nvme_admin:
        case op::nvme_io:
            return offers(o);
        case op::flush:
            return offers(o) || !_properties.write_cache;  // nothing to do is done
        case op::reset:
            return true;
        case op::read:
            return reads;
        case op::write:
            return writes;
        case op::unmap:
        case op::write_zeroes:
            return writes;
        case op::compare:
        case op::seek_data:
        case op::seek_hole:
            return reads;
        case op::compare_and_write:
        case op::copy:
            return reads && writes;
        case op::count:
            break;
    }
    return false;
}

std::vector<device*> device::lower_devices() const { return {}; }

bool lies_on(const device& upper, const device& lower) {
    std::vector<const device*> seen{&upper};
    for (std::size_t i = 0; i < seen.size(); ++i) {
        if (seen[i] == &lower) return true;
        for (const device* below : seen[i]->lower_devices()) {
            if (std::ranges::find(seen, below) == seen.end()) seen.push_back(below);
        }
    }
    return false;
}

std::optional<rpc::call> device::recreate() const { return std::nullopt; }
json::value device::driver_specific() const { return json::object(); }
task<> device::destruct() { co_return; }
task<> device::reset() { co_return; }

}  // namespace varve::bdev
