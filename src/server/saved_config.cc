#include "server/saved_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "json/parse.h"
#include "json/write.h"
#include "server/instance.h"

namespace varve::server {

namespace {

// SPDK saves these with everything, whether they were set or not. They tune modules that are not here, so a file does
// not depend on them.
constexpr std::array<std::string_view, 4> settings_without_part = {
    "bdev_raid_set_options", "bdev_nvme_set_options", "bdev_nvme_set_hotplug", "bdev_virtio_blk_set_hotplug"};

std::unexpected<error> malformed(std::string_view what) {
    return fail(errc::rpc_invalid_params, fmt::format("configuration: {}", what));
}

result<> check_call(const json::value& entry) {
    if (const json::array* batch = entry.items()) {
        for (const json::value& call : *batch) VARVE_TRY(check_call(call));
        return {};
    }
    if (entry["method"].string() == nullptr) {
        return malformed(fmt::format("{} is not a call: it has no \"method\"", json::excerpt(entry)));
    }
    const json::value& params = entry["params"];
    if (!params.is_null() && params.members() == nullptr) {
        return malformed(fmt::format("{}: \"params\" is not an object", *entry["method"].string()));
    }
    for (const json::member& m : *entry.members()) {
        if (m.name != "method" && m.name != "params") {
            return malformed(fmt::format("{}: unknown member \"{}\"", *entry["method"].string(), m.name));
        }
    }
    return {};
}

result<> check_part(const json::value& part) {
    if (part["subsystem"].string() == nullptr) {
        return malformed(fmt::format("{} has no \"subsystem\"", json::excerpt(part)));
    }
    const json::value& config = part["config"];
    if (config.is_null()) return {};
    const json::array* calls = config.items();
    if (calls == nullptr) return malformed(fmt::format("\"config\" of {} is no array", *part["subsystem"].string()));
    for (const json::value& entry : *calls) {
        if (auto ok = check_call(entry); !ok) return ok;
    }
    return {};
}

result<> check_config(const json::value& config) {
    const json::array* parts = config["subsystems"].items();
    if (parts == nullptr) return malformed("there is no array \"subsystems\"");
    for (const json::value& part : *parts) VARVE_TRY(check_part(part));
    return {};
}

bool to_be_called(const instance& into, const rpc::method& m, const load_options& how) {
    if (!rpc::allowed_in(m.allowed, into.state())) return false;
    return how.first_pass || m.allowed != rpc::states::any;
}

// One call of the file.
task<> load_call(instance& into, std::string part, json::value entry, load_options how) {
    logger& out = into.system_log().component("json_config");
    const std::string name = *entry["method"].string();
    const rpc::method* m = into.methods().find(name);
    if (m == nullptr) {
        bool known =
            into.find(part) != nullptr && std::ranges::find(settings_without_part, name) == settings_without_part.end();
        if (!known || how.ignore_errors) {
            if (how.first_pass) out.notice(fmt::format("skipped {} of {}: this program does not have it", name, part));
            co_return;
        }
        co_await fail(errc::rpc_method_not_found, name);
    }
    if (!to_be_called(into, *m, how)) co_return;
    auto outcome = co_await as_result(into.call(name, entry["params"]));
    // A bdev that another brings along, a volume say, may be found only now. SPDK saves its limits before it waits.
    const rpc::method* wait = into.methods().find("bdev_wait_for_examine");
    if (!outcome && outcome.error().code() == errc::no_device && wait != nullptr &&
        rpc::allowed_in(wait->allowed, into.state())) {
        co_await into.call(wait->name, {});
        outcome = co_await as_result(into.call(name, entry["params"]));
    }
    if (outcome) co_return;
    error e = std::move(outcome).error().in(fmt::format("{} {}", name, json::excerpt(entry["params"], 200)));
    if (!how.ignore_errors) co_await fail(std::move(e));
    out.error(e.message());
}

task<> load_part(instance& into, json::value part, load_options how) {
    const std::string name = *part["subsystem"].string();
    if (part["config"].is_null()) co_return;
    for (const json::value& entry : *part["config"].items()) {
        if (const json::array* batch = entry.items()) {
            for (const json::value& call : *batch) co_await load_call(into, name, call, how);
        } else {
            co_await load_call(into, name, entry, how);
        }
    }
}

json::value part_config(const rpc::subsystem& part) {
    auto calls = part.config();
    if (!calls) return nullptr;
    json::array out;
    for (const rpc::call& c : *calls) out.push_back(rpc::to_json(c));
    return out;
}

}  // namespace

result<json::value> read_config(std::string_view text) {
    auto config = json::parse(text, json::comments::allowed);
    if (!config) return config;
    VARVE_TRY(check_config(*config));
    return config;
}

json::value saved_config(const instance& of) {
    json::array parts;
    for (const auto& part : of.subsystems()) {
        parts.push_back(json::object{{"subsystem", part->name()}, {"config", part_config(*part)}});
    }
    return json::object{{"subsystems", std::move(parts)}};
}

result<json::value> saved_subsystem(const instance& of, std::string_view name) {
    const rpc::subsystem* part = of.find(name);
    if (part == nullptr) return fail(errc::rpc_invalid_params, fmt::format("Subsystem '{}' not found", name));
    return json::object{{"subsystem", name}, {"config", part_config(*part)}};
}

task<> load_config(instance& into, json::value config, load_options how) {
    co_await check_config(config);
    for (const json::value& part : *config["subsystems"].items()) co_await load_part(into, part, how);
}

task<> load_all(instance& into, json::value config, bool ignore_errors) {
    bool whole = into.state() == rpc::states::startup;
    if (whole) {
        co_await load_config(into, config, {ignore_errors, true});
        co_await into.start();
    }
    co_await load_config(into, std::move(config), {ignore_errors, !whole});
}

task<> load_subsystem(instance& into, json::value part) {
    co_await check_part(part);
    co_await load_part(into, std::move(part), {});
}

}  // namespace varve::server
