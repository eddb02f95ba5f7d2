// Copies and checksums, as SPDK and Longhorn's branch of it have them: started, asked after by number.
#include <fmt/format.h>

#include "modules/lvol/copies.h"
#include "modules/lvol/methods.h"

namespace varve::modules::lvol {

namespace {

struct copy_params {
    std::string src_lvol_name, dst_bdev_name;
    static constexpr auto fields = std::tuple{
        rpc::required(&copy_params::src_lvol_name, "src_lvol_name", "UUID or alias of the lvol, which is read-only"),
        rpc::required(&copy_params::dst_bdev_name, "dst_bdev_name", "Bdev to write to, not smaller")};
};

struct range_copy_params {
    std::string src_lvol_name, dst_bdev_name;
    std::vector<uint64_t> clusters;
    static constexpr auto fields =
        std::tuple{rpc::required(&range_copy_params::src_lvol_name, "src_lvol_name",
                                 "UUID or alias of the lvol, which is read-only"),
                   rpc::required(&range_copy_params::dst_bdev_name, "dst_bdev_name", "Bdev to write to, not smaller"),
                   rpc::required(&range_copy_params::clusters, "clusters",
                                 "Clusters to make equal there: those the lvol has are written, the others unmapped")};
};

struct operation_params {
    uint32_t operation_id = 0;
    static constexpr auto fields =
        std::tuple{rpc::required(&operation_params::operation_id, "operation_id", "As the start of the copy gave it")};
};

struct range_params {
    std::string name;
    uint64_t cluster_start_index = 0, cluster_count = 0;
    static constexpr auto fields =
        std::tuple{rpc::required(&range_params::name, "name", "UUID or alias of the snapshot"),
                   rpc::required(&range_params::cluster_start_index, "cluster_start_index", "First cluster wanted"),
                   rpc::required(&range_params::cluster_count, "cluster_count", "How many clusters from there on")};
};

constexpr uint64_t clusters_told_max = 1 << 20;

result<json::value> start(copies& of, std::string_view name, const std::string& to, copies::extent what,
                          std::vector<uint64_t> listed = {}) {
    auto v = of.all().find_served(name);
    if (!v) return fail(std::move(v).error());
    auto id = late(of.start(**v, to, what, std::move(listed)));
    if (!id) return fail(std::move(id).error());
    return json::value(json::object{{"operation_id", *id}});
}

template <copies::extent what>
result<json::value> start_of(copies& of, copy_params p) {
    return start(of, p.src_lvol_name, p.dst_bdev_name, what);
}

result<json::value> start_range(copies& of, range_copy_params p) {
    return start(of, p.src_lvol_name, p.dst_bdev_name, copies::extent::listed, std::move(p.clusters));
}

result<json::value> check(copies& of, uint32_t id, bool deep) {
    const copies::status* s = of.find(id);
    if (s == nullptr || (s->what == copies::extent::visible) != deep) {
        return fail(errc::no_device, fmt::format("there is no {} copy {}", deep ? "deep" : "shallow", id));
    }
    json::object out{{deep ? "processed_clusters" : "copied_clusters", s->copied}};
    if (s->what == copies::extent::listed) out.add("unmapped_clusters", s->unmapped);
    out.add("total_clusters", s->total);
    out.add("state", !s->outcome ? "in progress" : *s->outcome ? "complete" : "error");
    if (s->outcome && !*s->outcome) out.add("error", s->outcome->error().message());
    if (s->outcome) of.forget(id);
    return json::value(std::move(out));
}

template <bool deep>
result<json::value> check_of(copies& of, operation_params p) {
    return check(of, p.operation_id, deep);
}

template <bool each>
task<> compute(copies& of, name_params p) {
    volume* v = co_await of.all().find_served(p.name);
    co_await late(co_await as_result(of.compute_checksum(*v, each)), errc::rpc_internal);
}

result<json::value> get_checksum(copies& of, name_params p) {
    auto v = of.all().find_served(p.name);
    if (!v) return fail(std::move(v).error());
    auto sum = of.checksum(**v);
    if (!sum) return fail(errc::no_device, fmt::format("no checksum of {} is registered", p.name));
    return json::value(json::object{{"checksum", *sum}});
}

result<json::value> get_checksums(copies& of, range_params p) {
    auto v = of.all().find_served(p.name);
    if (!v) return fail(std::move(v).error());
    if (p.cluster_count > clusters_told_max && v.value()->state()->record.cluster_count > clusters_told_max) {
        return fail(errc::invalid, fmt::format("ask for at most {} clusters at once", clusters_told_max));
    }
    auto sums = of.checksums(**v, p.cluster_start_index, p.cluster_count);
    if (!sums) return fail(errc::no_device, fmt::format("no checksums of the clusters of {} are registered", p.name));
    json::array out;
    for (const auto& s : *sums) out.push_back(json::object{{"cluster_index", s.index}, {"checksum", s.sum}});
    return json::value(std::move(out));
}

result<> stop(copies& of, name_params p) {
    auto v = of.all().find_served(p.name);
    if (!v) return fail(std::move(v).error());
    return of.stop_checksum(**v);
}

}  // namespace

void add_copy_methods(rpc::registry& to, copies& of) {
    auto add = [&](const char* name, const char* text, auto f) { to.add(rpc::make_method(name, text, f).bind(of)); };
    add("bdev_lvol_start_shallow_copy", "Copy the clusters an lvol has itself to a bdev",
        start_of<copies::extent::own>);
    add("bdev_lvol_start_range_shallow_copy", "Make some clusters of a bdev what an lvol has itself", start_range);
    add("bdev_lvol_check_shallow_copy", "How far a copy is; one that has ended is told of once", check_of<false>);
    add("bdev_lvol_start_deep_copy", "Copy all that shows in an lvol to a bdev", start_of<copies::extent::visible>);
    add("bdev_lvol_check_deep_copy", "How far a deep copy is; one that has ended is told of once", check_of<true>);
    add("bdev_lvol_register_snapshot_checksum", "Compute the checksum of a snapshot and keep it with it",
        compute<false>);
    add("bdev_lvol_get_snapshot_checksum", "The checksum that was computed of a snapshot", get_checksum);
    add("bdev_lvol_register_snapshot_range_checksums",
        "Compute the checksum of a snapshot, and of each of its clusters; these are kept until the program ends",
        compute<true>);
    add("bdev_lvol_get_snapshot_range_checksums", "The checksums that were computed of clusters of a snapshot",
        get_checksums);
    add("bdev_lvol_stop_snapshot_checksum", "End the computation of checksums of a snapshot", stop);
}

}  // namespace varve::modules::lvol
