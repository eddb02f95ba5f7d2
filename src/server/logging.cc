#include "server/logging.h"

#include "server/instance.h"

namespace varve {
constexpr auto names_of(log_level) {
    return std::to_array<rpc::named<log_level>>({{"ERROR", log_level::error},
                                                 {"WARNING", log_level::warning},
                                                 {"NOTICE", log_level::notice},
                                                 {"INFO", log_level::info},
                                                 {"DEBUG", log_level::debug}});
}
}  // namespace varve

namespace varve::server {

namespace {

struct level_params {
    log_level level = log_level::notice;
    static constexpr auto fields =
        std::tuple{rpc::required(&level_params::level, "level", "The least urgent level kept")};
};

struct flag_params {
    std::string flag;
    static constexpr auto fields =
        std::tuple{rpc::required(&flag_params::flag, "flag", "A flag of log_get_flags, or \"all\"")};
};

struct timestamp_params {
    bool enabled = true;
    static constexpr auto fields =
        std::tuple{rpc::required(&timestamp_params::enabled, "enabled", "Whether printed lines begin with the time")};
};

// What SPDK calls the parts that we have too: scripts name them with -L and log_set_flag. A flag of a part that never
// has a debug line is harmless.
constexpr const char* spdk_flags[] = {"accel",     "aio",     "app_config", "app_rpc", "bdev",          "bdev_malloc",
                                      "bdev_null", "log_rpc", "notify_rpc", "nvmf",    "nvmf_tcp",      "reactor",
                                      "rpc",       "sock",    "thread",     "uring",   "vbdev_passthru"};

result<> switch_flag(instance& i, const flag_params& p, bool on) {
    if (!i.system_log().set_flag(p.flag, on)) {
        return fail(error(errc::rpc_invalid_params, "invalid log flag: " + p.flag));
    }
    return {};
}

}  // namespace

void add_log_methods(instance& to) {
    using rpc::make_method, rpc::states;
    auto add = [&](auto m) { to.methods().add(m.bind(to)); };
    for (const char* flag : spdk_flags) to.system_log().component(flag);
    add(make_method(
        "log_get_flags", "The parts whose debug lines can be switched on, and whether they are",
        [](instance& i) -> json::value {
            json::object out;
            for (const auto& [name, component] : i.system_log().components()) out.add(name, component->flag());
            return out;
        },
        states::any));
    add(make_method(
        "log_set_flag", "Switches the debug lines of a part on",
        [](instance& i, flag_params p) { return switch_flag(i, p, true); }, states::any));
    add(make_method(
        "log_clear_flag", "Switches the debug lines of a part off",
        [](instance& i, flag_params p) { return switch_flag(i, p, false); }, states::any));
    add(make_method(
        "log_set_level", "Sets the threshold for the system's log",
        [](instance& i, level_params p) { i.system_log().set_record_level(p.level); }, states::any));
    add(make_method(
        "log_get_level", "The threshold for the system's log",
        [](instance& i) { return std::string(name_of(i.system_log().record_level())); }, states::any));
    add(make_method(
        "log_set_print_level", "Sets the threshold for lines on standard error",
        [](instance& i, level_params p) { i.system_log().set_print_level(p.level); }, states::any));
    add(make_method(
        "log_get_print_level", "The threshold for lines on standard error",
        [](instance& i) { return std::string(name_of(i.system_log().print_level())); }, states::any));
    add(make_method("log_enable_timestamps", "Begins printed lines with the time, or not",
                    [](instance& i, timestamp_params p) { i.system_log().set_timestamps(p.enabled); }));
}

}  // namespace varve::server
