// Modules whose bdevs each lie on one other: passthru, error, delay and their like. What was asked for is kept, and
// saved, so that a bdev whose base is not there (yet, or any more) is made when that appears. App thread.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bdev/layer.h"
#include "bdev/module.h"

namespace varve::bdev {

struct layer_kind {
    const char* module;         // "delay"
    const char* product;        // product_name of its bdevs
    const char* create_method;  // what is saved
    uint8_t frames = 0;         // those a request is given by the layer itself
};

// Params is what the creating method takes: name, base_bdev_name, std::optional<uuid> id, and more.
template <class Params>
class layer_module : public module {
  public:
    explicit layer_module(const layer_kind& kind) noexcept : _kind(kind) {}
    std::string_view name() const noexcept final { return _kind.module; }
    void attach(rpc::registry& methods, registry& devices) final;
    std::vector<rpc::call> config() const final;

    // What the methods do.
    task<std::string> create(Params p);
    task<> remove(delete_params p);

  protected:
    virtual void add_methods(rpc::registry& to) = 0;
    virtual std::unique_ptr<device> make(const Params& p, properties props, base_link base) = 0;
    // The calls that make one of them again.
    virtual void save(const Params& p, std::vector<rpc::call>& calls) const {
        calls.push_back({_kind.create_method, rpc::encode(p)});
    }

    registry& devices() const noexcept { return *_devices; }
    Params* wanted(std::string_view by_name) noexcept {
        auto at = std::ranges::find(_wanted, by_name, &Params::name);
        return at == _wanted.end() ? nullptr : &*at;
    }
    // One of this module's that is there; errc::no_device.
    result<device*> find(std::string_view by_name) const {
        device* d = _devices->find(by_name);
        if (d != nullptr && d->module_name() == _kind.module) return d;
        return fail(errc::no_device, fmt::format("there is no {} bdev {}", _kind.module, by_name));
    }

  private:
    task<> build(Params p);
    task<> examine(device& d);

    const layer_kind _kind;
    registry* _devices = nullptr;
    std::vector<Params> _wanted;
};

template <class Params>
void layer_module<Params>::attach(rpc::registry& methods, registry& devices) {
    _devices = &devices;
    add_methods(methods);
    devices.add_examiner(_kind.module, [this](device& d) { return examine(d); });
}

template <class Params>
std::vector<rpc::call> layer_module<Params>::config() const {
    std::vector<rpc::call> calls;
    for (Params p : _wanted) {
        if (const device* d = _devices->find(p.name)) p.id = d->props().uuid;
        save(p, calls);
    }
    return calls;
}

template <class Params>
task<std::string> layer_module<Params>::create(Params p) {
    if (wanted(p.name) != nullptr || _devices->find(p.name) != nullptr) {
        co_await fail(errc::exists, fmt::format("bdev name {} already exists", p.name));
    }
    if (_devices->find(p.base_bdev_name) != nullptr) co_await build(p);
    _wanted.push_back(p);
    co_return p.name;
}

template <class Params>
task<> layer_module<Params>::build(Params p) {
    base_link base = co_await base_link::open(*_devices, p.base_bdev_name, _kind.module);
    properties props = layered_on(*base, p.name, _kind.product, _kind.frames);
    props.uuid = p.id.value_or(layered_uuid(base->props().uuid, _kind.module));
    co_await _devices->add(make(p, std::move(props), std::move(base)));
}

template <class Params>
task<> layer_module<Params>::remove(delete_params p) {
    auto forgotten = std::erase_if(_wanted, [&](const Params& other) { return other.name == p.name; });
    if (forgotten != 0 && _devices->find(p.name) == nullptr) co_return;  // it waited for its base
    co_await _devices->remove(p.name, _kind.module);
}

template <class Params>
task<> layer_module<Params>::examine(device& d) {
    for (std::size_t i = 0; i < _wanted.size(); ++i) {
        if (_wanted[i].base_bdev_name == d.name() && _devices->find(_wanted[i].name) == nullptr) {
            co_await as_result(build(_wanted[i]));
        }
    }
}

}  // namespace varve::bdev
