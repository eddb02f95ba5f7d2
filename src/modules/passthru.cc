#include "modules/passthru.h"

#include <fmt/format.h>

#include <algorithm>

#include "bdev/layer.h"

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

// Keeps what was asked for, so that a bdev whose base is not there (yet, or any more) is made when that appears.
class passthru_module final : public module {
  public:
    std::string_view name() const noexcept override { return "passthru"; }
    void attach(rpc::registry& methods, registry& devices) override;
    std::vector<rpc::call> config() const override;

  private:
    task<std::string> create(create_params p);
    task<> remove(delete_params p);
    task<> examine(device& d);
    task<> make(create_params p);

    registry* _devices = nullptr;
    std::vector<create_params> _wanted;
};

void passthru_module::attach(rpc::registry& methods, registry& devices) {
    _devices = &devices;
    auto create_it = [](passthru_module& m, create_params p) { return m.create(std::move(p)); };
    auto delete_it = [](passthru_module& m, delete_params p) { return m.remove(std::move(p)); };
    methods.add(rpc::make_method("bdev_passthru_create", "Create a bdev that hands everything to another", create_it)
                    .bind(*this));
    methods.add(rpc::make_method("bdev_passthru_delete", "Delete a passthru bdev", delete_it).bind(*this));
    devices.add_examiner("passthru", [this](device& d) { return examine(d); });
}

std::vector<rpc::call> passthru_module::config() const {
    std::vector<rpc::call> calls;
    for (create_params p : _wanted) {
        if (const device* d = _devices->find(p.name)) p.id = d->props().uuid;
        calls.push_back({"bdev_passthru_create", rpc::encode(p)});
    }
    return calls;
}

task<std::string> passthru_module::create(create_params p) {
    auto same_name = [&](const create_params& other) { return other.name == p.name; };
    if (std::ranges::any_of(_wanted, same_name) || _devices->find(p.name) != nullptr) {
        co_await fail(errc::exists, fmt::format("bdev name {} already exists", p.name));
    }
    if (_devices->find(p.base_bdev_name) != nullptr) co_await make(p);
    _wanted.push_back(p);
    co_return p.name;
}

task<> passthru_module::make(create_params p) {
    base_link base = co_await base_link::open(*_devices, p.base_bdev_name, name());
    properties props = layered_on(*base, p.name, "passthru");
    props.uuid = p.id.value_or(layered_uuid(base->props().uuid, "passthru"));
    co_await _devices->add(std::make_unique<passthru_device>(std::move(props), *_devices, std::move(base)));
}

task<> passthru_module::remove(delete_params p) {
    auto forgotten = std::erase_if(_wanted, [&](const create_params& other) { return other.name == p.name; });
    if (forgotten != 0 && _devices->find(p.name) == nullptr) co_return;  // it waited for its base
    co_await _devices->remove(p.name, "passthru");
}

task<> passthru_module::examine(device& d) {
    for (std::size_t i = 0; i < _wanted.size(); ++i) {
        if (_wanted[i].base_bdev_name == d.name() && _devices->find(_wanted[i].name) == nullptr) {
            co_await as_result(make(_wanted[i]));
        }
    }
}

}  // namespace

std::unique_ptr<bdev::module> make_passthru() { return std::make_unique<passthru_module>(); }

}  // namespace varve::modules
