// The bdev of one volume: its blob under the volume's names. While it is there the blob is open.
#pragma once

#include "bdev/device.h"
#include "modules/lvol/volumes.h"

namespace varve::modules::lvol {

class volume_device final : public bdev::device {
  public:
    volume_device(volume& of, blob::blob_ref b);
    std::string_view module_name() const noexcept override { return lvol::module_name; }
    std::unique_ptr<bdev::channel> open_channel() override { return _blob.open_channel(); }
    std::vector<bdev::device*> lower_devices() const override { return _blob.lower_devices(); }
    json::value driver_specific() const override;
    task<> destruct() override;

    volume& of() const noexcept { return _of; }
    // Once it is registered.
    void serve() noexcept { _blob.serve_through(this); }

  private:
    volume& _of;
    blob::blob_ref _blob;
};

}  // namespace varve::modules::lvol
