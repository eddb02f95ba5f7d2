// A kind of bdev: what src/app/modules.cc lists. Most are a name and methods; those that build on other bdevs have
// examiners and configuration of their own, too. App thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "bdev/registry.h"
#include "rpc/call.h"
#include "rpc/method.h"
#include "rpc/registry.h"

namespace varve::bdev {

class module {
  public:
    virtual ~module() = default;
    virtual std::string_view name() const noexcept = 0;
    // Called once, first: adds methods and examiners. Both live as long as this object.
    virtual void attach(rpc::registry& methods, registry& devices) = 0;
    // What is to be saved besides the calls that make the devices (device::recreate): options before them, what waits
    // for a device that is not there.
    virtual std::vector<rpc::call> config() const { return {}; }
    // The end of the system: takes its devices away in an order of its own, while those below can still be written. The
    // registry removes what is left.
    virtual task<> stop() { co_return; }
};

// A module that is nothing but methods.
class module_of_methods final : public module {
  public:
    module_of_methods(std::string name, std::vector<rpc::method_for<registry>> methods)
        : _name(std::move(name)), _methods(std::move(methods)) {}
    std::string_view name() const noexcept override { return _name; }
    void attach(rpc::registry& methods, registry& devices) override {
        for (const auto& m : _methods) methods.add(m.bind(devices));
    }

  private:
    std::string _name;
    std::vector<rpc::method_for<registry>> _methods;
};

template <class... Methods>
std::unique_ptr<module> make_module(std::string name, Methods... methods) {
    return std::make_unique<module_of_methods>(std::move(name), std::vector<rpc::method_for<registry>>{methods...});
}

// The parameters of every bdev_*_delete.
struct delete_params {
    std::string name;
    static constexpr auto fields = std::tuple{rpc::required(&delete_params::name, "name", "Name of the bdev")};
};

}  // namespace varve::bdev
