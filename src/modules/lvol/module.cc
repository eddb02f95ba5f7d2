#include "modules/lvol/module.h"

#include "modules/lvol/copies.h"
#include "modules/lvol/methods.h"
#include "modules/lvol/volumes.h"

namespace varve::modules {

namespace {

class lvol_module final : public bdev::module {
  public:
    lvol_module(logger& out, jobs::registry& long_ones) : _all(out, long_ones) {}
    std::string_view name() const noexcept override { return lvol::module_name; }
    void attach(rpc::registry& methods, bdev::registry& devices) override {
        _all.attach(devices);
        lvol::add_store_methods(methods, _all);
        lvol::add_volume_methods(methods, _all);
        lvol::add_detail_methods(methods, _all);
        lvol::add_check_methods(methods, _all);
        lvol::add_copy_methods(methods, _copies);
    }
    task<> stop() override { return _all.stop(); }

  private:
    lvol::volumes _all;
    lvol::copies _copies{_all};
};

}  // namespace

std::unique_ptr<bdev::module> make_lvol(logger& out, jobs::registry& long_ones) {
    return std::make_unique<lvol_module>(out, long_ones);
}

}  // namespace varve::modules
