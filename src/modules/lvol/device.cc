#include "modules/lvol/device.h"

#include "bdev/layer.h"
#include "modules/lvol/report.h"

namespace varve::modules::lvol {

namespace {

bdev::properties properties_of(const volume& v, const blob::blob_ref& b) {
    bdev::properties p = b.properties(v.bdev_name());
    p.product_name = "Logical Volume";
    p.creation_time = creation_time_in(b.xattrs());
    p.aliases = {v.alias()};
    p.uuid = v.uuid().is_nil() ? bdev::layered_uuid(v.owner().uuid(), v.bdev_name()) : v.uuid();
    return p;
}

}  // namespace

volume_device::volume_device(volume& of, blob::blob_ref b)
    : device(properties_of(of, b)), _of(of), _blob(std::move(b)) {}

json::value volume_device::driver_specific() const { return json::object{{"lvol", describe_for_bdev(_of)}}; }

task<> volume_device::destruct() {
    _blob.serve_through(nullptr);
    _blob.close();
    _of._device = nullptr;
    co_return;
}

}  // namespace varve::modules::lvol
