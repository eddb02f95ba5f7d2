// Devices on top of one other device: what passthru, delay, error and their like have in common.
//
//   class my_device final : public layer { ... open_channel() makes a channel that holds base_channel() ... };
//
// The base is opened for writing and claimed. When it goes, so does the layer; when it is resized, so is the layer.
#pragma once

#include <memory>
#include <string>

#include "bdev/registry.h"

namespace varve::bdev {

class layer;

// An open and claimed base, until a layer takes it.
class base_link {
  public:
    // errc::no_device, errc::not_permitted.
    static result<base_link> open(registry& devices, std::string_view name, std::string_view module);
    device& operator*() const noexcept { return *_base; }
    device* operator->() const noexcept { return &*_base; }

  private:
    friend class layer;
    base_link() = default;
    struct events {
        layer* above = nullptr;
    };
    std::unique_ptr<events> _events;
    descriptor _base;
    gate::holder _last_requests;  // of a base that is going
};

// The base's geometry and abilities under another name. `frames`: those a request is given by the layer itself.
properties layered_on(const device& base, std::string name, std::string product, uint8_t frames = 0);
// A UUID that is the same each time the layer is made on the same base, as SPDK's layers have it.
uuid layered_uuid(const uuid& base, std::string_view kind) noexcept;

class layer : public device {
  public:
    layer(properties p, registry& devices, base_link base);
    device& base() const noexcept { return *_link._base; }
    std::vector<device*> lower_devices() const override { return {&*_link._base}; }
    task<> reset() override;
    task<> destruct() override;

  protected:
    // On the thread of a channel.
    channel_ref base_channel() const { return _link._base.channel(); }
    virtual void base_resized();
    registry& devices() const noexcept { return _devices; }

  private:
    friend class base_link;
    void base_removed();
    registry& _devices;
    base_link _link;
};

}  // namespace varve::bdev
