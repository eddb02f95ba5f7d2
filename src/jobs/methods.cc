#include <fmt/format.h>

#include "jobs/registry.h"
#include "rpc/registry.h"
#include "thread/thread.h"

namespace varve::jobs {

namespace {

struct get_params {
    std::optional<uint64_t> id;
    static constexpr auto fields =
        std::tuple{rpc::optional(&get_params::id, "id", "Number of the one wanted; all when not given")};
};

struct id_params {
    uint64_t id = 0;
    static constexpr auto fields = std::tuple{rpc::required(&id_params::id, "id", "Number of the job")};
};

struct rate_params {
    uint64_t id = 0;
    uint64_t mb_per_sec = 0;
    static constexpr auto fields =
        std::tuple{rpc::required(&rate_params::id, "id", "Number of the job"),
                   rpc::required(&rate_params::mb_per_sec, "mb_per_sec",
                                 "MiB a second that it may move; 0: as fast as it can", rpc::range<0, 1'000'000>)};
};

std::string_view state_of(const entry& e) {
    if (e.running()) return e.progress.paused() ? "paused" : "running";
    if (*e.outcome) return "complete";
    return e.outcome->error().code() == errc::cancelled ? "cancelled" : "error";
}

json::value report(const entry& e) {
    const job& j = e.progress;
    time_ns until = e.running() ? thread::thread::current()->now() : e.ended;
    json::object out{{"id", e.id},
                     {"kind", e.what.kind},
                     {"object", e.what.object},
                     {"state", std::string(state_of(e))},
                     {"unit", e.what.unit},
                     {"done", j.done()},
                     {"total", j.total()},
                     {"mb_per_sec", j.rate_limit() >> 20},
                     {"elapsed_ms", (until - e.started) / milliseconds}};
    if (!e.running() && !*e.outcome) out.add("error", e.outcome->error().message());
    return out;
}

result<entry*> running(registry& all, uint64_t id) {
    entry* e = all.find(id);
    if (e == nullptr) return fail(errc::not_found, fmt::format("there is no job {}", id));
    if (!e->running()) return fail(errc::invalid, fmt::format("job {} has ended", id));
    return e;
}

result<json::value> get(registry& all, get_params p) {
    json::array out;
    if (p.id) {
        const entry* e = all.find(*p.id);
        if (e == nullptr) return fail(errc::not_found, fmt::format("there is no job {}", *p.id));
        out.push_back(report(*e));
    } else {
        for (const auto& [id, e] : all.all()) out.push_back(report(*e));
    }
    return json::value(std::move(out));
}

template <class Action>
auto on_running(Action act) {
    return [act](registry& all, id_params p) -> result<> {
        auto e = running(all, p.id);
        if (!e) return fail(std::move(e).error());
        act((*e)->progress);
        return {};
    };
}

result<> set_rate(registry& all, rate_params p) {
    auto e = running(all, p.id);
    if (!e) return fail(std::move(e).error());
    (*e)->progress.limit_rate(p.mb_per_sec << 20);
    return {};
}

}  // namespace

void registry::add_methods(rpc::registry& to) {
    auto add = [&](auto m) { to.add(m.bind(*this)); };
    add(rpc::make_method("job_get_jobs", "Long operations: those that run and the last that ended", get));
    add(rpc::make_method("job_pause", "Let a job wait before its next step", on_running([](job& j) { j.pause(); })));
    add(rpc::make_method("job_resume", "Let a paused job go on", on_running([](job& j) { j.resume(); })));
    add(rpc::make_method("job_cancel", "End a job before its next step", on_running([](job& j) { j.cancel(); })));
    add(rpc::make_method("job_set_rate_limit", "Limit what a job moves in a second", set_rate));
}

}  // namespace varve::jobs
