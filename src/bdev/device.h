// A block device as its module implements it. Everything here belongs to the app thread, except open_channel().
//
// Life: made by a module, handed to registry::add(), opened through descriptors, and after registry::remove(): every
// descriptor is told, all of them and all channels are closed, destruct() is awaited, the object is destroyed.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bdev/properties.h"
#include "thread/task.h"

namespace varve::rpc {
struct call;
}

namespace varve::json {
class value;
}

namespace varve::bdev {

class channel;
struct device_state;  // the core's part: descriptors, claims, channels, limits (device_state.h)

class device {
  public:
    explicit device(properties p);
    virtual ~device();
    device(const device&) = delete;

    const properties& props() const noexcept { return _properties; }
    const std::string& name() const noexcept { return _properties.name; }
    uint32_t block_size() const noexcept { return _properties.block_size; }
    uint64_t num_blocks() const noexcept { return _properties.num_blocks; }

    // Whether a request of this kind will be served, by the module or by emulation with what it offers.
    bool supports(op o) const noexcept;
    // Whether the module itself does it.
    bool offers(op o) const noexcept { return (_properties.offered & op_bit(o)) != 0; }

    // --- the module's part
    // "null", "malloc": who may delete it, who holds claims.
    virtual std::string_view module_name() const noexcept = 0;
    // On the thread that is to use the channel; called once per thread, the core counts and shares it.
    virtual std::unique_ptr<channel> open_channel() = 0;
    // Those that a request to this one may go on to, as of now; and bdevs that lie on one another never form a circle.
    virtual std::vector<device*> lower_devices() const;
    // The call that makes this device again, for save_config; nothing for devices that others bring along.
    virtual std::optional<rpc::call> recreate() const;
    // "driver_specific" in bdev_get_bdevs: an object.
    virtual json::value driver_specific() const;
    // Everyone has left. May take its time; the object is destroyed afterwards.
    virtual task<> destruct();
    // All channels hold new requests and have been asked to abort what they can; called before they go on.
    virtual task<> reset();

  private:
    friend class registry;
    friend struct device_state;
    friend struct channel_core;
    properties _properties;
    std::unique_ptr<device_state> _state;  // set while registered
};

// Whether it is `lower`, or lies on it, however many others are between.
bool lies_on(const device& upper, const device& lower);

}  // namespace varve::bdev
