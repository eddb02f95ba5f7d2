#include <fmt/format.h>

#include "server/framework.h"
#include "server/instance.h"
#include "server/saved_config.h"

namespace varve::server {

namespace {

using rpc::states;

struct get_params {
    std::string name;
    bool with_batches = false;
    static constexpr auto fields = std::tuple{
        rpc::required(&get_params::name, "name", "Name of the subsystem, as framework_get_subsystems gives it"),
        rpc::optional(&get_params::with_batches, "with_batches", "Accepted; calls are saved one by one anyway")};
};

result<json::value> get_config(instance& i, get_params p) {
    auto part = saved_subsystem(i, p.name);
    if (!part) return part;
    return (*part)["config"];
}

struct load_params {
    json::value subsystems;
    static constexpr auto fields =
        std::tuple{rpc::required(&load_params::subsystems, "subsystems", "As save_config gives them")};
};

task<> load(instance& i, load_params p) {
    co_await load_all(i, json::object{{"subsystems", std::move(p.subsystems)}}, false);
}

struct save_subsystem_params {
    std::string name;
    static constexpr auto fields =
        std::tuple{rpc::required(&save_subsystem_params::name, "name", "Name of the subsystem")};
};

struct load_subsystem_params {
    std::string subsystem;
    json::value config;
    static constexpr auto fields = std::tuple{
        rpc::required(&load_subsystem_params::subsystem, "subsystem", "Name of the subsystem"),
        rpc::required(&load_subsystem_params::config, "config", "Calls, as save_subsystem_config gives them")};
};

}  // namespace

void add_config_methods(instance& to) {
    using rpc::make_method;
    auto add = [&](auto m) { to.methods().add(m.bind(to)); };
    add(make_method("framework_get_config", "The calls that bring a fresh subsystem to the present state", get_config));
    add(make_method("save_config", "The calls that bring a fresh system to the present state",
                    [](instance& i) { return saved_config(i); }));
    add(make_method("load_config", "Makes the calls that save_config gave; at start-up, also starts the subsystems",
                    load, states::any));
    add(make_method("save_subsystem_config",
                    "The same as framework_get_config, in the form load_subsystem_config takes",
                    [](instance& i, save_subsystem_params p) { return saved_subsystem(i, p.name); }));
    add(make_method(
        "load_subsystem_config", "Makes the calls that save_subsystem_config gave",
        [](instance& i, load_subsystem_params p) {
            return load_subsystem(i, json::object{{"subsystem", p.subsystem}, {"config", p.config}});
        },
        states::any));
}

}  // namespace varve::server
