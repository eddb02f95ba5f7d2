#include "modules/passthru.h"

#include "bdev/layer_module.h"

namespace varve::modules {

namespace {

using namespace bdev;

struct create_params {
    std::string name, base_bdev_name;
    std::optional<uuid> id;
    static constexpr auto fields = std::tuple{
        rpc::required(&create_params::base_bdev_name, "base_bdev_name", "Name of the bdev below"),
        rpc::required(&create_params::name, "name", "Name of the new bdev"),
        rpc::optional(&create_params::id, "uuid", "UUID of the new bdev; made from the base's when not given")};
};

class passthru_channel final : public channel {
  public:
    explicit passthru_channel(channel_ref base) noexcept : _base(std::move(base)) {}

  private:
    void do_submit(io& r) noexcept override { _base->submit(r); }
    bool do_abort(io& r) noexcept override { return _base->abort(r); }
    channel_ref _base;
};

class passthru_device final : public layer {
  public:
    using layer::layer;
    std::string_view module_name() const noexcept override { return "passthru"; }
    std::unique_ptr<channel> open_channel() override { return std::make_unique<passthru_channel>(base_channel()); }
    json::value driver_specific() const override {
        return json::object{{"passthru", json::object{{"name", name()}, {"base_bdev_name", base().name()}}}};
    }
};

class passthru_module final : public layer_module<create_params> {
  public:
    passthru_module() noexcept : layer_module({"passthru", "passthru", "bdev_passthru_create"}) {}

  private:
    void add_methods(rpc::registry& to) override {
        auto create_it = [](passthru_module& m, create_params p) { return m.create(std::move(p)); };
        auto delete_it = [](passthru_module& m, delete_params p) { return m.remove(std::move(p)); };
        to.add(rpc::make_method("bdev_passthru_create", "Create a bdev that hands everything to another", create_it)
                   .bind(*this));
        to.add(rpc::make_method("bdev_passthru_delete", "Delete a passthru bdev", delete_it).bind(*this));
    }
    std::unique_ptr<device> make(const create_params&, properties props, base_link base) override {
        props.leaves_memory = base->props().leaves_memory;
        return std::make_unique<passthru_device>(std::move(props), devices(), std::move(base));
    }
};

}  // namespace

std::unique_ptr<bdev::module> make_passthru() { return std::make_unique<passthru_module>(); }

}  // namespace varve::modules
