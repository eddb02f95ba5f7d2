// bdev_set_qos_limit.
#include <fmt/format.h>

#include "bdev/core/device_state.h"
#include "bdev/methods/service.h"

namespace varve::bdev {

namespace {

constexpr uint64_t megabyte = 1024 * 1024, ios_step = 1000;

struct qos_params {
    std::string name;
    std::optional<uint64_t> rw_ios_per_sec, rw_mbytes_per_sec, r_mbytes_per_sec, w_mbytes_per_sec;
    static constexpr auto fields = std::tuple{
        rpc::required(&qos_params::name, "name", "Name of the bdev"),
        rpc::optional(&qos_params::rw_ios_per_sec, "rw_ios_per_sec",
                      "Reads and writes per second, rounded up to thousands; 0: no limit"),
        rpc::optional(&qos_params::rw_mbytes_per_sec, "rw_mbytes_per_sec",
                      "MiB read and written per second; 0: no limit"),
        rpc::optional(&qos_params::r_mbytes_per_sec, "r_mbytes_per_sec", "MiB read per second; 0: no limit"),
        rpc::optional(&qos_params::w_mbytes_per_sec, "w_mbytes_per_sec", "MiB written per second; 0: no limit")};
};

result<> set(uint64_t& limit, std::optional<uint64_t> wanted, std::string_view name) {
    if (!wanted) return {};
    if (!checked_multiply(*wanted, megabyte, limit)) {
        return fail(errc::invalid, fmt::format("{} {} is too much", name, *wanted));
    }
    return {};
}

task<> set_qos_limit(registry& devices, qos_params p) {
    device& d = *co_await find(devices, p.name);
    device_state& s = device_state::of_device(d);
    if (!p.rw_ios_per_sec && !p.rw_mbytes_per_sec && !p.r_mbytes_per_sec && !p.w_mbytes_per_sec) {
        co_await fail(error(errc::invalid, "No rate limits specified"));
    }
    rate_limits wanted = s.limits;
    if (p.rw_ios_per_sec) {
        if (*p.rw_ios_per_sec > UINT64_MAX - ios_step) co_await fail(errc::invalid, "rw_ios_per_sec is too much");
        wanted.rw_ios_per_sec = round_up(*p.rw_ios_per_sec, ios_step);
    }
    co_await set(wanted.rw_bytes_per_sec, p.rw_mbytes_per_sec, "rw_mbytes_per_sec");
    co_await set(wanted.r_bytes_per_sec, p.r_mbytes_per_sec, "r_mbytes_per_sec");
    co_await set(wanted.w_bytes_per_sec, p.w_mbytes_per_sec, "w_mbytes_per_sec");
    gate::holder stays = s.tasks.enter();
    if (!stays) co_await fail(errc::no_device, fmt::format("bdev {} is being removed", p.name));
    co_await s.set_limits(wanted);
}

}  // namespace

json::object limits_of(const device& d) {
    const rate_limits& l = device_state::of_device(d).limits;
    return {{"rw_ios_per_sec", l.rw_ios_per_sec},
            {"rw_mbytes_per_sec", l.rw_bytes_per_sec / megabyte},
            {"r_mbytes_per_sec", l.r_bytes_per_sec / megabyte},
            {"w_mbytes_per_sec", l.w_bytes_per_sec / megabyte}};
}

void add_limit_methods(rpc::registry& methods, registry& devices) {
    methods.add(
        rpc::make_method("bdev_set_qos_limit", "Limit the rate at which a bdev is read and written", set_qos_limit)
            .bind(devices));
}

}  // namespace varve::bdev
